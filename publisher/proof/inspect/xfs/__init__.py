"""XFS of versions 4 and 5, read only.

Layout: "XFS Algorithms & Data Structures", 3rd edition (kernel.org). The log is not
replayed; what is not yet written back is told as a remark.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.filesystem import NAMES_MOST, Node
from publisher.proof.inspect.runs import Run, content, places
from publisher.proof.inspect.storage import Storage
from publisher.proof.inspect.xfs import directory as directories
from publisher.proof.inspect.xfs import forks
from publisher.proof.inspect.xfs.superblock import Seal, read_superblock, uuid_of

_LOCAL, _EXTENTS, _TREE = 1, 2, 3
_REALTIME = 0x1
_LARGE_TIMES, _LARGE_COUNTS = 0x8, 0x10
_LINK_MOST = 1024
_LINK_SEAL = Seal(check=12, sector=40, uuid=16, owner=32)
_LINK_HEADER = 56
_DIRECTORY_MOST = 256 * MIB


@dataclass(frozen=True, slots=True)
class _Inode(Node):
    form: int = 0
    flags: int = 0
    fork: bytes = b""
    """What the inode holds of its content, or of the list of its extents."""
    extents: int = 0
    changed: int = 0
    """Its change time, in seconds since the epoch."""


class Xfs:
    """One file system; `storage` begins with it."""

    kind = "xfs"

    def __init__(self, storage: Storage, budget: Budget) -> None:
        self._storage = storage
        self._budget = budget
        self.superblock = read_superblock(storage)
        self.block_size = self.superblock.block_size
        self.folds_case = self.superblock.folds_case
        self.uuid = uuid_of(self.superblock.uuid)
        self.label = self.superblock.label
        self.remarks = self.superblock.remarks
        self.log = self.superblock.log
        self._inode = functools.lru_cache(maxsize=4096)(self._read_inode)

    # -- inodes

    def root(self) -> Node:
        root = self._inode(self.superblock.root)
        if not root.is_dir:
            raise Damaged("its root is not a directory")
        return root

    def node(self, number: int) -> Node:
        return self._inode(number)

    def _read_inode(self, number: int) -> _Inode:
        superblock = self.superblock
        raw = self._storage.read(superblock.inode(number), superblock.inode_size)
        magic, mode, version, form = struct.unpack_from(">2sHBB", raw)
        owner = struct.unpack_from(">I", raw, 8)[0]
        if magic != b"IN" or (version == 3) != (superblock.version == 5) or not 1 <= version <= 3:
            raise Damaged(f"inode {number} is damaged")
        size, extents = struct.unpack_from(">Q12xI", raw, 56)
        start, fork, more = 100, raw[82] * 8, 0
        if version == 3:
            start = 176
            itself, whose = raw[152:160], raw[160:176]
            if not superblock.sound(raw, 100):
                raise Damaged(f"the checksum of inode {number} is wrong")
            if itself != number.to_bytes(8, "big") or whose != superblock.meta_uuid:
                raise Damaged(f"inode {number} is another's")
            more = struct.unpack_from(">Q", raw, 120)[0]
        if more & _LARGE_COUNTS:
            extents = struct.unpack_from(">Q", raw, 24)[0]
        if not mode:
            raise Damaged(f"inode {number} is free, and a directory names it")
        if start + fork > len(raw) or size >= 1 << 63:
            raise Damaged(f"inode {number} is damaged")
        room = raw[start : start + fork if fork else len(raw)]
        flags = struct.unpack_from(">H", raw, 90)[0]
        changed = struct.unpack_from(">i", raw, 48)[0]
        if more & _LARGE_TIMES:
            changed = struct.unpack_from(">Q", raw, 48)[0] // 1_000_000_000 - (1 << 31)
        return _Inode(number, mode, size, owner, form, flags, room, extents, changed)

    def changed(self, node: Node) -> int:
        """When it was last changed, in seconds since the epoch."""
        return self._inode(node.number).changed

    # -- content

    def names(self, directory: Node) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for name, number in self._entries(self._inode(directory.number)):
            self._budget.charge()
            if name in (b".", b".."):
                continue
            if not name or b"/" in name or b"\0" in name:
                raise Damaged(f"a directory has an entry named {name!r}")
            text = name.decode(errors="backslashreplace")
            if text in found:
                raise Damaged(f"a directory has two entries named {text!r}")
            found[text] = number
            if len(found) > NAMES_MOST:
                raise Damaged(f"a directory has more than {NAMES_MOST} entries")
        return found

    def _entries(self, inode: _Inode) -> Iterator[tuple[bytes, int]]:
        superblock = self.superblock
        if inode.form == _LOCAL:
            yield from directories.short(self._local(inode), superblock.file_types)
            return
        checked = superblock.version == 5
        for block, raw in self._directory_blocks(inode):
            if checked:
                what = "a block of a directory"
                superblock.verify(raw, directories.SEAL, block, inode.number, what)
            yield from directories.entries(raw, checked, superblock.file_types)

    def _directory_blocks(self, inode: _Inode) -> Iterator[tuple[int, bytes]]:
        """(block of the disk, bytes) of each, which may be made of several blocks of
        the file system. Behind the directory's size come its indices."""
        size, whole = self.block_size, self.superblock.directory_block
        if inode.size > _DIRECTORY_MOST or inode.size % whole or not inode.size:
            raise Damaged(f"a directory has {inode.size} bytes")
        parts: list[bytes] = []
        known: set[int] = set()
        start = following = 0
        for first, count, physical in self._runs(inode):
            for number in range(first, min(first + count, inode.size // size)):
                if not parts:
                    start, following = physical + number - first, number
                if not physical or number != following or (not parts and number * size % whole):
                    raise Damaged("a block of a directory has a hole")
                at = (physical + number - first) * size
                parts.append(self._storage.read(at, size))
                following += 1
                if len(parts) * size == whole:
                    if start in known:
                        raise Damaged("a directory has one block twice")
                    known.add(start)
                    yield start, b"".join(parts)
                    parts = []
        if parts:
            raise Damaged("a block of a directory has a hole")

    def link(self, node: Node) -> str:
        inode = self._inode(node.number)
        if not 0 < inode.size <= _LINK_MOST:
            raise Damaged(f"a symbolic link has {inode.size} bytes")
        raw = self._local(inode) if inode.form == _LOCAL else self._remote_link(inode)
        return raw.decode(errors="backslashreplace")

    def _remote_link(self, inode: _Inode) -> bytes:
        if self.superblock.version == 4:
            return b"".join(self.stream(inode))
        found = b""
        for _, count, physical in self._runs(inode):
            length = count * self.block_size
            if not physical or length > _LINK_MOST + 64 * 1024:
                raise Damaged("a symbolic link has a hole")
            raw = self._storage.read(physical * self.block_size, length)
            what = "a block of a symbolic link"
            if raw[:4] != b"XSLM":
                raise Damaged(f"{what} has no header")
            self.superblock.verify(raw, _LINK_SEAL, physical, inode.number, what)
            found += raw[_LINK_HEADER : _LINK_HEADER + inode.size - len(found)]
            if len(found) >= inode.size:
                return found
        raise Damaged(f"a symbolic link of {inode.size} bytes ends too early")

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        inode = self._inode(node.number)
        if inode.form == _LOCAL:
            yield self._local(inode)[offset:]
            return
        runs = self._runs(inode)
        yield from content(self._storage, self._budget, runs, self.block_size, inode.size, offset)

    def _local(self, inode: _Inode) -> bytes:
        if inode.size > len(inode.fork):
            raise Damaged(f"content of {inode.size} bytes is not in the inode")
        return inode.fork[: inode.size]

    # -- where the blocks are

    def extents(self, node: Node) -> Iterator[Extent]:
        inode = self._inode(node.number)
        if inode.form != _LOCAL:
            yield from places(self._runs(inode), self.block_size)

    def _runs(self, inode: _Inode) -> Iterator[Run]:
        """Ascending runs of blocks."""
        if inode.flags & _REALTIME and inode.is_file:
            raise Unreadable("the file is on a realtime device")
        if inode.form == _EXTENTS:
            yield from forks.listed(inode.fork, inode.extents, self.superblock, self._budget)
        elif inode.form == _TREE:
            tree = forks.ExtentTree(inode.number, self.superblock, self._storage, self._budget)
            yield from tree.runs(inode.fork)
        else:
            raise Damaged(f"inode {inode.number} has its content in form {inode.form}")
