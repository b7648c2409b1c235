"""What the items of Btrfs's trees say."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from publisher.proof.inspect.btrfs.superblock import Pointer
from publisher.proof.inspect.btrfs.trees import Item, Key
from publisher.proof.inspect.budget import Budget, Damaged

INODE, INODE_REFERENCE = 1, 12
DIRECTORY_ITEM, DIRECTORY_INDEX = 84, 96
EXTENT_DATA = 108
ROOT_ITEM, ROOT_BACK_REFERENCE, ROOT_REFERENCE = 132, 144, 156
_INLINE, _REGULAR, _PREALLOCATED = 0, 1, 2
_INODE_SIZE, _ROOT_SIZE = 160, 239
_INLINE_HEAD, _EXTENT_SIZE = 21, 53
_NAME_MOST = 255


@dataclass(frozen=True, slots=True)
class Inode:
    size: int
    owner: int
    mode: int
    changed: int
    """Seconds since the epoch."""


def inode(item: Item) -> Inode:
    if len(item.data) < _INODE_SIZE:
        raise Damaged("an inode is cut short")
    size = struct.unpack_from("<Q", item.data, 16)[0]
    owner, _, mode = struct.unpack_from("<III", item.data, 44)
    (changed,) = struct.unpack_from("<q", item.data, 124)
    return Inode(size, owner, mode, changed)


@dataclass(frozen=True, slots=True)
class Root:
    """A tree of the root tree. `directory`: the inode of a subvolume's root."""

    pointer: Pointer
    directory: int
    used: bool
    """Or is it being deleted."""


def root(item: Item) -> Root:
    if len(item.data) < _ROOT_SIZE:
        raise Damaged("a tree's root item is cut short")
    generation, directory, logical = struct.unpack_from("<QQQ", item.data, 160)
    references = struct.unpack_from("<I", item.data, 216)[0]
    return Root(Pointer(logical, generation, item.data[238]), directory, references > 0)


def entries(item: Item, budget: Budget) -> list[tuple[str, Key]]:
    """The names of a directory's item, several ones with the same hash, and what each
    leads to: an inode or a subvolume."""
    found: list[tuple[str, Key]] = []
    at = 0
    while at < len(item.data):
        budget.charge()
        if at + 30 > len(item.data):
            raise Damaged("an entry of a directory is cut short")
        target = struct.unpack_from("<QBQ", item.data, at)
        extra, length, _ = struct.unpack_from("<HHB", item.data, at + 25)
        name = item.data[at + 30 : at + 30 + length]
        at += 30 + length + extra
        if at > len(item.data):
            raise Damaged("an entry of a directory is cut short")
        found.append((_name(name), target))
    return found


def reference(item: Item) -> tuple[int, str]:
    """Of a subvolume: in which directory it is, and its name there."""
    if len(item.data) < 18:
        raise Damaged("a reference to a subvolume is cut short")
    directory, _, length = struct.unpack_from("<QQH", item.data)
    return directory, _name(item.data[18 : 18 + length])


def name_of(item: Item) -> str:
    """The first name in a reference of an inode."""
    if len(item.data) < 10:
        raise Damaged("the reference of an inode is cut short")
    length = struct.unpack_from("<H", item.data, 8)[0]
    return _name(item.data[10 : 10 + length])


def _name(raw: bytes) -> str:
    if not 0 < len(raw) <= _NAME_MOST or b"/" in raw or b"\0" in raw or raw in (b".", b".."):
        raise Damaged(f"a directory has an entry named {raw[:80]!r}")
    return raw.decode(errors="backslashreplace")


class Data(NamedTuple):
    """A part of a file from byte `start` on, `length` bytes long: the bytes from `skip`
    on of what lies at `logical`, `packed` bytes, compressed by `compression` (0: not)
    from `unpacked`. Zeros without `logical`. `inline`: those bytes themselves."""

    start: int
    length: int
    logical: int
    packed: int
    unpacked: int
    skip: int
    compression: int
    inline: bytes | None = None


def data(item: Item) -> Data:
    raw, start = item.data, item.key[2]
    if len(raw) < _INLINE_HEAD:
        raise Damaged("an extent of a file is cut short")
    unpacked, compression, encryption, other, kind = struct.unpack_from("<QBBHB", raw, 8)
    if encryption or other:
        raise Damaged("an extent of a file is encoded in a way that nobody writes")
    if kind == _INLINE:
        inline = raw[_INLINE_HEAD:]
        if start or (not compression and unpacked > len(inline)):
            raise Damaged("an extent inside of an inode is damaged")
        place = item.place + _INLINE_HEAD
        return Data(0, unpacked, place, len(inline), unpacked, 0, compression, inline)
    if kind not in (_REGULAR, _PREALLOCATED) or len(raw) < _EXTENT_SIZE:
        raise Damaged("an extent of a file is damaged")
    logical, packed, skip, length = struct.unpack_from("<4Q", raw, _INLINE_HEAD)
    if not length or start + length >= 1 << 63 or skip + length > unpacked:
        raise Damaged("an extent of a file is damaged")
    if logical and not compression and skip + length > packed:
        raise Damaged("an extent of a file is longer than what it lies in")
    if kind == _PREALLOCATED:
        logical = 0
    return Data(start, length, logical, packed, unpacked, skip, compression)
