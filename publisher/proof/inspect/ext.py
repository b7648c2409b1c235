"""ext2, ext3 and ext4, read only.

Layout: https://www.kernel.org/doc/html/latest/filesystems/ext4/. The journal is
not replayed; what is not yet written back is told as a remark.
"""

from __future__ import annotations

import functools
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.filesystem import LINK_MOST, NAMES_MOST, Node
from publisher.proof.inspect.runs import Run, content, places
from publisher.proof.inspect.storage import Storage

MAGIC = b"\x53\xef"
ROOT = 2

_COMPRESSION, _NEEDS_RECOVERY, _JOURNAL_DEVICE, _META_BG = 0x1, 0x4, 0x8, 0x10
_EXTENTS, _64BIT, _KNOWN = 0x40, 0x80, 0x3F7D6
_INODE_EXTENTS, _INODE_INLINE, _INODE_ENCRYPTED = 0x80000, 0x1000_0000, 0x800
_EXTENT_MAGIC = 0xF30A
_DIRECTORY_MOST = 256 * MIB


@dataclass(frozen=True, slots=True)
class _Inode(Node):
    flags: int = 0
    block: bytes = b""
    tail: bytes = b""
    """What follows the inode's fixed fields: extended attributes."""


class Ext:
    """One file system; `storage` begins with it."""

    folds_case = False

    def __init__(self, storage: Storage, budget: Budget) -> None:
        self._storage = storage
        self._budget = budget
        sb = storage.read(1024, 1024)
        if sb[56:58] != MAGIC:
            raise Damaged("it has no ext superblock")
        inodes, blocks = struct.unpack_from("<II", sb, 0)
        self._first, shift = struct.unpack_from("<II", sb, 20)
        per_group_blocks, _, self._per_group = struct.unpack_from("<III", sb, 32)
        revision = struct.unpack_from("<I", sb, 76)[0]
        compatible, features, read_only = struct.unpack_from("<III", sb, 92)
        if shift > 6:
            raise Damaged(f"its blocks have 2^{10 + shift} bytes")
        self.block_size = 1024 << shift
        self._inode_size = struct.unpack_from("<H", sb, 88)[0] if revision else 128
        if self._inode_size not in (128, 256, 512, 1024, 2048, 4096) or (
            self._inode_size > self.block_size
        ):
            raise Damaged(f"its inodes have {self._inode_size} bytes")
        if features & (_COMPRESSION | _JOURNAL_DEVICE) or features & ~_KNOWN:
            raise Unreadable(f"it has features that are not known here ({features:#x})")
        if features & _64BIT:
            blocks |= struct.unpack_from("<I", sb, 336)[0] << 32
        if not 0 < self._per_group <= 8 * self.block_size or not per_group_blocks:
            raise Damaged("its groups have no inodes or no blocks")
        if self._first != (1 if self.block_size == 1024 else 0):
            raise Damaged(f"its first block is {self._first}")
        self.written: int = struct.unpack_from("<I", sb, 48)[0]
        """When it was last written, in seconds since the epoch."""
        self._blocks, self._inodes = blocks, inodes
        self._groups = -(-(blocks - self._first) // per_group_blocks)
        if not 0 < inodes <= self._groups * self._per_group:
            raise Damaged(f"it says that it has {inodes} inodes")
        self._per_group_blocks = per_group_blocks
        self._meta_bg = struct.unpack_from("<I", sb, 260)[0] if features & _META_BG else None
        size = struct.unpack_from("<H", sb, 254)[0] if features & _64BIT else 32
        if size not in (32, 64, 128, 256, 512, 1024):
            raise Damaged(f"its group descriptors have {size} bytes")
        self._descriptor = size
        self.kind = _generation(compatible, features, read_only)
        self.uuid = str(uuid.UUID(bytes=sb[104:120]))
        self.label = sb[120:136].partition(b"\0")[0].decode(errors="replace")
        self.remarks = tuple(_remarks(sb, features, blocks * self.block_size, storage.size))
        self._inode = functools.lru_cache(maxsize=4096)(self._read_inode)
        self._table = functools.lru_cache(maxsize=1024)(self._read_table)

    # -- inodes

    def root(self) -> Node:
        root = self._inode(ROOT)
        if not root.is_dir:
            raise Damaged("its root is not a directory")
        return root

    def node(self, number: int) -> Node:
        return self._inode(number)

    def _read_table(self, group: int) -> int:
        """The first block of a group's inode table."""
        per_block = self.block_size // self._descriptor
        index, within = divmod(group, per_block)
        if self._meta_bg is not None and index >= self._meta_bg:
            first = index * per_block * self._per_group_blocks + self._first
            # a group with a backup of the superblock has its descriptors behind that
            block = first + _has_backup(index * per_block)
        else:
            block = self._first + 1 + index
        raw = self._storage.read(
            block * self.block_size + within * self._descriptor, self._descriptor
        )
        table = int.from_bytes(raw[8:12], "little")
        if self._descriptor >= 64:
            table |= int.from_bytes(raw[40:44], "little") << 32
        return table

    def raw_inode(self, number: int) -> bytes:
        """The inode as it lies on the disk."""
        if not 0 < number <= self._inodes:
            raise Damaged(f"it has no inode {number}")
        group, index = divmod(number - 1, self._per_group)
        offset = self._table(group) * self.block_size + index * self._inode_size
        return self._storage.read(offset, self._inode_size)

    def _read_inode(self, number: int) -> _Inode:
        raw = self.raw_inode(number)
        mode, owner, low = struct.unpack_from("<HHI", raw)
        flags = struct.unpack_from("<I", raw, 32)[0]
        high = struct.unpack_from("<I", raw, 108)[0]
        owner |= struct.unpack_from("<H", raw, 120)[0] << 16
        extra = struct.unpack_from("<H", raw, 128)[0] if len(raw) > 130 else 0
        tail = raw[128 + extra :] if len(raw) > 130 and extra <= len(raw) - 128 else b""
        return _Inode(number, mode, low | high << 32, owner, flags, raw[40:100], tail)

    # -- content

    def names(self, directory: Node) -> Mapping[str, int]:
        inode = self._inode(directory.number)
        if inode.flags & _INODE_ENCRYPTED:
            raise Unreadable("the directory is encrypted")
        found: dict[str, int] = {}
        if inode.flags & _INODE_INLINE:
            first, rest = self._inline(inode)
            # the first four bytes are the parent's number
            _entries(first[4:], found, self._budget)
            _entries(rest, found, self._budget)
            return found
        if inode.size > _DIRECTORY_MOST or inode.size % self.block_size:
            raise Damaged(f"a directory has {inode.size} bytes")
        for piece in self.stream(inode):
            for at in range(0, len(piece), self.block_size):
                _entries(piece[at : at + self.block_size], found, self._budget)
        return found

    def link(self, node: Node) -> str:
        inode = self._inode(node.number)
        if inode.flags & _INODE_ENCRYPTED:
            raise Unreadable("the link is encrypted")
        if inode.size > LINK_MOST:
            raise Damaged(f"a symbolic link has {inode.size} bytes")
        if inode.size < 60 and not inode.flags & (_INODE_EXTENTS | _INODE_INLINE):
            raw = inode.block[: inode.size]
        else:
            raw = b"".join(self.stream(inode))
        return raw.decode(errors="backslashreplace")

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        inode = self._inode(node.number)
        if inode.flags & _INODE_ENCRYPTED:
            raise Unreadable("the file is encrypted")
        if inode.flags & _INODE_INLINE:
            yield b"".join(self._inline(inode))[offset : inode.size]
            return
        runs = self._runs(inode)
        yield from content(self._storage, self._budget, runs, self.block_size, inode.size, offset)

    def _inline(self, inode: _Inode) -> tuple[bytes, bytes]:
        """Inline data: 60 bytes in the inode, the rest as attribute system.data."""
        rest = b""
        if inode.tail[:4] == b"\x00\x00\x02\xea":
            entries, at = inode.tail[4:], 0
            while at + 16 <= len(entries) and entries[at : at + 4] != bytes(4):
                length, kind, start, _, size = struct.unpack_from("<BBHII", entries, at)
                if kind == 7 and entries[at + 16 : at + 16 + length] == b"data":
                    rest = entries[start : start + size]
                at += (16 + length + 3) // 4 * 4
        if inode.size > len(inode.block) + len(rest):
            raise Damaged(f"inline data of {inode.size} bytes is not in the inode")
        return inode.block[: min(60, inode.size)], rest[: max(0, inode.size - 60)]

    # -- where the blocks are

    def extents(self, node: Node) -> Iterator[Extent]:
        inode = self._inode(node.number)
        if inode.flags & _INODE_INLINE or (inode.is_link and inode.size < 60):
            return
        yield from places(self._runs(inode), self.block_size)

    def _runs(self, inode: _Inode) -> Iterator[Run]:
        """Ascending runs of blocks."""
        if inode.flags & _INODE_EXTENTS:
            depth = struct.unpack_from("<H", inode.block, 6)[0]
            if depth > 5:
                raise Damaged("an extent tree is deeper than 5")
            yield from self._extents(inode.block, depth, 0, 1 << 32)
        else:
            pointers = struct.unpack("<15I", inode.block)
            position = 0
            for pointer in pointers[:12]:
                yield position, 1, self._inside(pointer, 1)
                position += 1
            for level, pointer in enumerate(pointers[12:], 1):
                yield from self._indirect(pointer, level, position)
                position += (self.block_size // 4) ** level

    def _extents(self, raw: bytes, depth: int, low: int, high: int) -> Iterator[Run]:
        self._budget.charge()
        magic, count, _, stated = struct.unpack_from("<HHHH", raw)
        if magic != _EXTENT_MAGIC or stated != depth or 12 * (count + 1) > len(raw):
            raise Damaged("a node of an extent tree is damaged")
        entries = [raw[12 * (n + 1) : 12 * (n + 2)] for n in range(count)]
        starts = [int.from_bytes(entry[:4], "little") for entry in entries]
        for number, (entry, start) in enumerate(zip(entries, starts, strict=True)):
            end = starts[number + 1] if number + 1 < count else high
            if not low <= start < end <= high:
                raise Damaged("the extents of a file are not in order")
            if depth:
                lower, upper = struct.unpack_from("<IH", entry, 4)
                block = self._inside(lower | upper << 32, 1)
                node = self._storage.read(block * self.block_size, self.block_size)
                yield from self._extents(node, depth - 1, start, end)
                continue
            length, upper, lower = struct.unpack_from("<HHI", entry, 4)
            written = length <= 32768
            length = length if written else length - 32768
            if not length or start + length > end:
                raise Damaged("the extents of a file overlap")
            physical = self._inside(lower | upper << 32, length)
            yield start, length, physical if written else 0

    def _indirect(self, pointer: int, level: int, position: int) -> Iterator[Run]:
        each = (self.block_size // 4) ** (level - 1)
        if not pointer:
            yield position, each * (self.block_size // 4), 0
            return
        block = self._inside(pointer, 1)
        raw = self._storage.read(block * self.block_size, self.block_size)
        for inner in struct.unpack(f"<{self.block_size // 4}I", raw):
            if level == 1:
                yield position, 1, self._inside(inner, 1)
            else:
                yield from self._indirect(inner, level - 1, position)
            position += each

    def _inside(self, block: int, count: int) -> int:
        if block + count > self._blocks:
            raise Damaged(f"a file has its content in block {block}, outside of the file system")
        return block


def _generation(compatible: int, features: int, read_only: int) -> str:
    """As libblkid tells them apart: by features that the older ones lack."""
    if features & ~0x16 or read_only & ~0x7:
        return "ext4"
    return "ext3" if compatible & 0x4 else "ext2"


def _remarks(sb: bytes, features: int, size: int, room: int) -> Iterator[str]:
    state = struct.unpack_from("<H", sb, 58)[0]
    if features & _NEEDS_RECOVERY:
        yield "its journal holds changes that were not written back"
    if state & 2:
        yield "it is marked as having errors"
    if size > room:
        yield f"it has {size} bytes, more than its partition of {room} bytes"


def _has_backup(group: int) -> bool:
    """Whether a group has a copy of the superblock (sparse_super)."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def _entries(raw: bytes, found: dict[str, int], budget: Budget) -> None:
    """Add a block's directory entries. Blocks of a hash tree look like one empty entry."""
    at = 0
    while at + 8 <= len(raw):
        number, length, size, _ = struct.unpack_from("<IHBB", raw, at)
        if length in (0, 65535):
            length = 65536  # how blocks of 64 KiB say it
        if length < 8 or length % 4 or at + length > len(raw) or size + 8 > length:
            raise Damaged("an entry of a directory is damaged")
        name = raw[at + 8 : at + 8 + size]
        if number and name not in (b".", b".."):
            budget.charge()
            if not name or b"/" in name or b"\0" in name:
                raise Damaged(f"a directory has an entry named {name!r}")
            found[name.decode(errors="backslashreplace")] = number
            if len(found) > NAMES_MOST:
                raise Damaged(f"a directory has more than {NAMES_MOST} entries")
        at += length
