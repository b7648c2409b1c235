"""The files of a Btrfs: its subvolumes, and one of them as a file system."""

from __future__ import annotations

import copy
import functools
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from publisher.model import MIB, Extent
from publisher.proof.inspect.btrfs import items
from publisher.proof.inspect.btrfs.items import Data, Root
from publisher.proof.inspect.btrfs.superblock import read_superblock
from publisher.proof.inspect.btrfs.trees import MOST, ROOT, Item, Key, Trees
from publisher.proof.inspect.btrfs.unpack import UNPACKED_MOST, unpack
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.filesystem import LINK_MOST, NAMES_MOST, Node
from publisher.proof.inspect.storage import Storage

TOP = 5
"""The subvolume that every Btrfs has; all others appear below its root directory."""
_FIRST, _LAST = 256, MOST - 256
"""The numbers of other subvolumes, and those of inodes."""
_SUBVOLUMES_MOST = 10_000
_DEPTH_MOST = 100
_PIECE = 1 * MIB
_EMPTY = 1 << 128
"""Marks a directory where a subvolume was when a snapshot was taken: a snapshot shows
it empty. Other numbers of nodes are a subvolume's and, in the lower 64 bits, an inode's."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A part of a file (in its own bytes) that is compressed. `source` tells it from
    others: several files may share it. `places`: where it lies, the first copy."""

    part: Extent
    source: tuple[int, int]
    places: tuple[Extent, ...]


