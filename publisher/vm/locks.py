"""Directories that belong to a running program: a lock file beside each is held while
it is in use, so that the next program can tell what a killed one has left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def lock_file(directory: Path) -> Path:
    return directory.with_name(directory.name + ".lock")


def take(directory: Path) -> int:
    """Hold the lock of a directory that is yet to be made, which no sweep then removes;
    returns its handle, which `drop` is given."""
    path = lock_file(directory)
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # a sweep may have removed it before it was locked
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def drop(directory: Path, handle: int) -> None:
    """Give up the lock. Of a directory that is there still, the file stays for a sweep."""
    if not directory.exists():
        lock_file(directory).unlink(missing_ok=True)
    os.close(handle)


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def sweep(parent: Path, prefix: str, remove: Callable[[Path], None] = remove) -> None:
    """Remove the directories of such a name whose owners live no more."""
    for lock in parent.glob(f"{prefix}*.lock"):
        with contextlib.suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(lock.with_suffix(""))
                # what could not be removed yet waits for a sweep that can
                if not lock.with_suffix("").exists():
                    lock.unlink()
            finally:
                os.close(handle)
