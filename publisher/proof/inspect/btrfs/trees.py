"""B-trees: blocks of metadata, checked, and the items between two keys."""

from __future__ import annotations

import bisect
import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from publisher.proof.inspect.btrfs.chunks import CHUNK_ITEM, CHUNK_TREE, Chunks
from publisher.proof.inspect.btrfs.superblock import Pointer, Superblock, is_guarded
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.storage import Storage

Key: TypeAlias = tuple[int, int, int]
"""(object, kind of item, offset): what items are ordered by."""

MOST = (1 << 64) - 1
CHUNK_ROOT, ROOT = 3, 1
_HEAD, _ITEM, _POINTER = 101, 25, 33
_LEVELS_MOST = 8
_KEPT = 8 << 20
"""Bytes of blocks that are kept; as Python's objects they take several times that."""
_LOW: Key = (0, 0, 0)
_HIGH: Key = (MOST, 255, MOST)


class Item(NamedTuple):
    """`place` is where its data begin, in logical bytes. There are millions of them."""

    key: Key
    data: bytes
    place: int


@dataclass(frozen=True, slots=True)
class _Block:
    owner: int
    keys: list[Key]
    children: list[Pointer]
    raw: bytes
    data: list[tuple[int, int]]
    """Of a leaf: where each item's data are, and how long."""


class Trees:
    """The trees of one file system. Everything raises Damaged for a block that is not
    what the one above says of it: so no tree has a circle, or shows an item twice."""

    def __init__(
        self,
        storage: Storage,
        superblock: Superblock,
        budget: Budget,
        remark: Callable[[str], None],
    ) -> None:
        self._superblock = superblock
        self._budget = budget
        self._remark = remark
        self.chunks = Chunks(storage, superblock.device)
        kept = _KEPT // superblock.node_size
        self._block = functools.lru_cache(maxsize=kept)(self._read_block)
        self.chunks.add_all(superblock.chunks)
        low, high = (CHUNK_TREE, CHUNK_ITEM, 0), (CHUNK_TREE, CHUNK_ITEM, MOST)
        # the tree lies in chunks of the superblock, so it may grow while it is read
        for item in self.items(superblock.chunk_root, low, high, CHUNK_ROOT):
            self.chunks.add(item.key[2], item.data)

    def items(self, root: Pointer, low: Key, high: Key, owner: int = 0) -> Iterator[Item]:
        """Those from `low` to `high`, in order. `owner`: whose tree it must be, if no
        other shares its blocks."""
        if root.level >= _LEVELS_MOST:
            raise Damaged(f"a tree has {root.level + 1} levels")
        # blocks to look at, the next one last: with its first key, and its greatest
        waiting: list[tuple[Pointer, Key | None, Key]] = [(root, None, _HIGH)]
        while waiting:
            self._budget.charge()
            pointer, first, end = waiting.pop()
            block = self._block(pointer)
            keys = block.keys
            if owner and block.owner != owner:
                raise Damaged(f"a block of tree {owner} belongs to tree {block.owner}")
            if keys and ((first is not None and keys[0] != first) or keys[-1] > end):
                raise Damaged("a block of a tree holds other keys than the one above says")
            until = bisect.bisect_right(keys, high)
            if pointer.level:
                start = max(0, bisect.bisect_right(keys, low) - 1)
                for number in range(until - 1, start - 1, -1):
                    # the next block's first key is no key of this one
                    last = _before(keys[number + 1]) if number + 1 < len(keys) else end
                    waiting.append((block.children[number], keys[number], last))
                continue
            for number in range(bisect.bisect_left(keys, low), until):
                self._budget.charge()
                start, size = block.data[number]
                start += _HEAD
                data = block.raw[start : start + size]
                yield Item(keys[number], data, pointer.logical + start)

    def at(self, root: Pointer, key: Key) -> Item | None:
        return next(self.items(root, key, key), None)

    def _read_block(self, pointer: Pointer) -> _Block:
        size = self._superblock.node_size
        if pointer.logical % self._superblock.sector_size:
            raise Damaged(f"a tree leads to byte {pointer.logical}, where no block begins")
        copies = max(1, self.chunks.copies(pointer.logical))
        fault = ""
        for copy in range(copies):
            raw = self.chunks.read(pointer.logical, size, copy)
            wrong = self._fault(raw, pointer)
            if not wrong:
                if fault:
                    self._remark("some of its metadata is damaged, of which the copy is sound")
                return _parse(raw, pointer.level)
            fault = fault or wrong
        raise Damaged(f"its block at byte {pointer.logical} is damaged: {fault}")

    def _fault(self, raw: bytes, pointer: Pointer) -> str:
        place = struct.unpack_from("<Q", raw, 48)[0]
        generation = struct.unpack_from("<Q", raw, 80)[0]
        if not is_guarded(raw, self._superblock.checksum):
            return "its checksum is wrong"
        if raw[32:48] != self._superblock.block_uuid or place != pointer.logical:
            return "it is another one"
        if generation != pointer.generation:
            return f"it is of generation {generation}, not {pointer.generation}"
        if raw[100] != pointer.level:
            return f"its level is {raw[100]}, not {pointer.level}"
        return ""


def _parse(raw: bytes, level: int) -> _Block:
    owner, count = struct.unpack_from("<QI", raw, 88)
    each = _POINTER if level else _ITEM
    end = _HEAD + count * each
    if end > len(raw) or (level and not count):
        raise Damaged(f"a block of a tree holds {count} items")
    entries = memoryview(raw)[_HEAD:end]
    keys: list[Key] = []
    children: list[Pointer] = []
    data: list[tuple[int, int]] = []
    if level:
        for one, two, three, logical, generation in struct.iter_unpack("<QBQQQ", entries):
            keys.append((one, two, three))
            children.append(Pointer(logical, generation, level - 1))
    else:
        room = len(raw) - _HEAD
        for one, two, three, start, size in struct.iter_unpack("<QBQII", entries):
            if start < count * _ITEM or start + size > room:
                raise Damaged("an item of a tree lies outside of its block")
            keys.append((one, two, three))
            data.append((start, size))
    if any(keys[number] >= keys[number + 1] for number in range(count - 1)):
        raise Damaged("the keys of a block are not in order")
    return _Block(owner, keys, children, raw, data)


def _before(key: Key) -> Key:
    """The greatest key that is less."""
    one, two, three = key
    if three:
        return one, two, three - 1
    return (one, two - 1, MOST) if two else (max(0, one - 1), 255, MOST)
