"""A GUID partition table, as bytes (UEFI specification 2.10, chapter 5)."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.model import MIB, SECTOR

BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
ROOT = {
    "x86_64": uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    "aarch64": uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
}
"""Root partitions of the Discoverable Partitions Specification."""

_ENTRIES = 128
_ENTRY = 128
_TABLE = _ENTRIES * _ENTRY // SECTOR


@dataclass(frozen=True, slots=True)
class Partition:
    """`number` is the one in the table; offset and length in bytes."""

    number: int
    kind: uuid.UUID
    guid: uuid.UUID
    name: str
    offset: int
    length: int


def last_usable(size: int) -> int:
    """The first byte behind the room for partitions, a multiple of 1 MiB."""
    return (size - (_TABLE + 1) * SECTOR) // MIB * MIB


def protective_mbr(size: int) -> bytes:
    sectors = min(size // SECTOR - 1, 0xFFFFFFFF)
    # one entry of type 0xee over the whole disk, marked as the specification says
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _header(
    disk: uuid.UUID, size: int, table_crc: int, *, here: int, other: int, table: int
) -> bytes:
    def pack(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x00010000, 92, crc, 0, here, other),
            *(2 + _TABLE, size // SECTOR - 2 - _TABLE, disk.bytes_le),
            *(table, _ENTRIES, _ENTRY, table_crc),
        )

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def table(disk: uuid.UUID, size: int, partitions: Sequence[Partition]) -> tuple[bytes, bytes]:
    """(bytes from offset 0: MBR, header, entries; bytes that end the disk)."""
    entries = bytearray(_ENTRIES * _ENTRY)
    for partition in partitions:
        struct.pack_into(
            "<16s16sQQQ72s",
            entries,
            (partition.number - 1) * _ENTRY,
            partition.kind.bytes_le,
            partition.guid.bytes_le,
            partition.offset // SECTOR,
            (partition.offset + partition.length) // SECTOR - 1,
            0,
            partition.name.encode("utf-16-le"),
        )
    crc = zlib.crc32(entries)
    last = size // SECTOR - 1
    first = _header(disk, size, crc, here=1, other=last, table=2)
    backup = _header(disk, size, crc, here=last, other=1, table=last - _TABLE)
    return protective_mbr(size) + first + bytes(entries), bytes(entries) + backup
