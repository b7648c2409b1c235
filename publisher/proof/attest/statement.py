"""in-toto statements about a release: https://github.com/in-toto/attestation/tree/main/spec/v1

Two for each disk: SLSA provenance, and what this program proved of it. Both name
the same subjects: the disk, and each image that was made of it. Each names all disks
of the release, so that none can be left out unseen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.errors import ProofError
from publisher.manifest import Flavour, Manifest
from publisher.proof.attest.provenance import BUILD, provenance
from publisher.proof.attest.subject import Subject

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
PROOF = BUILD.replace("/build/", "/proof/")


def statements(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """What is to be signed of a release, in the order of its flavours. Raises ProofError
    where the manifest has an image that belongs to none of its disks."""
    _refuse_strangers(manifest)
    disks = [
        Subject(f"{flavour.name} {manifest.version}", flavour.digest, flavour.size)
        for flavour in manifest.flavours
    ]
    release = {
        "name": manifest.name,
        "version": manifest.version,
        "disks": [{"name": d.name, "digest": {"sha256": d.digest}} for d in disks],
    }
    for disk, flavour in zip(disks, manifest.flavours, strict=True):
        images = [image for image in manifest.images if image.reference in flavour.references]
        named = [disk, *(Subject.of(image, flavour.size) for image in images)]
        for kind, predicate in (
            (PROVENANCE, provenance(manifest, flavour, release)),
            (PROOF, _proof(manifest, flavour, release)),
        ):
            yield {
                "_type": STATEMENT,
                "subject": [subject.describe() for subject in named],
                "predicateType": kind,
                "predicate": predicate,
            }


def _refuse_strangers(manifest: Manifest) -> None:
    digests = {
        reference: flavour.digest
        for flavour in manifest.flavours
        for reference in flavour.references
    }
    for image in manifest.images:
        digest = digests.get(image.reference)
        if digest != image.digest:
            of = f"of the disk {image.digest[:12]}…"
            whose = f"not of {digest[:12]}… as its release says" if digest else "of no release"
            raise ProofError(
                f"{image.reference} is {of}, {whose}: nothing is signed",
                hint="the manifest was changed, or an image in the cloud: run the pipeline again, "
                "which writes the manifest anew",
            )


def _proof(manifest: Manifest, flavour: Flavour, release: Mapping[str, Any]) -> Mapping[str, Any]:
    """The results of the proofs by kind, and what the build's own checks printed."""
    return {
        "release": release,
        "invocationId": manifest.run,
        "proofs": flavour.proofs,
        "checks": list(flavour.evidence),
        "byHand": flavour.by_hand,
    }


def payload(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
