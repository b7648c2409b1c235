"""A disk file of any format, opened for looking at."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from publisher.disks import foreign
from publisher.errors import UsageError
from publisher.fetch.packed import unpack
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.nbd import served
from publisher.proof.inspect.storage import RawFile, Storage
from publisher.task import Task


@contextlib.contextmanager
def opened(path: Path, scratch: Path, budget: Budget, task: Task) -> Iterator[Storage]:
    """The virtual bytes of a disk file. Raw files are read as they are, other formats
    through qemu-nbd; only what is compressed is unpacked first, under `scratch`.

    Raises UsageError for what is no file, and what `foreign.describe` raises.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lint-", dir=scratch) as directory:
        room = shutil.disk_usage(directory).free
        plain = unpack(path, Path(directory, "unpacked"), room, task)
        with viewed(plain, budget, task) as disk:
            yield disk


@contextlib.contextmanager
def viewed(path: Path, budget: Budget, task: Task) -> Iterator[Storage]:
    """`opened`, of a file that is not compressed."""
    if foreign.describe(path, task.check)["format"] != "raw":
        with served(path, budget, task) as disk:
            yield disk
        return
    with RawFile(path, budget) as file:
        yield file
