"""Where the content of XFS's inodes lies: lists of extents, or B+trees of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.runs import Run
from publisher.proof.inspect.storage import Storage
from publisher.proof.inspect.xfs.superblock import Seal, Superblock

_SEAL = Seal(check=64, sector=24, uuid=40, owner=56)
_MAGICS = {4: b"BMAP", 5: b"BMA3"}
_HEADERS = {4: 24, 5: 72}
_END = 1 << 54
_LEVELS_MOST = 9


def listed(raw: bytes, count: int, superblock: Superblock, budget: Budget) -> Iterator[Run]:
    """The extents that an inode holds itself."""
    if count * 16 > len(raw):
        raise Damaged(f"a file with {count} extents has no room for them in its inode")
    yield from _records(raw[: count * 16], 0, _END, superblock, budget)


class ExtentTree:
    """The B+tree of an inode's extents; `root` is what the inode holds of it."""

    def __init__(
        self, number: int, superblock: Superblock, storage: Storage, budget: Budget
    ) -> None:
        self._number = number
        self._superblock = superblock
        self._storage = storage
        self._budget = budget

    def runs(self, root: bytes) -> Iterator[Run]:
        level = int.from_bytes(root[:2], "big")
        if not 0 < level <= _LEVELS_MOST:
            raise Damaged(f"a tree of extents has {level} levels")
        yield from self._node(root[2:4], root[4:], level, 0, _END)

    def _node(self, count: bytes, raw: bytes, level: int, low: int, high: int) -> Iterator[Run]:
        """Keys, and from the middle of the room on the blocks below."""
        number, most = int.from_bytes(count, "big"), len(raw) // 16
        if not 0 < number <= most:
            raise Damaged("a node of a tree of extents is damaged")
        keys = struct.unpack_from(f">{number}Q", raw)
        below = struct.unpack_from(f">{number}Q", raw, most * 8)
        for start, end, block in zip(keys, (*keys[1:], high), below, strict=True):
            if not low <= start < end <= high:
                raise Damaged("the extents of a file are not in order")
            yield from self._block(block, level - 1, start, end)

    def _block(self, number: int, level: int, low: int, high: int) -> Iterator[Run]:
        superblock = self._superblock
        block, header = superblock.block(number), _HEADERS[superblock.version]
        raw = self._storage.read(block * superblock.block_size, superblock.block_size)
        what = "a block of a tree of extents"
        if raw[:4] != _MAGICS[superblock.version] or int.from_bytes(raw[4:6], "big") != level:
            raise Damaged(f"{what} has no header")
        if superblock.version == 5:
            superblock.verify(raw, _SEAL, block, self._number, what)
        if level:
            yield from self._node(raw[6:8], raw[header:], level, low, high)
            return
        count = int.from_bytes(raw[6:8], "big")
        if not 0 < count <= (len(raw) - header) // 16:
            raise Damaged(f"{what} has {count} extents")
        yield from _records(raw[header : header + count * 16], low, high, superblock, self._budget)


def _records(
    raw: bytes, low: int, high: int, superblock: Superblock, budget: Budget
) -> Iterator[Run]:
    for upper, lower in struct.iter_unpack(">QQ", raw):
        budget.charge()
        unwritten, start = upper >> 63, (upper & ~(1 << 63)) >> 9
        first, count = (upper & 0x1FF) << 43 | lower >> 21, lower & 0x1FFFFF
        if not low <= start < start + count <= high:
            raise Damaged("the extents of a file are not in order")
        block = superblock.block(first, count)
        yield start, count, 0 if unwritten else block
        low = start + count
