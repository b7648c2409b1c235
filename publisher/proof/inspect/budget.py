"""Bounds for reading what somebody hostile may have written."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from publisher.errors import PublishError
from publisher.model import GIB


class Unreadable(PublishError):
    """It may be sound, but this program has no reader for it."""


class Damaged(Unreadable):
    """It contradicts its own format, or is beyond all that is reasonable."""


class Exhausted(Damaged):
    """Looking took more time, reads or bytes than a sound disk needs."""


READER_FAULTS = (struct.error, ValueError, LookupError, RecursionError, MemoryError)
"""What else a disk that is damaged, or made to be read wrong, brings a reader to raise."""


class Budget:
    """What one inspection may spend: seconds, bytes read or unpacked, and steps
    (reads, entries, names). All readers of a disk draw on the same one.

    `check` is called now and then, so that a cancelled task ends the reading.
    """

    def __init__(
        self,
        *,
        seconds: float = 180.0,
        size: int = 8 * GIB,
        steps: int = 10_000_000,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._size = size
        self._steps = steps
        self._check = check

    def charge(self, size: int = 0) -> None:
        """One step, with so many bytes. Raises Exhausted, from then on each time."""
        self._size -= size
        self._steps -= 1
        if self._size < 0:
            raise Exhausted("reading it takes more bytes than a sound disk needs")
        if self._steps < 0:
            raise Exhausted("reading it takes more steps than a sound disk needs")
        if self._steps % 64 == 0:
            self._check()
            if time.monotonic() > self._deadline:
                raise Exhausted(f"reading it takes longer than {self._seconds:.0f} s")
