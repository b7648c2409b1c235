"""A disk file as a command is given it, in any format, opened for reading."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from publisher.disks import extents, foreign, raw
from publisher.errors import UsageError
from publisher.model import Arch, Disk, Firmware
from publisher.task import Task

if TYPE_CHECKING:
    from publisher.proof.inspect.inspection import Inspection

T = TypeVar("T")


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


def firmware_of(path: Path, task: Task) -> Firmware:
    """By what somebody else's disk, in any format, boots: its partitions and loaders
    tell. Both where nobody can tell: the boot then shows why it does not."""
    from publisher.proof.checks.boot import firmware

    return _told(path, task, firmware) or "bios+uefi"


def arch_of(path: Path, task: Task) -> Arch | None:
    """For which processor somebody else's disk is: its programs tell, or where they
    can't be read its loader. None where nobody can tell."""

    from publisher.proof.inspect.budget import Unreadable

    def arch(disk: Inspection) -> Arch | None:
        with contextlib.suppress(Unreadable):
            return disk.arch()
        loader = disk.loader()
        return loader.program.arch if loader else None

    return _told(path, task, arch)


def _told(path: Path, task: Task, ask: Callable[[Inspection], T | None]) -> T | None:
    """The answer of a disk, None where it can't be read."""
    from publisher.proof.inspect.budget import Budget, Unreadable
    from publisher.proof.inspect.inspection import Inspection
    from publisher.proof.inspect.opening import viewed

    budget = Budget(check=task.check)
    with contextlib.suppress(Unreadable), viewed(path, budget, task) as storage:
        return ask(Inspection(storage, budget))
    return None


def _unread(path: Path) -> Disk:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Disk(path, size, "", extents.merge(extents.of_file(file.fileno(), size)))
