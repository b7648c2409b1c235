"""Bytes by position: of a file, or of a part of it."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from publisher.closing import Closing
from publisher.errors import HostError
from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget, Damaged

AT_ONCE = 16 * MIB
"""The most that one read gives."""


class Storage(Protocol):
    """Positioned reads; `size` in bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, at most AT_ONCE. Raises Damaged where they would
        lie outside, and Exhausted."""


class RawFile(Closing):
    """The bytes of a raw disk file."""

    def __init__(self, path: Path, budget: Budget, size: int | None = None) -> None:
        """`size`: only so many of its bytes are the disk's."""
        self._budget = budget
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}") from error
        self.size = os.fstat(self._handle).st_size if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        inside(self, offset, length)
        self._budget.charge(length)
        data = os.pread(self._handle, length, offset)
        while len(data) < length:
            more = os.pread(self._handle, length - len(data), offset + len(data))
            if not more:
                raise Damaged("the disk file ends too early")
            data += more
        return data

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Slice:
    """A part of a storage, such as a partition; it may not reach beyond the whole."""

    def __init__(self, whole: Storage, offset: int, size: int) -> None:
        inside(whole, offset, 0)
        self._whole = whole
        self._offset = offset
        self.size = min(size, whole.size - offset)

    def read(self, offset: int, length: int) -> bytes:
        inside(self, offset, length)
        return self._whole.read(self._offset + offset, length)


class Joined:
    """Parts of a storage, one behind the other."""

    def __init__(self, whole: Storage, parts: Sequence[Extent]) -> None:
        self._whole = whole
        self._parts = parts
        self._starts = [0, *itertools.accumulate(part.length for part in parts)]
        self.size = self._starts.pop()

    def read(self, offset: int, length: int) -> bytes:
        inside(self, offset, length)
        pieces: list[bytes] = []
        number = bisect.bisect_right(self._starts, offset) - 1
        while length:
            part, within = self._parts[number], offset - self._starts[number]
            pieces.append(self._whole.read(part.offset + within, min(length, part.length - within)))
            offset += len(pieces[-1])
            length -= len(pieces[-1])
            number += 1
        return b"".join(pieces)


def inside(storage: Storage, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > storage.size or length > AT_ONCE:
        raise Damaged(f"{length} bytes at {offset} are outside of its {storage.size} bytes")
