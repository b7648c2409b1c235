"""What a disk was made from, as SLSA provenance: https://slsa.dev/spec/v1.0/provenance"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from publisher.manifest import Flavour, Manifest
from publisher.proof.attest.subject import SHA256

_HOME = "https://github.com/cloud-image-publisher/cloud-image-publisher"
BUILD = f"{_HOME}/attestation/build/v1"
_BUILDER = f"{_HOME}/attestation/builder/v1"
_MEDIA = {"cyclonedx": "application/vnd.cyclonedx+json", "spdx": "application/spdx+json"}
TREE = "treeSha256"
"""The digest of a file or directory with its names and modes (recipe.digest_tree): it is
not the sha256 of any file, and must not be taken for it."""


def provenance(
    manifest: Manifest, flavour: Flavour, release: Mapping[str, Any]
) -> Mapping[str, Any]:
    """`release` names all disks of the release."""
    origin = flavour.origin
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "name": manifest.name,
                "version": manifest.version,
                "variant": flavour.variant,
                "arch": flavour.arch,
                "firmware": flavour.firmware,
                **(
                    {"pipeline": origin.get("pipeline", {}), "recipe": origin["recipe"]}
                    if "recipe" in origin
                    else {"source": flavour.source}
                ),
            },
            "internalParameters": {
                "release": release,
                "tools": manifest.tools,
                "byHand": flavour.by_hand,
            },
            "resolvedDependencies": list(_dependencies(flavour)),
        },
        "runDetails": {
            "builder": {"id": _BUILDER, "version": manifest.tools},
            "metadata": {"invocationId": manifest.run, "finishedOn": manifest.created},
            "byproducts": list(_byproducts(flavour)),
        },
    }


def _dependencies(flavour: Flavour) -> Iterator[Mapping[str, Any]]:
    """As in-toto's ResourceDescriptors: what a migration read; files whose digest the
    recipe states; those that a signed list vouched for and the archives' indices, as they
    were when the disk was built; local files."""
    if "migrated" in flavour.source:
        yield {"uri": flavour.source["migrated"]}
    yield from _stated(flavour.source, "build.source")
    for name, digest in flavour.origin.get("materials", {}).items():
        algorithm, _, value = digest.partition(":")
        yield {("uri" if "://" in name else "name"): name, "digest": {algorithm: value}}
    for name, digest in flavour.origin.get("recipe", {}).get("files", {}).items():
        yield {"name": name, "digest": {TREE: digest}}


def _stated(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        for algorithm in ("sha256", "sha512"):
            digest = value.get(algorithm)
            if isinstance(digest, str):
                yield {"name": name, "digest": {algorithm: digest.lower()}}
        for key, inner in value.items():
            yield from _stated(inner, f"{name}.{key}")


def _byproducts(flavour: Flavour) -> Iterator[Mapping[str, Any]]:
    for document in flavour.proofs.get("inventory", {}).get("documents", ()):
        if SHA256.fullmatch(document["sha256"]):
            yield {
                "name": PurePath(document["path"]).name,
                "digest": {"sha256": document["sha256"]},
                "mediaType": _MEDIA.get(document["format"], "application/json"),
            }
