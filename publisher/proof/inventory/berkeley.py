"""The values of a hash of Berkeley DB, in which rpm kept its packages before Fedora 33 and
Enterprise Linux 9. Its pages are as in Berkeley DB's dbinc/db_page.h; they are gone through
in their order, without looking anything up."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from publisher.proof.inspect.budget import Damaged, Unreadable

_MAGIC = 0x061561
_HASH_META, _HASH_UNSORTED, _HASH, _OVERFLOW = 8, 2, 13, 7
_INLINE, _OFF_PAGE = 1, 3
_HEADER = 26
"""Bytes of a page before its data."""
_CHECKSUMS = 1
_NO_KEY = bytes(4)
"""Under it rpm keeps the number of its next package."""


def values(data: mmap.mmap, path: str, most: int) -> Iterator[bytes]:
    """All but rpm's own. Raises Unreadable for what is not as rpm makes it, and Damaged,
    also for a value of more than `most` bytes."""
    yield from _Pages(data, path, most).values()


class _Pages:
    def __init__(self, data: mmap.mmap, path: str, most: int) -> None:
        self._data = data
        self._path = path
        self._most = most
        head = bytes(data[12:72])
        self._order = next((o for o in "<>" if head[:4] == struct.pack(f"{o}I", _MAGIC)), "")
        if not self._order:
            raise Unreadable(f"{path} is no hash of Berkeley DB")
        self._size, encrypted, kind, flags = struct.unpack_from(f"{self._order}8xIBBB", head)
        (self._last,) = struct.unpack_from(f"{self._order}I", head, 20)
        if kind != _HASH_META or encrypted or flags & _CHECKSUMS:
            raise Unreadable(f"{path} is a Berkeley DB of another kind than rpm's")
        if not 512 <= self._size <= 65536 or (self._last + 1) * self._size > len(data):
            raise Damaged(f"{path} was cut short, or is damaged")
        self._used = bytearray(self._last + 1)

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, at)

    def values(self) -> Iterator[bytes]:
        for page in range(1, self._last + 1):
            start = page * self._size
            if self._data[start + 25] in (_HASH_UNSORTED, _HASH):
                (entries,) = self._unpack("H", start + 20)
                if _HEADER + 2 * entries > self._size:
                    raise Damaged(f"{self._path} has a page with more entries than it can hold")
                ends = (self._size, *self._unpack(f"{entries}H", start + _HEADER))
                # a key, its value, and so on, from the page's end to its middle
                for number in range(1, entries, 2):
                    key = self._item(start, ends[number], ends[number - 1])
                    value = self._item(start, ends[number + 1], ends[number])
                    if key[1:] != _NO_KEY:
                        yield self._value(value)

    def _item(self, start: int, first: int, end: int) -> bytes:
        if not _HEADER <= first < end <= self._size:
            raise Damaged(f"{self._path} has a value that is outside of its page")
        return self._data[start + first : start + end]

    def _value(self, item: bytes) -> bytes:
        if item[0] == _INLINE:
            return item[1:]
        if item[0] != _OFF_PAGE or len(item) < 12:
            raise Unreadable(f"{self._path} has a value of a kind that rpm does not make")
        page, length = struct.unpack_from(f"{self._order}II", item, 4)
        if length > self._most:
            raise Damaged(f"{self._path} has a value of more than {self._most} bytes")
        pieces, left = [], length
        while left > 0:
            start = page * self._size
            if not 0 < page <= self._last or self._used[page]:
                raise Damaged(f"{self._path} has a value whose pages are not there")
            self._used[page] = 1
            page, _, held, _, kind = self._unpack("IHHBB", start + 16)
            if kind != _OVERFLOW or not 0 < held <= min(left, self._size - _HEADER):
                raise Damaged(f"{self._path} has a value whose pages are not there")
            pieces.append(self._data[start + _HEADER : start + _HEADER + held])
            left -= held
        return b"".join(pieces)
