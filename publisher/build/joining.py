"""The frozen layers below a running machine, joined while it still runs its last step
and is sealed: only what it wrote since is left to be added when it has powered off."""

from __future__ import annotations

import threading
from pathlib import Path

from publisher.disks import raw
from publisher.errors import Cancelled, PublishError
from publisher.task import Task
from publisher.vm import process


class Joining:
    """Makes the raw file `into` from the layer `below` and all beneath it, in a thread.
    Whatever fails in it is no error: the layers can still be joined at the end."""

    def __init__(self, below: Path, into: Path, task: Task) -> None:
        self.below = below
        self.into = into
        self._task = task
        self._stopped = threading.Event()
        self._joined = threading.Event()
        self._whole = False
        self._thread = threading.Thread(target=self._join, name="joining", daemon=True)
        self._thread.start()

    def _check(self) -> None:
        self._task.check()
        if self._stopped.is_set():
            raise Cancelled()

    def _join(self) -> None:
        try:
            argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
            argv += [str(self.below), str(self.into)]
            if process.run(argv, self._task, check=self._check).status == 0:
                self._whole = True
                self._joined.set()
                raw.write_out(self.into, self._check)
        except (PublishError, OSError):
            pass
        finally:
            self._joined.set()

    def add(self, active: Path) -> bool:
        """Add what `active`, a layer over `below` that nobody needs any more, holds.
        False when `into` is of no use."""
        while not self._joined.wait(process.POLL):
            self._task.check()
        self._task.check()
        if not self._whole:
            return False
        over = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F"]
        if process.run([*over, "raw", "-b", str(self.into), str(active)], self._task).status:
            return False
        # the store makes the file last; -d: nothing is emptied for a later use
        argv = ["qemu-img", "commit", "-q", "-d", "-t", "unsafe", "-f", "qcow2", str(active)]
        added = process.run(argv, self._task).status == 0
        if not added:
            process.run([*over, "qcow2", "-b", self.below.name, str(active)], self._task)
        return added

    def close(self) -> None:
        """Stop, and wait until nothing writes to `into` any more."""
        self._stopped.set()
        self._thread.join()
