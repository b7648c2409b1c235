"""The directory of one build: on the store's file system, locked while in use,
and swept away by the next build when its owner was killed."""

from __future__ import annotations

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
from publisher.vm import locks, process
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
        locks.sweep(self.directory.parent, "build-", self._remove)
        try:
            self._lock = locks.take(self.directory)
            self.directory.mkdir(mode=0o700)
        except OSError as error:
            raise HostError(f"cannot write {self.directory}: {error.strerror}") from error
        return self

    def _remove(self, directory: Path) -> None:
        locks.remove(directory)
        # files of other owners only the namespace may remove
        if directory.exists() and self.namespace is not None:
            argv = self.namespace.wrap(["rm", "-rf", "--one-file-system", str(directory)])
            child = process.spawn(argv)
            child.wait()

    def close(self) -> None:
        self._remove(self.directory)
        if self._lock >= 0:
            locks.drop(self.directory, self._lock)
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
