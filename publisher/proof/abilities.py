"""What the disk bears of what a cloud can be told of an image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from publisher.model import Arch, Disk, Spec
from publisher.proof.checks import boot, ssh
from publisher.proof.guest import Guest
from publisher.proof.inspect.budget import READER_FAULTS, Budget, Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.opening import viewed
from publisher.proof.inspect.storage import RawFile
from publisher.task import Task


def boots_of(path: Path, task: Task) -> Spec:
    """For which processors and by what somebody else's disk, in any format, boots: its
    partitions, loaders and programs tell. Where nobody can tell, the defaults stay."""
    spec = Spec("", "")
    budget = Budget(check=task.check)
    with contextlib.suppress(Unreadable, *READER_FAULTS), viewed(path, budget, task) as storage:
        disk = Inspection(storage, budget)
        spec = replace(spec, firmware=boot.firmware(disk) or spec.firmware)
        spec = replace(spec, arch=_arch(disk) or spec.arch)
    return spec


def _arch(disk: Inspection) -> Arch | None:
    """Its programs tell, or where they can't be read its loader."""
    with contextlib.suppress(Unreadable):
        if found := disk.arch():
            return found
    loader = disk.loader()
    return loader.program.arch if loader else None


@contextlib.contextmanager
def _opened(disk: Disk, task: Task) -> Iterator[Inspection]:
    budget = Budget(check=task.check)
    raw = disk.format == "raw"
    with RawFile(disk.path, budget) if raw else viewed(disk.path, budget, task) as storage:
        yield Inspection(storage, budget)


def looked_at(spec: Spec, guest: Guest, disk: Disk, task: Task) -> Spec:
    """The spec with the abilities of the disk. Where they can't be read, a note says
    so, and it stays as it was: the options' defaults hold."""
    try:
        with _opened(disk, task) as opened:
            found = guest.abilities(opened)
    except Unreadable as error:
        fault = error.message
    except READER_FAULTS as error:
        fault = f"what was read makes no sense ({type(error).__name__}: {error})"
    else:
        return replace(spec, abilities=tuple(found))
    text = f"what the disk supports can't be read ({fault}): {guest.title}'s defaults are taken"
    task.note(text, "warning")
    return spec


def takes_any_host_key(disk: Disk, task: Task) -> bool:
    """Whether its SSH server takes host keys of all kinds, as far as that can be read."""
    with contextlib.suppress(Unreadable, *READER_FAULTS), _opened(disk, task) as opened:
        return not {"hostkey", "hostkeyalgorithms"} & set(ssh.settings(opened.tree()))
    return False
