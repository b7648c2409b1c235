"""Partition tables of foreign disks: where the root is, and room made behind the last partition."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.build.partition import BIOS_BOOT, ESP
from publisher.errors import BuildError
from publisher.model import MIB, SECTOR, Extent

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_MAGIC = b"EFI PART"
_TABLE_MAX = 1 * MIB
_EXTENDED = (0x05, 0x0F, 0x85)
_EXT_MAGIC = b"\x53\xef"


@dataclass(frozen=True, slots=True)
class _Gpt:
    """A header's fields that are not fixed (UEFI 2.10, table 5.5); LBAs in sectors."""

    here: int
    other: int
    first: int
    last: int
    disk: bytes
    table: int
    entries: int
    entry: int
    table_crc: int
    revision: int

    @property
    def table_bytes(self) -> int:
        return self.entries * self.entry

    @property
    def table_sectors(self) -> int:
        return -(-self.table_bytes // SECTOR)

    def pack(self) -> bytes:
        def packed(crc: int) -> bytes:
            return _HEADER.pack(
                *(_MAGIC, self.revision, _HEADER.size, crc, 0, self.here, self.other),
                *(self.first, self.last, self.disk),
                *(self.table, self.entries, self.entry, self.table_crc),
            )

        return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _read_gpt(handle: int) -> tuple[_Gpt, bytes] | None:
    """The first header and its table; None when there is none for 512-byte sectors.

    Raises BuildError for a damaged one."""
    sector = os.pread(handle, SECTOR, SECTOR)
    if not sector.startswith(_MAGIC):
        return None
    _magic, revision, length, crc, _, *rest = _HEADER.unpack(sector[: _HEADER.size])
    here, other, first, last, disk, table, entries, entry, table_crc = rest
    if not _HEADER.size <= length <= SECTOR or entry < 128 or entries * entry > _TABLE_MAX:
        raise BuildError("the disk's partition table is damaged: its header makes no sense")
    blank = sector[:16] + bytes(4) + sector[20:length]
    content = os.pread(handle, entries * entry, table * SECTOR)
    if zlib.crc32(blank) != crc or zlib.crc32(content) != table_crc or here != 1:
        raise BuildError("the disk's partition table is damaged: its checksum is wrong")
    gpt = _Gpt(here, other, first, last, disk, table, entries, entry, table_crc, revision)
    return gpt, content


def grow(path: Path, size: int) -> None:
    """Make a raw disk `size` bytes large, which is not less than it has, and move
    the GPT's backup to its new end, so that the system inside may grow its root.

    Raises BuildError when the table is damaged."""
    with path.open("r+b") as file:
        file.truncate(size)
        handle = file.fileno()
        found = _read_gpt(handle)
        end = size // SECTOR - 1
        if found is None or found[0].other == end:
            return
        gpt, table = found
        if SECTOR <= gpt.other * SECTOR < size:
            old = os.pread(handle, SECTOR, gpt.other * SECTOR)
            if old.startswith(_MAGIC):
                os.pwrite(handle, bytes(SECTOR), gpt.other * SECTOR)
        moved = end - gpt.table_sectors
        primary = replace(gpt, other=end, last=moved - 1)
        backup = replace(primary, here=end, other=1, table=moved)
        os.pwrite(handle, table.ljust(gpt.table_sectors * SECTOR, b"\0"), moved * SECTOR)
        os.pwrite(handle, backup.pack(), end * SECTOR)
        _protect(handle, end)
        os.pwrite(handle, primary.pack(), SECTOR)
        os.fsync(handle)


def _protect(handle: int, end: int) -> None:
    """The protective MBR's entry covers the whole disk; a hybrid one is left alone."""
    entry = bytearray(os.pread(handle, 16, 446))
    others = os.pread(handle, 48, 462)
    if entry[4] == 0xEE and not any(others):
        struct.pack_into("<I", entry, 12, min(end, 0xFFFFFFFF))
        os.pwrite(handle, bytes(entry), 446)


def partitions(path: Path) -> list[Extent]:
    """The places of a raw disk's partitions, without the loaders' own; the whole
    disk when it has no table."""
    with path.open("rb") as file:
        handle = file.fileno()
        size = os.fstat(handle).st_size
        found = _read_gpt(handle)
        if found is not None:
            return _of_gpt(*found)
        sector = os.pread(handle, SECTOR, 0)
        if sector[510:] == b"\x55\xaa" and not _is_ext(handle, 0):
            return _of_mbr(sector)
        return [Extent(0, size)]


def has_esp(path: Path) -> bool:
    """Whether a raw disk has an EFI system partition."""
    with path.open("rb") as file:
        found = _read_gpt(file.fileno())
        if found is None:
            sector = os.pread(file.fileno(), SECTOR, 0)
            return sector[510:] == b"\x55\xaa" and 0xEF in sector[450:510:16]
        gpt, table = found
        starts = range(0, gpt.table_bytes, gpt.entry)
        return any(table[at : at + 16] == ESP.bytes_le for at in starts)


def _of_gpt(gpt: _Gpt, table: bytes) -> list[Extent]:
    found = []
    for at in range(0, gpt.table_bytes, gpt.entry):
        kind = uuid.UUID(bytes_le=table[at : at + 16])
        first, last = struct.unpack_from("<QQ", table, at + 32)
        if kind.int and kind not in (ESP, BIOS_BOOT) and last >= first:
            found.append(Extent(first * SECTOR, (last - first + 1) * SECTOR))
    return found


def _of_mbr(sector: bytes) -> list[Extent]:
    found = []
    for at in range(446, 510, 16):
        kind = sector[at + 4]
        first, count = struct.unpack_from("<II", sector, at + 8)
        if kind and kind not in _EXTENDED and count:
            found.append(Extent(first * SECTOR, count * SECTOR))
    return found


def _is_ext(handle: int, offset: int) -> bool:
    return os.pread(handle, 2, offset + 1024 + 56) == _EXT_MAGIC


def ext_partitions(path: Path) -> list[Extent]:
    """Those partitions that hold ext2, ext3 or ext4, the largest first."""
    with path.open("rb") as file:
        found = [e for e in partitions(path) if _is_ext(file.fileno(), e.offset)]
    return sorted(found, key=lambda extent: -extent.length)
