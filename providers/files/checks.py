"""What is checked before a build: names and sizes offline, the place itself online."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from providers.files.api import Place
from providers.files.options import FilesOptions, name_fault
from providers.files.releases import Record, read_record
from providers.files.signing import Signer
from publisher.errors import CredentialsError, PipelineError, UnreachableError
from publisher.export import Format
from publisher.model import GIB, SECTOR, Finding, Severity, Spec

SIZES: dict[Format, int] = {"vhd": 2040 * GIB, "vhd-fixed": 2040 * GIB}
"""The largest disk that a format holds, where that is less than 62 TiB."""
SIZE_MAX = 62 * 1024 * GIB
"""Of a VMDK; the other formats hold more."""


def validate(options: FilesOptions, spec: Spec) -> Iterator[Finding]:
    try:
        name = options.fill(spec)
    except PipelineError as error:
        yield Finding("files.name", Severity.ERROR, str(error), error.hint, "name")
        return
    if fault := name_fault(name):
        yield Finding("files.name", Severity.ERROR, fault, "change the template", "name")
    if spec.size % SECTOR:
        yield Finding(
            "files.size", Severity.ERROR, f"{spec.size} bytes are no whole sectors", "pad the disk"
        )
    for number, to in enumerate(options.formats):
        if spec.size > SIZES.get(to, SIZE_MAX):
            yield Finding(
                "files.size",
                Severity.ERROR,
                f"{to} holds at most {SIZES.get(to, SIZE_MAX) // GIB} GiB",
                "leave the format out",
                f"formats[{number}]",
            )


def check(
    place: Place, options: FilesOptions, signer: Signer | None, spec: Spec
) -> Sequence[Finding]:
    """Raises CredentialsError or UnreachableError when the place can't be written."""
    task = place.task
    task.phase(f"writing a test file to {place.url}")
    _probe(place, f".publish/check-{spec.run or 'now'}")
    place.sweep()
    findings: list[Finding] = []
    if any(to not in ("raw", "vhd-fixed") for to in options.formats) and not shutil.which(
        "qemu-img"
    ):
        findings.append(
            Finding(
                "files.tools",
                Severity.ERROR,
                "qemu-img is not installed",
                "publish doctor --fix (package qemu-utils)",
                "formats",
            )
        )
    if signer is not None:
        task.phase("looking for the signing key")
        try:
            signer.fingerprint(task)
        except CredentialsError as error:
            findings.append(
                Finding("files.key", Severity.ERROR, error.message, error.hint, "signing_key")
            )
    record = read_record(place, options.fill(spec))
    if record is not None:
        findings += _taken(record, spec)
    if place.local is not None and spec.size:
        findings += _room(place, spec, len(options.formats))
    return findings


def _probe(place: Place, path: str) -> None:
    """Write and remove a file, with a few quick tries where nobody answers."""
    for _ in range(2):
        try:
            place.write_once(path, b"check\n")
            break
        except UnreachableError:
            place.task.sleep(0.2)
    else:
        place.write(path, b"check\n")
    place.remove(path)


def _taken(record: Record, spec: Spec) -> Iterator[Finding]:
    if not spec.digest or record.digest == spec.digest:
        return
    yield Finding(
        "files.name.conflict",
        Severity.ERROR,
        f"{record.key} holds another disk ({record.digest[:12]})",
        "raise the version, or delete the image there first",
        "name",
    )


def _room(place: Place, spec: Spec, count: int) -> Iterator[Finding]:
    """A guess: the data of a disk is seldom more than half of its size."""
    root = place.local
    while root is not None and not root.exists():
        root = root.parent if root != root.parent else None
    if root is None:
        return
    free = shutil.disk_usage(root).free
    if free < spec.size * count // 2:
        yield Finding(
            "files.room",
            Severity.WARNING,
            f"{root} has {free // GIB} GiB free for {count} files of up to {spec.size // GIB} GiB",
            "free some space there",
            "url",
        )
