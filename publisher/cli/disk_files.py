"""A disk file as a command is given it, in any format, opened for reading."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from publisher.disks import extents, foreign, raw
from publisher.errors import UsageError
from publisher.model import Disk
from publisher.task import Task


@contextlib.contextmanager
def opened(path: Path, state: Path, task: Task, *, digest: bool = False) -> Iterator[Disk]:
    """The disk in a file. A raw file is read where it is; of another format a raw
    copy is made in the state directory and removed. Without `digest` its sha256 stays
    empty, and a raw file is not read before it must be."""
    from publisher.fetch.packed import unpack

    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
    scratch = state / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="disk-", dir=scratch) as directory:
        room = shutil.disk_usage(directory).free
        plain = unpack(path, Path(directory, "unpacked"), room, task)
        if plain != path or foreign.describe(plain, task.check)["format"] != "raw":
            plain = foreign.convert(plain, Path(directory, "disk.raw"), task)
        yield raw.inspect(plain, task.check) if digest else _unread(plain)


def _unread(path: Path) -> Disk:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Disk(path, size, "", extents.merge(extents.of_file(file.fileno(), size)))
