"""The search of a disk, told as findings that never show a secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from publisher.errors import ProofError
from publisher.model import Disk, Finding, Severity
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.storage import RawFile
from publisher.proof.secrets.engine import OWN, Engine, Hit, hits
from publisher.proof.secrets.known import Known
from publisher.proof.secrets.leftovers import leftovers
from publisher.proof.secrets.packed import packed_hits
from publisher.proof.secrets.places import UNREADABLE, Place, Volumes
from publisher.proof.secrets.published import Packages
from publisher.proof.secrets.rules import AUTHORIZED
from publisher.task import Task

_PLACES_SHOWN = 5
_ERASED = (
    "erase what is free: fstrim on the mounted file system (a build's sealing does so), "
    "or zerofree; "
)
_REMOVE = "sudo rm -rf {path} in the last build step; "


def search(disk: Disk, known: Known, task: Task) -> Sequence[Finding]:
    """All secrets in the bytes of the disk, free blocks and slack included: errors.

    Notes are what is public in any case (test keys in unchanged files of Debian's
    packages). Of what is compressed on the disk only files are opened that the file
    system itself compresses; what is encrypted is not.
    """
    task.phase("looking for secrets")
    engine = Engine(known)
    found = hits(disk, engine, task)
    budget = Budget(check=task.check)
    storage = RawFile(disk.path, budget, disk.size)
    try:
        findings = _tell(found, storage, engine, budget, task)
    finally:
        storage.close()
    for title in engine.overrun:
        evidence = f"the disk holds too much that looks like: {title}; not all was examined"
        findings.append(Finding("secrets.unexamined", Severity.WARNING, evidence))
    for label in known.unsearchable:
        evidence = f"{label} is too short to be looked for"
        findings.append(Finding("secrets.too-short", Severity.NOTE, evidence))
    return findings


def refuse(findings: Sequence[Finding], *, public: bool) -> None:
    """Raise ProofError where these findings forbid a release to this audience: to the
    public any secret does; a private one is only warned of."""
    secrets = [finding for finding in findings if finding.severity is Severity.ERROR]
    if public and secrets:
        more = f" (and {len(secrets) - 1} more)" if len(secrets) > 1 else ""
        raise ProofError(
            f"a public image must hold no secret: {secrets[0].evidence}{more}",
            hint=secrets[0].fix,
        )


def _tell(
    found: Sequence[Hit], storage: RawFile, engine: Engine, budget: Budget, task: Task
) -> list[Finding]:
    try:
        volumes = Volumes(storage, budget)
        if found:
            task.phase("finding the files of what was found")
        places = dict(volumes.locate([hit.offset for hit in found]))
    except UNREADABLE as error:
        places = {h.offset: Place(f"byte {h.offset} of the disk ({error})") for h in found}
        return [*_findings(found, places, {})]
    packages = {id(volume): Packages(tree) for volume, tree in volumes.trees()}
    owners = _owners(found, places, packages)
    told = list(_left(volumes))
    packed: list[Hit] = []
    # the last, as it may use up what the budget still allows
    try:
        for hit, place in packed_hits(volumes, engine):
            # a place of its own, behind all bytes of the disk
            offset = storage.size + len(packed)
            packed.append(replace(hit, offset=offset))
            places[offset] = place
    except UNREADABLE as error:
        evidence = f"files that the file system compresses were not all read: {error}"
        told.append(Finding("secrets.unexamined", Severity.WARNING, evidence))
    owners = _owners(packed, places, packages) | owners
    return [*_findings([*found, *packed], places, owners), *told]


def _left(volumes: Volumes) -> Iterator[Finding]:
    for volume, tree in volumes.trees():
        try:
            for rule, title, inner in leftovers(tree):
                path = volumes.directory(volume) + inner
                where = f"{path} on {volume.title}" if volume.kind == "vfat" else path
                fix = _REMOVE.format(path=shlex.quote(path)).rstrip("; ")
                yield Finding(
                    f"secrets.{rule}", Severity.ERROR, f"{title} in {where}", fix, path=path
                )
        except UNREADABLE as error:
            evidence = f"homes on {volume.title} can't be read: {error}"
            yield Finding("secrets.unexamined", Severity.WARNING, evidence)


def _owners(
    found: Sequence[Hit], places: Mapping[int, Place], packages: Mapping[int, Packages]
) -> dict[bytes, str]:
    """The package in which a value is published, by the value's digest: the same
    value elsewhere (compiled, copied, erased) is no secret either."""
    owners: dict[bytes, str] = {}
    known: dict[tuple[int, int], str] = {}
    for hit in found:
        place = places[hit.offset]
        if hit.rule == OWN or place.slack or place.node is None or place.volume is None:
            continue
        files = place.volume.files
        assert files is not None
        key = (id(place.volume), place.node.number)
        if key not in known:
            known[key] = packages[id(place.volume)].owner(place.inner, files, place.node)
        if known[key]:
            owners.setdefault(hit.value, known[key])
    return owners


def _counts(hit: Hit, place: Place) -> bool:
    """A public key is no secret: it matters where it lets somebody in, and where an
    erased file may have been of that kind."""
    return hit.rule != AUTHORIZED.id or not place.path or _lets_in(hit, place)


def _lets_in(hit: Hit, place: Place) -> bool:
    return hit.rule == AUTHORIZED.id and "authorized_keys" in place.path


def _findings(
    found: Sequence[Hit], places: Mapping[int, Place], owners: Mapping[bytes, str]
) -> Iterator[Finding]:
    """One for each kind and file, or for each kind among what lies in no file."""
    secrets: dict[tuple[str, str, str], list[Hit]] = {}
    public: dict[str, set[str]] = {}
    for hit in found:
        place = places[hit.offset]
        # a public test key that lets somebody in is as bad as any other
        certain = hit.rule == OWN or _lets_in(hit, place)
        owner = "" if certain else owners.get(hit.value, "")
        if owner:
            if hit.rule != AUTHORIZED.id:
                public.setdefault(owner, set()).add(place.text)
        elif _counts(hit, place):
            secrets.setdefault((hit.rule, hit.title, place.path), []).append(hit)
    for (rule, title, path), some in secrets.items():
        first = some[0]
        where = [places[hit.offset].text for hit in some[:_PLACES_SHOWN]]
        more = f" and {len(some) - _PLACES_SHOWN} more" if len(some) > _PLACES_SHOWN else ""
        times = f" ({len(some)} of them)" if len(some) > 1 else ""
        start = f', begins with "{first.shown}"' if first.shown else ""
        inside = places[first.offset].inside
        at = first.offset if inside is None else f"{inside} of the file, compressed"
        evidence = (
            f"{title}{times} in {'; '.join(dict.fromkeys(where))}{more}"
            f" ({first.length} bytes at {at}{start})"
        )
        how = (
            _REMOVE.format(path=shlex.quote(path))
            if path and not places[first.offset].slack
            else _ERASED
        )
        yield Finding(f"secrets.{rule}", Severity.ERROR, evidence, how + first.fix, path=path)
    for package, texts in sorted(public.items()):
        shown = "; ".join(sorted(texts)[:_PLACES_SHOWN])
        evidence = f"published with the Debian package {package}, so no secret: {shown}"
        yield Finding("secrets.published", Severity.NOTE, evidence)
