"""The machines that run now, in all processes of this state directory.

STATE/labs/run/NAME/    machine.json, the control socket, and `lock`,
                        which the machine's process holds
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import UsageError
from publisher.lab.machine import DESCRIPTION
from publisher.lab.snapshots import check_name
from publisher.model import Noun


@dataclass(frozen=True, slots=True)
class Running(Noun):
    """`directory` holds the keys and the control socket of ssh; `port` is on loopback."""

    name: str
    image: str
    user: str
    port: int
    directory: str
    pid: int


def _place(labs: Path) -> Path:
    return labs / "run"


def _lock(directory: Path) -> int | None:
    """The lock of a machine's directory, None when its process lives."""
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def claim(labs: Path, name: str) -> Iterator[Path]:
    """A machine's own directory, which is gone afterwards. Raises UsageError when a
    machine of that name runs."""
    directory = _place(labs) / check_name(name, "machine")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(directory)
    if lock is None:
        raise UsageError(
            f"there is a machine {name!r} already", hint="choose another name with --name"
        )
    try:
        for leaving in directory.iterdir():  # of a process that was killed
            if leaving.name != "lock":
                shutil.rmtree(leaving) if leaving.is_dir() else leaving.unlink()
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def free_name(labs: Path, wanted: str) -> str:
    """`wanted`, or with the first number that is not taken."""
    taken = {path.name for path in _place(labs).glob("*") if not _idle(path)}
    number = 2
    name = wanted
    while name in taken:
        name = f"{wanted}-{number}"
        number += 1
    return name


def _idle(directory: Path) -> bool:
    lock = _lock(directory)
    if lock is None:
        return False
    os.close(lock)
    return True


def running(labs: Path) -> Sequence[Running]:
    """The machines that have come up, by name."""
    found = []
    for directory in sorted(_place(labs).glob("*")):
        if (lock := _lock(directory)) is not None:  # of a process that was killed
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
            continue
        with contextlib.suppress(OSError, ValueError):
            found.append(Running.from_json(json.loads((directory / DESCRIPTION).read_text())))
    return found


def find(labs: Path, name: str) -> Running:
    """Raises UsageError when it does not run."""
    known = running(labs)
    for machine in known:
        if machine.name == name:
            return machine
    names = ", ".join(machine.name for machine in known)
    raise UsageError(
        f"there is no machine {name!r}",
        hint=f"running are: {names}" if names else "`publish lab IMAGE` starts one",
    )


def place(labs: Path, machine: Running) -> Path:
    return _place(labs) / machine.name
