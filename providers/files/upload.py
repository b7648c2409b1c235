"""The disk in every format, brought into the place where it stays private."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from providers.files.api import NAME, Place
from providers.files.options import FilesOptions
from providers.files.releases import File, Record, private_home, read_record
from publisher.errors import ConflictError
from publisher.export import SUFFIXES, Format, export, file_digest
from publisher.model import Disk, Spec, Upload
from publisher.task import Task


def upload(place: Place, options: FilesOptions, disk: Disk, spec: Spec, task: Task) -> Upload:
    key = options.fill(spec)
    record = read_record(place, key)
    if record is not None:
        refuse_other(record, disk.sha256, place)
        return _uploaded(place, record.home, disk, record.files)
    home = private_home(key, disk.sha256)
    files = [_bring(place, home, key, to, disk, spec, task) for to in options.formats]
    return _uploaded(place, home, disk, files)


def _uploaded(place: Place, home: str, disk: Disk, files: Sequence[File]) -> Upload:
    details = {"files": json.dumps([file.to_json() for file in files])}
    return Upload(NAME, place.url, home, disk.sha256, details)


def refuse_other(record: Record, digest: str, place: Place) -> None:
    """Raises ConflictError when a record is of another disk."""
    if record.digest != digest:
        raise ConflictError(
            f"{place.url}/{record.key} holds another disk ({record.digest[:12]})",
            provider=NAME,
            key="name",
            hint="raise the version, or delete the image there first",
        )


def _bring(
    place: Place, home: str, key: str, to: Format, disk: Disk, spec: Spec, task: Task
) -> File:
    """One file; skipped when an earlier call brought it and its content is right."""
    name = f"{key}{SUFFIXES[to]}"
    path = f"{home}/{name}"
    noted = task.memory.get(path)
    if noted and place.size(path) == noted["size"]:
        return File.from_json(noted)
    with _exported(place, path, to, disk, spec, task) as (local, digest):
        size = local.stat().st_size
        there = place.local is not None or (
            place.size(path) == size and place.digest(path) == digest
        )
        if not there:
            task.phase(f"uploading {name}")
            place.put(local, path)
    file = File(name, to, size, digest)
    task.memory.set(path, file.to_json())
    return file


@contextmanager
def _exported(
    place: Place, path: str, to: Format, disk: Disk, spec: Spec, task: Task
) -> Iterator[tuple[Path, str]]:
    """The file and its SHA-256: in a directory where it stays, else beside the
    disk until it is uploaded, so that the next run need not convert again."""
    if to == "raw" and place.local is None:
        yield disk.path, disk.sha256
        return
    name = path.rpartition("/")[2]
    if place.local is not None:
        place.classified(lambda: place.prepare(path))
        into = place.local / path
    else:
        mark = hashlib.sha256(f"{path}/{spec.firmware}/{spec.arch}".encode()).hexdigest()[:16]
        into = disk.path.parent / f".{mark}.{to}.export"
    if not into.exists():
        export(
            disk,
            to,
            into,
            task,
            name=name.removesuffix(SUFFIXES[to]),
            version=spec.version,
            arch=spec.arch,
            firmware=spec.firmware,
        )
    yield into, file_digest(into, task)
    if place.local is None:
        into.unlink(missing_ok=True)


def files_of(upload: Upload) -> list[File]:
    return [File.from_json(file) for file in json.loads(upload.details["files"])]
