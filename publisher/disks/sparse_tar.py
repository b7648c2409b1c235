"""A raw disk as the one member of a GNU tar archive: holes take no room in it.

The member is in the old GNU sparse format (type `S`, magic "ustar  "), the only
one that `tar --format=oldgnu --sparse` writes. Layout: GNU tar manual, "Storing
Sparse Files" and "Basic Tar Format" (struct posix_header, oldgnu_header, sparse).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from publisher.disks import extents as ext
from publisher.disks.raw import Reader
from publisher.model import MIB, SECTOR, Disk, Extent

BLOCK = 512
RECORD = 20 * BLOCK
CHUNK = 4 * MIB

_MAGIC = b"ustar  \0"
_INLINE = 4
_EXTENSION = 21
_LARGEST_OCTAL = 8**11 - 1
_SPARSE, _REGULAR = b"S", (b"0", b"\0")


class TarError(ValueError):
    """The archive is not one that `read` understands."""


class Input(Protocol):
    """What `read` needs of a file, such as an open gzip stream."""

    def read(self, size: int, /) -> bytes: ...


def _number(value: int, width: int = 12) -> bytes:
    """Octal with a NUL at the end, or base-256 with the top bit set where that is too short."""
    if value <= min(_LARGEST_OCTAL, 8 ** (width - 1) - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _entries(disk: Disk) -> tuple[list[Extent], list[Extent]]:
    """The extents to store and the sparse map: the same, and an empty entry at
    the end of a disk that ends in a hole, without which tar would cut it short."""
    stored = list(ext.align(disk.extents, SECTOR, disk.size))
    if stored and stored[-1].end == disk.size:
        return stored, stored
    return stored, [*stored, Extent(disk.size, 0)]


def _pairs(entries: list[Extent], room: int) -> bytes:
    body = b"".join(_number(e.offset) + _number(e.length) for e in entries)
    return body.ljust(room * 24, b"\0")


def headers(disk: Disk, name: str = "disk.raw") -> bytes:
    """The header block and all extension blocks of the sparse map.

    Owner, time and mode are fixed, so that the same disk gives the same bytes."""
    stored, entries = _entries(disk)
    inline, rest = entries[:_INLINE], entries[_INLINE:]
    header = bytearray(
        struct.pack(
            "<100s8s8s8s12s12s8s1s100s8s32s32s8s8s12s12s12s4sx",
            name.encode(),
            _number(0o644, 8),
            _number(0, 8),
            _number(0, 8),
            _number(sum(e.length for e in stored)),
            _number(0),
            b" " * 8,
            _SPARSE,
            b"",
            _MAGIC,
            b"root",
            b"root",
            b"",
            b"",
            b"",
            b"",
            b"",
            b"",
        )
    )
    header += _pairs(inline, _INLINE) + (b"\1" if rest else b"\0") + _number(disk.size)
    header = header.ljust(BLOCK, b"\0")
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [bytes(header)]
    while rest:
        entries, rest = rest[:_EXTENSION], rest[_EXTENSION:]
        more = b"\1" if rest else b"\0"
        blocks.append((_pairs(entries, _EXTENSION) + more).ljust(BLOCK, b"\0"))
    return b"".join(blocks)


def archive_size(disk: Disk, name: str = "disk.raw") -> int:
    """Bytes of the whole archive, known before the disk is read."""
    stored, _ = _entries(disk)
    size = len(headers(disk, name)) + sum(e.length for e in stored)
    return -(-(size + 2 * BLOCK) // RECORD) * RECORD


def write(reader: Reader, name: str = "disk.raw") -> Iterator[bytes]:
    """The archive in pieces of at most 4 MiB; only the disk's extents are read."""
    disk = reader.disk
    head = headers(disk, name)
    yield head
    written = len(head)
    for extent in _entries(disk)[0]:
        for at in range(extent.offset, extent.end, CHUNK):
            data = reader.read(at, min(CHUNK, extent.end - at))
            written += len(data)
            yield data
    yield bytes(archive_size(disk, name) - written)


@dataclass(frozen=True, slots=True)
class Member:
    """The header of an archive's first member. `extents` is its sparse map (all
    of it for a plain file); `oldgnu` says if the magic is GNU's."""

    name: str
    size: int
    extents: tuple[Extent, ...]
    oldgnu: bool

    @property
    def stored(self) -> int:
        return sum(e.length for e in self.extents)


def _parse(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError as error:
        raise TarError(f"not a number in a tar header: {field!r}") from error


def _exactly(source: Input, size: int) -> bytes:
    data = source.read(size)
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise TarError("the archive ends too early")
        data += more
    return data


def _parse_pairs(data: bytes) -> list[Extent]:
    found = []
    for at in range(0, len(data), 24):
        if not data[at : at + 24].strip(b"\0"):
            break
        found.append(Extent(_parse(data[at : at + 12]), _parse(data[at + 12 : at + 24])))
    return found


def read_member(source: Input) -> Member:
    """Parse the first member's header. Raises TarError."""
    header = _exactly(source, BLOCK)
    blank = header[:148] + b" " * 8 + header[156:]
    if _parse(header[148:156]) != sum(blank):
        raise TarError("the checksum of the tar header is wrong")
    name = header[:100].split(b"\0")[0].decode(errors="replace")
    oldgnu = header[257:265] == _MAGIC
    size = _parse(header[124:136])
    kind = header[156:157]
    if kind in _REGULAR:
        return Member(name, size, (Extent(0, size),), oldgnu)
    if kind != _SPARSE or not oldgnu:
        raise TarError(f"the member {name!r} has the type {kind!r}")
    entries = _parse_pairs(header[386:482])
    more = header[482] != 0
    while more:
        block = _exactly(source, BLOCK)
        entries += _parse_pairs(block[:504])
        more = block[504] != 0
    member = Member(name, _parse(header[483:495]), tuple(e for e in entries if e.length), oldgnu)
    if member.stored != size:
        raise TarError("the sparse map and the size of the member differ")
    position = 0
    for extent in member.extents:
        if extent.offset < position or extent.end > member.size:
            raise TarError("the sparse map overlaps or exceeds the file")
        position = extent.end
    return member


def read(source: Input, member: Member) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the member's data in pieces of at most 4 MiB; then
    checks that nothing but the end of the archive follows. Raises TarError."""
    for extent in member.extents:
        for at in range(extent.offset, extent.end, CHUNK):
            yield at, _exactly(source, min(CHUNK, extent.end - at))
    _exactly(source, -member.stored % BLOCK)
    if _exactly(source, 2 * BLOCK).strip(b"\0"):
        raise TarError("the archive holds more than one member")
    while rest := source.read(CHUNK):
        if rest.strip(b"\0"):
            raise TarError("something follows the end of the archive")
