"""The search of a disk, told as findings that never show a secret."""

from __future__ import annotations

import shlex
from collections import Counter
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
from publisher.proof.secrets.published import Packages, published_in
from publisher.proof.secrets.rules import AUTHORIZED
from publisher.proof.secrets.unexamined import ACCEPT, unexamined, unread
from publisher.task import Task

_PLACES_SHOWN = 5
_ERASED = (
    "erase what is free: fstrim on the mounted file system (a build's sealing does so), "
    "or zerofree; "
)
_REMOVE = "sudo rm -rf {path} in the last build step; "


def search(disk: Disk, known: Known, task: Task) -> Sequence[Finding]:
    """All secrets in the bytes of the disk, free blocks and slack included: errors.

    Notes are what is public in any case (test keys that Debian's packages bring). Of what
    is compressed on the disk only files are opened that the file system itself compresses;
    what is encrypted is not.
    """
    task.phase("looking for secrets")
    engine = Engine(known)
    found = hits(disk, engine, task)
    budget = Budget(check=task.check)
    storage = RawFile(disk.path, budget, disk.size)
    try:
        findings = _tell(disk, found, storage, engine, budget, task)
    finally:
        storage.close()
    for title in engine.overrun:
        evidence = f"the disk holds too much that looks like: {title}; not all was examined"
        findings.append(unexamined(evidence))
    for label, why in known.unsearchable.items():
        fix = f"make it longer, and hand it over again; or accept that{ACCEPT}".format("too-short")
        evidence = f"{label} was not looked for: it {why}"
        findings.append(Finding("secrets.too-short", Severity.WARNING, evidence, fix))
    return findings


def refuse(findings: Sequence[Finding], *, public: bool) -> None:
    """Raise ProofError where these findings forbid a release to this audience: to the
    public any secret does, and all that was not searched; a private one is only warned of."""
    secrets = [finding for finding in findings if finding.severity is Severity.ERROR]
    missed = [finding for finding in findings if finding.severity is Severity.WARNING]
    if public and (secrets or missed):
        first, *others = secrets or missed
        rule = "hold no secret" if secrets else "be searched as a whole"
        more = f" (and {len(others)} more)" if others else ""
        raise ProofError(
            f"a public image must {rule}: {first.evidence}{more}",
            hint=first.fix,
        )


def _tell(
    disk: Disk,
    found: Sequence[Hit],
    storage: RawFile,
    engine: Engine,
    budget: Budget,
    task: Task,
) -> list[Finding]:
    public, left = _split(found)
    try:
        volumes = Volumes(storage, budget)
        if left:
            task.phase("finding the files of what was found")
        places = dict(volumes.locate([hit.offset for hit in left]))
    except UNREADABLE as error:
        places = {h.offset: Place(f"byte {h.offset} of the disk ({error})") for h in left}
        public += [hit for hit in left if _harmless(hit, places[hit.offset])]
        missed = unexamined(f"no file of the disk was looked for by its name: {error}")
        return [*_findings(left, places, {}), *_public(public), missed]
    packages = {id(volume): Packages(tree) for volume, tree in volumes.trees()}
    told = [*_left(volumes), *unread(volumes.all, disk.extents)]
    packed: list[Hit] = []
    # the last, as it may use up what the budget still allows
    try:
        for hit, place in packed_hits(volumes, engine):
            # a place of its own, behind all bytes of the disk
            offset = storage.size + len(packed)
            packed.append(replace(hit, offset=offset))
            places[offset] = place
    except UNREADABLE as error:
        told.append(unexamined(f"files that the file system compresses were not all read: {error}"))
    more, packed = _split(packed)
    left += packed
    public += more + [h for h in left if _harmless(h, places[h.offset])]
    return [*_findings(left, places, packages), *_public(public), *told]


def _split(found: Sequence[Hit]) -> tuple[list[Hit], list[Hit]]:
    """Those that Debian publishes, and the rest, whose files are to be found. What may let
    somebody in is of the rest: the file decides."""
    public = [h for h in found if h.rule != OWN and not h.admits and published_in(h.value)]
    some = set(public)
    return public, [hit for hit in found if hit not in some]


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
            yield unexamined(f"not all homes on {volume.title} can be read: {error}")


def _counts(hit: Hit, place: Place) -> bool:
    """A public key is no secret: it matters where it lets somebody in, and where an
    erased file may have been of that kind. Of what Debian publishes, only the former."""
    if not hit.admits or hit.admits in place.path:
        return True
    return not published_in(hit.value) and (hit.rule != AUTHORIZED.id or not place.path)


def _harmless(hit: Hit, place: Place) -> bool:
    """What would be a secret if Debian did not publish it."""
    return hit.rule != AUTHORIZED.id and not _counts(hit, place)


def _installed_by(place: Place, packages: Mapping[int, Packages]) -> str:
    if place.slack or place.node is None or place.volume is None:
        return ""
    files = place.volume.files
    assert files is not None
    return packages[id(place.volume)].owner(place.inner, files, place.node)


def _findings(
    found: Sequence[Hit], places: Mapping[int, Place], packages: Mapping[int, Packages]
) -> Iterator[Finding]:
    """One for each kind and file, or for each kind among what lies in no file."""
    secrets: dict[tuple[str, str, str], list[Hit]] = {}
    for hit in found:
        place = places[hit.offset]
        if _counts(hit, place):
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
        fix = first.fix
        package = _installed_by(places[first.offset], packages)
        if package:
            evidence += f"; installed by package {package}"
            fix += (
                f"; if everybody can have {package}, let it pass: in [secrets], ignore = "
                f'[{{ rule = "secrets.{rule}", path = "{path}", reason = "…" }}]'
            )
        how = (
            _REMOVE.format(path=shlex.quote(path))
            if path and not places[first.offset].slack
            else _ERASED
        )
        yield Finding(f"secrets.{rule}", Severity.ERROR, evidence, how + fix, path=path)


def _public(found: Sequence[Hit]) -> Iterator[Finding]:
    """One note for each of Debian's packages. Nobody asks for the files: so they are not
    looked for, which takes longer than the search."""
    for package, count in sorted(Counter(published_in(hit.value) for hit in found).items()):
        titles = ", ".join(sorted({h.title for h in found if published_in(h.value) == package}))
        times = f" ({count} of them)" if count > 1 else ""
        evidence = f"{titles}{times}: published with Debian's package {package}, so no secret"
        yield Finding("secrets.published", Severity.NOTE, evidence)
