"""Signed statements read together: they must be all those of one release, by one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from publisher.errors import ProofError
from publisher.proof.attest.results import Result, results
from publisher.proof.attest.statement import PROOF, PROVENANCE, STATEMENT
from publisher.proof.attest.subject import Subject

_Named: TypeAlias = tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class Attested:
    """A release as it is attested. `subjects` are all disks and images, each once;
    `proofs` are the results by disk."""

    name: str
    version: str
    subjects: tuple[Subject, ...]
    proofs: Mapping[str, Sequence[Result]]

    def expect(self, release: str, digests: Sequence[str]) -> None:
        """Raise ProofError where this is of another release than NAME[@VERSION], or
        of none of the disks with these sha256; both may be empty."""
        name, _, version = release.partition("@")
        if name not in ("", self.name) or version not in ("", self.version):
            raise ProofError(
                f"the attestation is of {self.name}@{self.version}, not of {release}",
                hint="get the one that belongs to the release",
            )
        known = {subject.digest for subject in self.subjects}
        for digest in digests:
            if digest.removeprefix("sha256:").lower() not in known:
                raise ProofError(
                    f"the attestation is of no disk with the digest {digest}",
                    hint="get the one that belongs to the disk",
                )

    def require(self, kinds: Sequence[str]) -> None:
        """Raise ProofError where a disk has not passed all these proofs (PROOFS)."""
        for disk, found in self.proofs.items():
            known = {result.proof: result for result in found}
            for kind in kinds:
                if not known[kind].passed:
                    raise ProofError(
                        f"{disk}: {kind}: {known[kind].told}",
                        hint="do not use its images, or do not ask for that proof",
                    )


def read(signed: Sequence[Mapping[str, Any]]) -> Attested:
    """What the statements say together.

    Raises ProofError where one is malformed or missing, where a disk has two of one
    kind, where they differ in their images, or are not of one release and run.
    """
    named: dict[str, dict[str, _Named]] = {}
    proofs: dict[str, Sequence[Result]] = {}
    about: list[tuple[Mapping[str, Any], str]] = []
    for statement in signed:
        if statement.get("_type") != STATEMENT or not statement.get("subject"):
            raise ProofError("the attestation holds something that is no in-toto statement")
        kind = str(statement.get("predicateType"))
        if kind not in (PROVENANCE, PROOF):
            continue
        try:
            found = tuple(Subject.read(subject) for subject in statement["subject"])
            about.append(_release(kind, statement["predicate"]))
            disk = found[0].name
            if kind == PROOF:
                proofs[disk] = results(statement["predicate"]["proofs"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProofError(f"a statement of {kind} is malformed: {error!r}") from error
        if len({subject.digest for subject in found}) != 1:
            raise ProofError(f"a statement of {kind} names several disks as if they were one")
        if kind in named.setdefault(disk, {}):
            raise ProofError(f"the attestation has two statements of {kind} about {disk}")
        named[disk][kind] = found
    if not about:
        raise ProofError("the attestation holds no statement about a release")
    if any(other != about[0] for other in about):
        raise ProofError(
            "the statements are not of one release and one run",
            hint="get the file again, from where the release was made",
        )
    release, _ = about[0]
    subjects = _agreed(_disks(release), named)
    return Attested(str(release["name"]), str(release["version"]), subjects, proofs)


def _release(kind: str, predicate: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """(release with its disks, run) that a statement says to be of."""
    if kind == PROOF:
        return predicate["release"], predicate["invocationId"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    return definition["internalParameters"]["release"], details["metadata"]["invocationId"]


def _disks(release: Mapping[str, Any]) -> Mapping[str, str]:
    try:
        return {disk["name"]: disk["digest"]["sha256"] for disk in release["disks"]}
    except (KeyError, TypeError) as error:
        raise ProofError(f"the attestation does not name its disks: {error!r}") from error


def _agreed(disks: Mapping[str, str], named: Mapping[str, Mapping[str, _Named]]) -> _Named:
    for disk, digest in disks.items():
        missing = {PROVENANCE, PROOF} - named.get(disk, {}).keys()
        if missing:
            raise ProofError(
                f"the attestation of {disk} lacks {', '.join(sorted(missing))}",
                hint="the file was cut short: get it again, from where the release was made",
            )
        kinds = named[disk]
        if kinds[PROVENANCE] != kinds[PROOF]:
            raise ProofError(f"the statements about {disk} name different images")
        if kinds[PROOF][0].digest != digest:
            raise ProofError(f"the statements do not agree on the digest of {disk}")
    strange = named.keys() - disks.keys()
    if strange:
        raise ProofError(f"{min(strange)} is no disk of the release")
    return tuple(dict.fromkeys(s for kinds in named.values() for s in kinds[PROVENANCE]))
