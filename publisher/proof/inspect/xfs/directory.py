"""The entries of XFS's directories.

What is only there to find names faster (leaves, nodes, free lists) is not looked at:
all names are in the data blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from publisher.proof.inspect.budget import Damaged
from publisher.proof.inspect.xfs.superblock import Seal

SEAL = Seal(check=4, sector=8, uuid=24, owner=40)
_SINGLE, _DATA = (b"XD2B", b"XDB3"), (b"XD2D", b"XDD3")
_UNUSED = b"\xff\xff"


def short(raw: bytes, file_types: bool) -> Iterator[tuple[bytes, int]]:
    """Name and inode of each entry of a directory within its inode."""
    if len(raw) < 6:
        raise Damaged(f"a directory has {len(raw)} bytes")
    count, large = raw[0], raw[1]
    width = 8 if large else 4
    at = 2 + width
    for _ in range(count):
        size = raw[at] if at < len(raw) else 0
        end = at + 3 + size
        place = end + file_types
        if not size or place + width > len(raw):
            raise Damaged("an entry of a directory is damaged")
        yield raw[at + 3 : end], int.from_bytes(raw[place : place + width], "big")
        at = place + width


def entries(raw: bytes, checked: bool, file_types: bool) -> Iterator[tuple[bytes, int]]:
    """The same of one block of a directory; `checked`: with v5's header."""
    magic, at, end = raw[:4], 64 if checked else 16, len(raw)
    if magic == _SINGLE[checked]:
        # the only block of a directory has the leaf behind its entries
        end -= 8 + 8 * int.from_bytes(raw[-8:-4], "big")
    elif magic != _DATA[checked]:
        raise Damaged("a block of a directory has no header")
    while at < end:
        if raw[at : at + 2] == _UNUSED:
            size = int.from_bytes(raw[at + 2 : at + 4], "big")
            if size < 8 or size % 8 or at + size > end:
                raise Damaged("an entry of a directory is damaged")
            at += size
            continue
        if at + 16 > end:
            raise Damaged("an entry of a directory is damaged")
        number, length = struct.unpack_from(">QB", raw, at)
        size = (9 + length + file_types + 2 + 7) // 8 * 8
        tag = raw[at + size - 2 : at + size]
        if at + size > end or int.from_bytes(tag, "big") != at:
            raise Damaged("an entry of a directory is damaged")
        yield raw[at + 9 : at + 9 + length], number
        at += size
    if at != end:
        raise Damaged("a block of a directory is damaged")
