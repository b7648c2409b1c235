"""The frozen layers below a running machine, joined while it runs its steps and is sealed:
only what it wrote since the last one is left to be added when it has powered off."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from publisher.disks import holes, raw
from publisher.errors import Cancelled, HostError, PublishError
from publisher.model import MIB, Extent
from publisher.task import Task
from publisher.vm import process

BEQUEST = 0.5
"""Seconds that the failure of a step is told later, at most, for the next build's sake."""


class Joining:
    """Makes the raw file `into` from the layer `below` and all beneath it, and then from the
    layers that are handed over, in a thread. None of them is written to. Whatever fails in
    it is no error: the layers can still be joined at the end.

    `ready` is where an earlier one may have left the layer `below` joined with all beneath it:
    that file becomes `into` then."""

    def __init__(self, below: Path, into: Path, task: Task, ready: Path | None = None) -> None:
        self.into = into
        self._task = task
        self._coming: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._whole = False
        self._last = below
        self._thread = threading.Thread(target=self._join, args=(below, ready), name="joining")
        self._thread.daemon = True
        self._thread.start()

    def _check(self) -> None:
        self._task.check()
        if self._stopped.is_set():
            raise Cancelled()

    def _join(self, below: Path, ready: Path | None) -> None:
        try:
            if not self._take(ready):
                argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
                argv += [str(below), str(self.into)]
                if process.run(argv, self._task, check=self._check).status:
                    return
            raw.write_out(self.into, self._check)
            while (layer := self._coming.get()) is not None:
                _lay(layer, self.into, self._task, self._check)
                self._last = layer
            self._whole = True
        except (PublishError, OSError, ValueError, KeyError):
            pass
        finally:
            self._ended.set()

    def _take(self, ready: Path | None) -> bool:
        if ready is not None:
            with contextlib.suppress(OSError):
                os.rename(ready, self.into)
                return True
        return False

    def follow(self, layer: Path) -> None:
        """Go on with the next layer above, which is frozen by now."""
        self._coming.put(layer)

    def add(self, active: Path) -> bool:
        """Go on with the last layer, and wait for the end. False when `into` is of no use."""
        self._coming.put(active)
        self._coming.put(None)
        while not self._ended.wait(process.POLL):
            self._task.check()
        self._task.check()
        return self._whole

    def leave(self, place: Callable[[str], Path]) -> None:
        """After a step that failed: leave what is joined for the build that repeats it, at
        the place for the last layer's name, unless that takes long."""
        self._coming.put(None)
        if self._ended.wait(BEQUEST) and self._whole:
            with contextlib.suppress(OSError):
                os.rename(self.into, place(self._last.name))

    def close(self) -> None:
        """Stop, and wait until nothing writes to `into` any more."""
        self._stopped.set()
        self._coming.put(None)
        self._thread.join()


def _lay(layer: Path, into: Path, task: Task, check: Callable[[], None]) -> None:
    """Put what a layer itself holds over the raw file of all layers below it."""
    argv = ["qemu-img", "map", "-f", "qcow2", "--output=json", str(layer)]
    done = process.run(argv, task, keep=1_000_000, check=check)
    if done.status:
        raise HostError(f"qemu-img could not read a layer: {done.text}")
    with layer.open("rb") as held, into.open("r+b") as file:
        for place in json.loads(done.text):
            if place["depth"]:
                continue
            extent = Extent(place["start"], place["length"])
            if place["zero"]:
                holes.clear(file.fileno(), extent, check)
                continue
            for at, data in _pieces(held.fileno(), place["offset"], extent.length):
                check()
                os.pwrite(file.fileno(), data, extent.offset + at)


def _pieces(handle: int, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    for at in range(0, length, MIB):
        data = os.pread(handle, min(MIB, length - at), offset + at)
        if len(data) < min(MIB, length - at):
            raise HostError("a layer is shorter than it says")
        yield at, data