class Btrfs:
    """All files, as the top-level subvolume shows them; `subvolume` gives the others,
    which have the same nodes. `storage` begins with the file system."""

    kind = "btrfs"
    folds_case = False

    def __init__(self, storage: Storage, budget: Budget) -> None:
        superblock = read_superblock(storage)
        self._storage = storage
        self._budget = budget
        self._superblock = superblock
        self.uuid = superblock.uuid
        self.label = superblock.label
        self.remarks = superblock.remarks
        self._trees = Trees(storage, superblock, budget, self._remark)
        self._top = TOP
        self._subvolume = functools.lru_cache(maxsize=1024)(self._read_subvolume)
        self._inode = functools.lru_cache(maxsize=4096)(self._read_inode)
        self._unpacked = functools.lru_cache(maxsize=4)(self._unpack)
        self.root()

    def __eq__(self, other: object) -> bool:
        """The subvolumes of one Btrfs are one file system."""
        return isinstance(other, Btrfs) and self._trees is other._trees

    def __hash__(self) -> int:
        return hash(id(self._trees))

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks += (text,)

    # -- subvolumes

    @property
    def ident(self) -> int:
        """Which subvolume is the root."""
        return self._top

    def subvolume(self, ident: int) -> Btrfs:
        """Another subvolume as the root. Raises Damaged if there is none."""
        self._subvolume(ident)
        other = copy.copy(self)
        other._top = ident
        return other

    def has(self, ident: int) -> bool:
        return self._find_subvolume(ident) is not None

    def named(self, path: str) -> int | None:
        """The subvolume at a path in the top-level one; None where none is."""
        number = self._number(TOP, self._subvolume(TOP).directory)
        for name in filter(None, path.split("/")):
            node = self._inode(number)
            below = self.names(node).get(name) if node.is_dir else None
            if below is None:
                return None
            number = below
        ident = number >> 64
        is_root = not number & _EMPTY and number & MOST == self._subvolume(ident).directory
        return ident if is_root else None

    def default(self) -> int:
        """The subvolume that is mounted if none is named."""
        directory = self._superblock.root_directory
        for item in self._in_root_tree(*_span(directory, items.DIRECTORY_ITEM)):
            for name, target in items.entries(item, self._budget):
                if name == "default":
                    return target[0]
        return TOP

    def subvolumes(self) -> Mapping[int, str]:
        """All that have a place ▶ their paths in the top-level one, the oldest first."""
        found: dict[int, str] = {TOP: ""}
        for item in self._in_root_tree((_FIRST, items.ROOT_ITEM, 0), (_LAST, 255, MOST)):
            ident, kind, _ = item.key
            if kind == items.ROOT_ITEM and items.root(item).used:
                path = self._path(ident)
                if path:
                    found[ident] = path
                if len(found) > _SUBVOLUMES_MOST:
                    raise Damaged(f"it has more than {_SUBVOLUMES_MOST} subvolumes")
        return found

    def _path(self, ident: int) -> str:
        """ "" for one that is in no directory."""
        parts: list[str] = []
        while ident != TOP:
            low, high = _span(ident, items.ROOT_BACK_REFERENCE)
            item = next(self._in_root_tree(low, high), None)
            if item is None:
                return ""
            directory, name = items.reference(item)
            parts.append(name)
            ident = item.key[2]
            root = self._subvolume(ident)
            while directory != root.directory:
                low, high = _span(directory, items.INODE_REFERENCE)
                above = next(self._trees.items(root.pointer, low, high), None)
                if above is None:
                    return ""
                parts.append(items.name_of(above))
                directory = above.key[2]
                if len(parts) > _DEPTH_MOST:
                    break
            if len(parts) > _DEPTH_MOST:
                raise Damaged(f"subvolumes are more than {_DEPTH_MOST} deep")
        return "/" + "/".join(reversed(parts))

    def _in_root_tree(self, low: Key, high: Key) -> Iterator[Item]:
        return self._trees.items(self._superblock.root, low, high, ROOT)

    def _read_subvolume(self, ident: int) -> Root:
        found = self._find_subvolume(ident)
        if found is None:
            raise Damaged(f"it has no subvolume {ident}")
        return found

    def _find_subvolume(self, ident: int) -> Root | None:
        if ident != TOP and not _FIRST <= ident <= _LAST:
            return None
        # of a snapshot, the offset of the key is the generation in which it was taken
        found = map(items.root, self._in_root_tree(*_span(ident, items.ROOT_ITEM)))
        return next((root for root in found if root.used), None)

    # -- inodes

    def root(self) -> Node:
        node = self._inode(self._number(self._top, self._subvolume(self._top).directory))
        if not node.is_dir:
            raise Damaged("its root is not a directory")
        return node

    def node(self, number: int) -> Node:
        return self._inode(number)

    def _number(self, subvolume: int, inode: int) -> int:
        return subvolume << 64 | inode

    def _read_inode(self, number: int) -> Node:
        if number & _EMPTY:
            return Node(number, stat.S_IFDIR | 0o755, 0)
        found = self._inode_item(number)
        return Node(number, found.mode, found.size, found.owner)

    def _inode_item(self, number: int) -> items.Inode:
        subvolume, ident = number >> 64, number & MOST
        item = self._trees.at(self._subvolume(subvolume).pointer, (ident, items.INODE, 0))
        if item is None:
            raise Damaged(f"subvolume {subvolume} has no inode {ident}")
        return items.inode(item)

    def changed(self, node: Node) -> int:
        """When it was last changed, in seconds since the epoch."""
        return 0 if node.number & _EMPTY else self._inode_item(node.number).changed

    def _items(self, node: Node, kind: int) -> Iterator[Item]:
        subvolume, ident = node.number >> 64, node.number & MOST
        return self._trees.items(self._subvolume(subvolume).pointer, *_span(ident, kind))

    # -- content

    def names(self, directory: Node) -> Mapping[str, int]:
        found: dict[str, int] = {}
        if directory.number & _EMPTY:
            return found
        subvolume = directory.number >> 64
        for item in self._items(directory, items.DIRECTORY_INDEX):
            for name, (ident, kind, _) in items.entries(item, self._budget):
                if len(found) == NAMES_MOST:
                    raise Damaged(f"a directory has more than {NAMES_MOST} entries")
                if kind == items.ROOT_ITEM:
                    found[name] = self._nested(subvolume, directory.number & MOST, name, ident)
                elif kind == items.INODE:
                    found[name] = self._number(subvolume, ident)
                else:
                    raise Damaged("an entry of a directory leads to neither inode nor subvolume")
        return found

    def _nested(self, above: int, directory: int, name: str, ident: int) -> int:
        """The root directory of a subvolume that appears in a directory."""
        key = (above, items.ROOT_REFERENCE, ident)
        item = next(self._in_root_tree(key, key), None)
        if item is None or items.reference(item) != (directory, name):
            return _EMPTY | self._number(above, ident)
        return self._number(ident, self._subvolume(ident).directory)

    def link(self, node: Node) -> str:
        if node.size > LINK_MOST:
            raise Damaged(f"a symbolic link has {node.size} bytes")
        return b"".join(self.stream(node)).decode(errors="backslashreplace")

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        position = offset
        for data in self._data(node):
            end = min(data.start + data.length, node.size)
            if end <= position:
                continue
            yield from self._zeros(position, min(data.start, node.size))
            position = max(position, data.start)
            while position < end:
                length = min(_PIECE, end - position)
                yield self._bytes(data, position - data.start, length)
                position += length
        yield from self._zeros(position, node.size)

    def _zeros(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            length = min(_PIECE, end - start)
            self._budget.charge(length)
            yield bytes(length)
            start += length

    def _bytes(self, data: Data, at: int, length: int) -> bytes:
        if not data.logical:
            self._budget.charge(length)
            return bytes(length)
        at += data.skip
        if data.compression:
            return self._unpacked(data)[at : at + length]
        if data.inline is not None:
            return data.inline[at : at + length]
        return self._trees.chunks.read(data.logical + at, length)

    def _unpack(self, data: Data) -> bytes:
        if max(data.packed, data.unpacked) > UNPACKED_MOST:
            raise Damaged(f"a compressed extent has {max(data.packed, data.unpacked)} bytes")
        self._budget.charge(data.unpacked)
        raw = data.inline
        if raw is None:
            raw = self._trees.chunks.read(data.logical, data.packed)
        return unpack(data.compression, raw, data.unpacked, self._superblock.sector_size)

    # -- where the content is

    def extents(self, node: Node) -> Iterator[Extent]:
        """Of compressed content none, of other the first copy: see `first_copies`."""
        for data in self._data(node):
            if data.logical and not data.compression:
                length = data.packed if data.inline is not None else data.length
                yield from self._trees.chunks.places(data.logical + data.skip, length)

    def packed(self, node: Node) -> Iterator[Packed]:
        """What of a file is compressed."""
        for data in self._data(node):
            if data.logical and data.compression:
                places = tuple(self._trees.chunks.places(data.logical, data.packed))
                part = Extent(data.start, data.length)
                yield Packed(part, (data.logical, data.skip), places)

    def first_copies(self, offsets: Iterable[int]) -> Mapping[int, int]:
        """Bytes of the device ▶ the same ones in the first copy of what is there twice."""
        return self._trees.chunks.first_copies(offsets)

    def _data(self, node: Node) -> Iterator[Data]:
        """A file's extents; what is between them is zeros."""
        if node.number & _EMPTY or node.is_dir:
            return
        position = 0
        for item in self._items(node, items.EXTENT_DATA):
            data = items.data(item)
            if data.start < position:
                raise Damaged("the extents of a file overlap")
            position = data.start + data.length
            yield data


def _span(ident: int, kind: int) -> tuple[Key, Key]:
    return (ident, kind, 0), (ident, kind, MOST)
