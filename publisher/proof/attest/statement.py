"""in-toto statements about a release: https://github.com/in-toto/attestation/tree/main/spec/v1

Two for each disk: SLSA provenance, and what this program proved of it. Both name
the same subjects: the disk, and each image that was made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from publisher.errors import ProofError
from publisher.manifest import Flavour, Manifest
from publisher.model import Audience, Image, Noun

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
_HOME = "https://github.com/cloud-image-publisher/cloud-image-publisher"
PROOF = f"{_HOME}/attestation/proof/v1"
BUILD = f"{_HOME}/attestation/build/v1"
_BUILDER = f"{_HOME}/attestation/builder/v1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Subject(Noun):
    """A disk, or an image that was made of it: then `provider`, `ref`, `region`,
    `image` (its name), `version` and `audience` are what the cloud must say of it.
    `size` is the disk's virtual size in bytes."""

    name: str
    digest: str
    size: int
    provider: str = ""
    ref: str = ""
    region: str = ""
    image: str = ""
    version: str = ""
    audience: Audience = field(default_factory=Audience)

    @classmethod
    def of(cls, image: Image, size: int) -> Self:
        # one reference may stand for images in several regions
        where = "" if image.region in image.ref else f" in {image.region}"
        return cls(
            f"{image.reference}{where}",
            image.digest,
            size,
            image.provider,
            image.ref,
            image.region,
            image.name,
            image.version,
            image.audience,
        )

    def describe(self) -> Mapping[str, Any]:
        """As in-toto's ResourceDescriptor."""
        known = self.to_json()
        annotations = {key: known[key] for key in known if key not in ("name", "digest")}
        if not self.provider:
            annotations = {"size": self.size}
        made: dict[str, Any] = {"name": self.name, "digest": {"sha256": self.digest}}
        return {**made, "annotations": annotations}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Raises ProofError for what is no subject of ours."""
        try:
            values = dict(data["annotations"])
            values["audience"] = Audience.from_json(values.get("audience", {"kind": "private"}))
            digest = data["digest"]["sha256"]
            if not _SHA256.fullmatch(digest):
                raise ValueError(digest)
            return cls(str(data["name"]), digest, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise ProofError(f"a subject of the attestation is malformed: {error}") from error


def statements(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """What is to be signed of a release, in the order of its flavours."""
    for flavour in manifest.flavours:
        named = [
            Subject(f"{flavour.name} {manifest.version}", flavour.digest, flavour.size),
            *(
                Subject.of(image, flavour.size)
                for image in manifest.images
                if image.reference in flavour.references and image.digest == flavour.digest
            ),
        ]
        for kind, predicate in (
            (PROVENANCE, _provenance(manifest, flavour)),
            (PROOF, _proof(flavour)),
        ):
            yield {
                "_type": STATEMENT,
                "subject": [subject.describe() for subject in named],
                "predicateType": kind,
                "predicate": predicate,
            }


def _provenance(manifest: Manifest, flavour: Flavour) -> Mapping[str, Any]:
    """https://slsa.dev/spec/v1.0/provenance"""
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "name": manifest.name,
                "version": manifest.version,
                "variant": flavour.variant,
                "arch": flavour.arch,
                "firmware": flavour.firmware,
                "source": flavour.source,
            },
            "internalParameters": {"tools": manifest.tools, "byHand": flavour.by_hand},
            "resolvedDependencies": list(_dependencies(flavour.source)),
        },
        "runDetails": {
            "builder": {"id": _BUILDER, "version": manifest.tools},
            "metadata": {"invocationId": manifest.run, "finishedOn": manifest.created},
        },
    }


def _dependencies(value: Any, name: str = "source") -> Iterator[Mapping[str, Any]]:
    """Everything in the description of the source that has a digest: sections with
    `sha256`, and the digests of local files by their keys."""
    if isinstance(value, Mapping):
        digest = value.get("sha256")
        if isinstance(digest, str) and _SHA256.fullmatch(digest):
            yield {"name": name, "digest": {"sha256": digest}}
        for key, inner in value.items():
            below = f"{name}.{key}"
            if key != "sha256" and isinstance(inner, str) and _SHA256.fullmatch(inner):
                yield {"name": below, "digest": {"sha256": inner}}
            else:
                yield from _dependencies(inner, below)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _dependencies(inner, f"{name}[{number}]")


def _proof(flavour: Flavour) -> Mapping[str, Any]:
    """The results of the proofs by kind, and what the build's own checks printed."""
    return {"proofs": flavour.proofs, "checks": list(flavour.evidence), "byHand": flavour.by_hand}


def payload(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def subjects(signed: Sequence[Mapping[str, Any]]) -> tuple[Subject, ...]:
    """The subjects that the statements agree on, each once.

    Raises ProofError where one is malformed, or where a disk has a statement that
    leaves out what another one names.
    """
    named: dict[str, dict[str, tuple[Subject, ...]]] = {}
    for statement in signed:
        if statement.get("_type") != STATEMENT or not statement.get("subject"):
            raise ProofError("the attestation holds something that is no in-toto statement")
        kind = str(statement.get("predicateType"))
        found = tuple(Subject.read(subject) for subject in statement["subject"])
        digests = {subject.digest for subject in found}
        if len(digests) != 1:
            raise ProofError(f"a statement of {kind} names several disks as if they were one")
        named.setdefault(found[0].name, {})[kind] = found
    for disk, kinds in named.items():
        missing = {PROVENANCE, PROOF} - kinds.keys()
        if missing:
            raise ProofError(f"the attestation of {disk} lacks {', '.join(sorted(missing))}")
        if kinds[PROVENANCE] != kinds[PROOF]:
            raise ProofError(f"the statements about {disk} name different images")
    return tuple(dict.fromkeys(s for kinds in named.values() for s in kinds[PROVENANCE]))
