"""Source: the disk behind a reference, our own image or any disk file there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from providers.files.api import NAME, Place
from providers.files.options import split
from providers.files.releases import File, Record, location, read_record
from publisher.disks import foreign, raw
from publisher.errors import ProviderError, VerifyError
from publisher.export import file_digest
from publisher.model import Disk, Spec
from publisher.task import Task

# Cheapest to bring and to read first.
_ORDER = ("qcow2", "vhdx", "vdi", "vhd", "vmdk", "ova", "raw", "vhd-fixed")
_HOLE = 64 * 1024


def describe(place: Place, image_ref: str) -> Spec:
    name = split(image_ref)[1]
    record = read_record(place, name)
    if record is not None:
        return Spec(
            record.name,
            record.version,
            record.arch,
            record.firmware,
            record.disk_size,
            record.description,
            dict(record.tags),
            record.digest,
        )
    if place.size(name) is None:
        raise ProviderError(f"files:{image_ref} is not there", provider=NAME)
    return Spec(name.partition(".")[0], "")


def download(place: Place, image_ref: str, into: Path, task: Task) -> Disk:
    name = split(image_ref)[1]
    record = read_record(place, name)
    into.parent.mkdir(parents=True, exist_ok=True)
    if record is None:
        with _at_hand(place, name, into, task) as path:
            foreign.convert(path, into, task)
        return raw.inspect(into, task.check)
    where = location(place, record)
    if where is None:
        raise ProviderError(f"the files of files:{image_ref} are gone", provider=NAME)
    file = best(record.files)
    with _at_hand(place, f"{where}/{file.name}", into, task) as path:
        task.phase(f"checking {file.name}")
        if file_digest(path, task) != file.sha256:
            if place.local is None:
                path.unlink()
            raise VerifyError(
                f"{file.name} is not what its record says",
                provider=NAME,
                hint="run the same command again: it is fetched anew",
            )
        if file.format == "raw" and place.local is None:
            os.replace(path, into)
        else:
            foreign.convert(path, into, task)
    return _checked(into, record, task)


def best(files: Sequence[File]) -> File:
    return min(files, key=lambda file: _ORDER.index(file.format))


def _checked(into: Path, record: Record, task: Task) -> Disk:
    disk = raw.inspect(into, task.check)
    if disk.sha256 != record.digest:
        into.unlink()
        raise VerifyError(f"{record.key} holds another disk than it says", provider=NAME)
    return disk


@contextmanager
def _at_hand(place: Place, path: str, into: Path, task: Task) -> Iterator[Path]:
    """The file itself in a directory, else a copy that goes on where it was cut off."""
    if place.local is not None:
        yield place.local / path
        return
    copy = into.with_name(f"{into.name}.{path.rpartition('/')[2]}.fetched")
    size = place.size(path)
    if size is None:
        raise ProviderError(f"{place.url}/{path} is not there", provider=NAME)
    task.phase(f"fetching {path.rpartition('/')[2]}")
    with copy.open("r+b" if copy.exists() else "w+b") as file:
        done = file.seek(0, os.SEEK_END)
        if done > size:
            done = 0
        file.truncate(done)
        for piece in place.stream(path, done):
            _write(file.fileno(), done, piece)
            done += len(piece)
            file.truncate(done)
            task.progress(done, size)
    yield copy
    with contextlib.suppress(FileNotFoundError):
        copy.unlink()


def _write(handle: int, offset: int, piece: bytes) -> None:
    """Write where there is something: runs of zeros stay holes."""
    for at in range(0, len(piece), _HOLE):
        part = piece[at : at + _HOLE]
        if not raw.is_zero(part):
            os.pwrite(handle, part, offset + at)
