"""The statements against the clouds: does each image exist, is it the very one, of that
disk, and open to exactly whom it says? Are there others that pass for it?"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.disks import raw
from publisher.errors import ProofError, ProviderError
from publisher.model import Disk, Image, Noun, Query
from publisher.proof.attest.subject import Subject, title
from publisher.provider import Provider, Source
from publisher.task import Task


@dataclass(frozen=True, slots=True)
class Line(Noun):
    """What was found of one image; `differs` is empty where all is as attested."""

    subject: str
    checked: str
    differs: str = ""


def verify(
    subjects: Sequence[Subject],
    connect: Callable[[Subject], Provider],
    task: Task,
    *,
    content: bool = False,
    scratch: Path | None = None,
    regions: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Line]:
    """One line for each image, in their order, then one for each that has the name and
    version of one of them and is none; never raises for what differs.

    `connect` gives the provider in which an image is to be found. `content`: also
    read each image back and compare its bytes; needs room in `scratch`. `regions` are,
    by provider, where to look for others besides the images' own.
    """
    images = [subject for subject in subjects if subject.provider]
    others: dict[tuple[str, str, str], Image] = {}
    for subject in images:
        task.check()
        task.phase(f"looking at {subject.name}")
        provider = connect(subject)
        try:
            found = _namesakes(subject, provider, task)
        except ProviderError as error:
            yield Line(subject.name, "", f"can't be asked about: {error}")
            continue
        others.update({(image.provider, *image.place): image for image in found})
        image = others.get(subject.place)
        if image is None:
            yield Line(subject.name, "", "it does not exist (any more)")
            continue
        differs = _compare(subject, image)
        checked = f"{'identity, ' if subject.uid else ''}stated digest, state, audience"
        if content and not differs:
            checked += ", content"
            differs = _read_back(subject, provider, scratch, task)
        yield Line(subject.name, checked, differs)
    for probe in _elsewhere(images, regions or {}):
        task.phase(f"looking for others in {probe.region}")
        try:
            found = _namesakes(probe, connect(probe), task)
        except ProviderError as error:
            yield Line(f"{probe.provider} in {probe.region}", "", f"can't be asked: {error}")
            continue
        others.update({(image.provider, *image.place): image for image in found})
    ours = {subject.place for subject in images}
    for place, image in others.items():
        if place not in ours:
            told = f"it is named {image.name} {image.version}, and no statement names it"
            yield Line(title(image), "", told)


def refuse(lines: Sequence[Line]) -> None:
    """Raise ProofError where something is not as attested."""
    wrong = [line for line in lines if line.differs]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ProofError(
            f"{wrong[0].subject}: {wrong[0].differs}{more}",
            hint="do not use these images; find out who changed them",
        )
    if not lines:
        raise ProofError("the attestation names no image in any cloud")


def _namesakes(subject: Subject, provider: Provider, task: Task) -> Sequence[Image]:
    """All of that name and version: another digest must be seen, so that is not asked for."""
    return provider.find(Query(name=subject.image, version=subject.version), task)


def _elsewhere(
    images: Sequence[Subject], regions: Mapping[str, Sequence[str]]
) -> Iterator[Subject]:
    """The images as if they were in further regions, each name and version once."""
    seen = {(s.provider, s.region, s.image, s.version) for s in images}
    for subject in images:
        for region in regions.get(subject.provider, ()):
            probe = replace(subject, region=region)
            key = (probe.provider, region, probe.image, probe.version)
            if key not in seen:
                seen.add(key)
                yield probe


def _compare(subject: Subject, image: Image) -> str:
    """What differs, in words."""
    if subject.uid and image.uid != subject.uid:
        return (
            f"it is another one under the same reference: {image.uid or 'unknown'}, "
            f"not {subject.uid}"
        )
    if image.digest != subject.digest:
        return f"its tags state the disk {image.digest[:12]}…, not {subject.digest[:12]}…"
    if image.state != "available":
        return f"it is {image.state}"
    if image.audience.kind != subject.audience.kind:
        return f"it is {image.audience.kind}, not {subject.audience.kind}"
    ours, theirs = set(subject.audience.accounts), set(image.audience.accounts)
    if ours != theirs:
        more, less = sorted(theirs - ours), sorted(ours - theirs)
        words = [f"open to {', '.join(more)} too"] if more else []
        words += [f"not open to {', '.join(less)}"] if less else []
        return f"it is {' and '.join(words)}"
    return ""


def _read_back(subject: Subject, provider: Provider, scratch: Path | None, task: Task) -> str:
    if not isinstance(provider, Source):
        return "its content can't be read back from this cloud"
    with tempfile.TemporaryDirectory(prefix="attest-", dir=scratch) as directory:
        task.phase(f"reading back {subject.name}")
        into = Path(directory, "disk.raw")
        try:
            digest = _digest(provider.download(subject.ref, into, task), subject.size, task)
        except ProviderError as error:
            return f"its content can't be read back: {error}"
    if digest != subject.digest:
        return f"its content has the digest {digest[:12]}…, not {subject.digest[:12]}…"
    return ""


def _digest(disk: Disk, size: int, task: Task) -> str:
    """Of the first `size` bytes; what a cloud added behind them must be zeros."""
    if disk.size <= size:
        return disk.sha256
    digest, left = hashlib.sha256(), size
    with raw.Reader(disk) as reader:
        for piece in reader.stream():
            task.check()
            digest.update(piece[:left])
            if not raw.is_zero(piece[left:]):
                return disk.sha256
            left = max(0, left - len(piece))
    return digest.hexdigest()
