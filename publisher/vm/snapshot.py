"""The whole machine, memory and disk, into files and back.

The first drive's layer is frozen beneath a new overlay, then the machine's
memory is written as a migration stream: together they are the machine at one
moment, and neither is written again. https://www.qemu.org/docs/master/devel/migration/
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from publisher.errors import BuildError, HostError
from publisher.task import Task
from publisher.vm import process
from publisher.vm.machine import Machine

PATIENCE = 600.0
"""Seconds that writing or reading a machine's memory may take."""
_POLL = 0.02
_NAMED = (8, 2)
"""The first version of QEMU that writes a migration stream to a file by its name. Older
ones take an open file instead, which newer ones call deprecated."""
_UNBOUNDED = 1 << 40


def make_overlay(path: Path, below: Path, kind: str, task: Task) -> Path:
    """An empty qcow2 layer over `below`, which lies in the same directory: the
    reference is relative, so that the directory may be moved."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", below.name, str(path)]
    done = process.run(argv, task)
    if done.status:
        raise HostError(f"qemu-img failed: {done.text}")
    return path


def freeze(
    machine: Machine,
    overlay: Path,
    memory: Path,
    task: Task,
    *,
    frozen: Callable[[], None] = lambda: None,
) -> None:
    """Write the machine as it is now and let it go on, from now on in `overlay`.

    `overlay` is an empty layer over the first drive's current one; `frozen` is called
    as soon as nothing is written to that one any more. Raises BuildError when the memory
    could not be written: the machine runs on then.
    After a HostError it is of no use, for it stands still, or nobody knows which
    layer it writes to.
    """
    _must(machine, "stop")
    _must(
        machine,
        "blockdev-snapshot-sync",
        device="disk0",
        **{"snapshot-file": str(overlay), "format": "qcow2", "mode": "existing"},
    )
    try:
        frozen()
        machine.execute("migrate-set-parameters", **{"max-bandwidth": _UNBOUNDED})
        with _stream(machine, memory, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as uri:
            machine.execute("migrate", uri=uri)
            _migrated(machine, task, "written")
    except (BuildError, OSError):
        with contextlib.suppress(BuildError, OSError):
            machine.execute("migrate_cancel")
        raise
    finally:
        _must(machine, "cont")


def _must(machine: Machine, command: str, **arguments: object) -> None:
    try:
        machine.execute(command, **arguments)
    except (BuildError, OSError) as error:
        machine.check()
        raise HostError(
            f"the machine could not be frozen: {error}",
            hint="run the same command again: it continues from the last checkpoint",
        ) from error


def thaw(machine: Machine, memory: Path, task: Task) -> None:
    """Give a machine that was started with `incoming` the memory of another one,
    and let it run. Raises BuildError when it does not fit."""
    with _stream(machine, memory, os.O_RDONLY) as uri:
        machine.execute("migrate-incoming", uri=uri)
        _migrated(machine, task, "read")
    machine.execute("cont")


@contextlib.contextmanager
def _stream(machine: Machine, file: Path, flags: int) -> Iterator[str]:
    """QEMU's name for a file with a machine's memory."""
    handle = os.open(file, flags | os.O_CLOEXEC, 0o600)
    try:
        if machine.version >= _NAMED:
            yield f"file:{file}"
        else:
            machine.give("memory", handle)
            yield "fd:memory"
    finally:
        os.close(handle)


def _migrated(machine: Machine, task: Task, what: str) -> None:
    deadline = task.clock.monotonic() + PATIENCE
    while True:
        machine.check()
        state = cast("dict[str, Any]", machine.execute("query-migrate"))
        status = state.get("status", "none")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            why = state.get("error-desc", "no reason given")
            raise BuildError(f"the machine's memory could not be {what}: {why}")
        if task.clock.monotonic() > deadline:
            raise BuildError(f"the machine's memory was not {what} within {PATIENCE:.0f} s")
        task.sleep(_POLL)
