"""The directory of one build: on the store's file system, locked while in use,
and swept away by the next build when its owner was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path
from typing import Self

from publisher.build.namespace import Namespace
from publisher.closing import Closing
from publisher.disks.store import Store
from publisher.errors import HostError
from publisher.model import GIB
from publisher.task import Task
from publisher.vm import process
from publisher.vm.machine import full


class Workspace(Closing):
    """A context; leaving it removes the directory."""

    def __init__(self, store: Store, namespace: Namespace | None, task: Task) -> None:
        self.store = store
        self.namespace = namespace
        self.task = task
        self.directory = store.scratch(f"build-{secrets.token_hex(4)}")
        self._lock = -1

    def __enter__(self) -> Self:
        self._sweep()
        try:
            self._take()
            self.directory.mkdir(mode=0o700)
        except OSError as error:
            raise HostError(f"cannot write {self.directory}: {error.strerror}") from error
        return self

    def _take(self) -> None:
        """Hold the lock file, before there is a directory that a sweep could remove."""
        path = self._lock_file(self.directory)
        while self._lock < 0:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            # another build's sweep may have removed it before it was locked
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    self._lock = handle
                    return
            os.close(handle)

    @staticmethod
    def _lock_file(directory: Path) -> Path:
        return directory.with_name(directory.name + ".lock")

    def _sweep(self) -> None:
        for lock in self.directory.parent.glob("build-*.lock"):
            with contextlib.suppress(OSError):
                handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._remove(lock.with_suffix(""))
                    # what only a namespace may remove waits for a build that has one
                    if not lock.with_suffix("").exists():
                        lock.unlink()
                finally:
                    os.close(handle)

    def _remove(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        # files of other owners only the namespace may remove
        if directory.exists() and self.namespace is not None:
            argv = self.namespace.wrap(["rm", "-rf", "--one-file-system", str(directory)])
            child = process.spawn(argv)
            child.wait()

    def close(self) -> None:
        self._remove(self.directory)
        self._lock_file(self.directory).unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def need(self, size: int) -> None:
        """Raise HostError when fewer than `size` bytes are free here."""
        free = shutil.disk_usage(self.directory).free
        if free < size:
            error = full(self.directory)
            error.args = (
                f"the build needs {size / GIB:.1f} GiB on the file system of "
                f"{self.directory.parent}, which has {free / GIB:.1f} GiB left",
            )
            error.message = error.args[0]
            raise error
