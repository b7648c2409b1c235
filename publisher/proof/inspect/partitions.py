"""Partition tables: GPT (UEFI specification 2.10, chapter 5) and MBR with its
extended partitions. Strict: what contradicts the format is told, never guessed at."""

from __future__ import annotations

import itertools
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from publisher.model import SECTOR
from publisher.proof.inspect.budget import Damaged
from publisher.proof.inspect.storage import Storage

Scheme: TypeAlias = Literal["gpt", "mbr", "none"]

BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
PREP = "9e1a2d38-c612-4316-aa26-8b49521e5a8b"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
SWAP = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
MBR_ESP, MBR_SWAP = "0xef", "0x82"
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_ENTRIES_MOST = 1024
_LOGICAL_MOST = 128
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")


@dataclass(frozen=True, slots=True)
class Partition:
    """`number` as in the table and in device names; `kind` is the type's GUID, or
    the MBR's type as 0x83; `guid` is the PARTUUID; offset and length in bytes."""

    number: int
    kind: str
    guid: str
    name: str
    offset: int
    length: int
    active: bool = False

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Table:
    """`boot_code` are the first 440 bytes of the disk; `problems` what contradicts
    the format, `remarks` what works and is not as it should be."""

    scheme: Scheme
    partitions: tuple[Partition, ...] = ()
    boot_code: bytes = b""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def read_table(disk: Storage) -> Table:
    """The disk's table; scheme "none" where there is neither a GPT nor an MBR."""
    if disk.size < 2 * SECTOR:
        return Table("none", problems=(f"the disk has only {disk.size} bytes",))
    first = disk.read(0, SECTOR)
    code = first[:440]
    signed = first[510:] == b"\x55\xaa"
    types = [first[446 + 16 * number + 4] for number in range(4)] if signed else []
    if disk.read(SECTOR, 8) == b"EFI PART" or _PROTECTIVE in types:
        return _gpt(disk, code)
    if signed and any(types) and not _boot_sector_of_file_system(first):
        return _mbr(disk, first)
    return Table("none", boot_code=code)


def _boot_sector_of_file_system(first: bytes) -> bool:
    return first[54:59] in (b"FAT12", b"FAT16") or first[82:87] == b"FAT32"


def _gpt(disk: Storage, code: bytes) -> Table:
    last = disk.size // SECTOR - 1
    remarks: list[str] = []
    try:
        partitions, backup = _header(disk, 1)
    except Damaged as error:
        problem = f"the GUID partition table is damaged: {error}"
        try:
            _header(disk, last)
        except Damaged:
            return Table("gpt", boot_code=code, problems=(f"{problem}; its backup too",))
        return Table(
            "gpt", boot_code=code, problems=(f"{problem}; its backup at the end is sound",)
        )
    if backup != last:
        remarks.append(f"the backup of the partition table is at sector {backup}, not at the end")
    else:
        try:
            copy, _ = _header(disk, backup)
        except Damaged as error:
            remarks.append(f"the backup of the partition table is damaged: {error}")
        else:
            if copy != partitions:
                remarks.append("the backup of the partition table tells of other partitions")
    return Table("gpt", partitions, code, tuple(_overlaps(partitions)), tuple(remarks))


def _header(disk: Storage, sector: int) -> tuple[tuple[Partition, ...], int]:
    """The partitions that the header at `sector` tells of, and the other header's sector."""
    raw = disk.read(sector * SECTOR, SECTOR)
    fields = _HEADER.unpack_from(raw)
    magic, _revision, size, crc, _reserved, here, other = fields[:7]
    first, last, _disk, table, count, entry, table_crc = fields[7:]
    if magic != b"EFI PART":
        raise Damaged(f"sector {sector} does not begin with EFI PART")
    if not 92 <= size <= SECTOR:
        raise Damaged(f"the header says that it has {size} bytes")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc:
        raise Damaged("the header's checksum is wrong")
    if here != sector:
        raise Damaged(f"the header says that it is at sector {here}")
    if not 128 <= entry <= 4096 or entry & (entry - 1) or not 1 <= count <= _ENTRIES_MOST:
        raise Damaged(f"the table has {count} entries of {entry} bytes")
    entries = disk.read(table * SECTOR, count * entry)
    if zlib.crc32(entries) != table_crc:
        raise Damaged("the checksum of the entries is wrong")
    found = []
    for number in range(count):
        kind, guid, start, end, _flags, name = struct.unpack_from(
            "<16s16sQQQ72s", entries, number * entry
        )
        if not any(kind):
            continue
        if (end + 1) * SECTOR > disk.size:
            raise Damaged(
                f"partition {number + 1} ends at sector {end}, and the disk has only "
                f"{disk.size // SECTOR}: it was cut short"
            )
        if not first <= start <= end <= last:
            raise Damaged(f"partition {number + 1} reaches from sector {start} to {end}")
        found.append(
            Partition(
                number + 1,
                str(uuid.UUID(bytes_le=kind)),
                str(uuid.UUID(bytes_le=guid)),
                name.decode("utf-16-le", "replace").partition("\0")[0],
                start * SECTOR,
                (end + 1 - start) * SECTOR,
            )
        )
    return tuple(found), other


def _overlaps(partitions: tuple[Partition, ...]) -> Iterator[str]:
    ordered = sorted(partitions, key=lambda partition: partition.offset)
    for one, next_ in itertools.pairwise(ordered):
        if one.end > next_.offset:
            yield f"partitions {one.number} and {next_.number} overlap"


def _mbr(disk: Storage, first: bytes) -> Table:
    serial = int.from_bytes(first[440:444], "little")
    found: list[Partition] = []
    problems: list[str] = []
    extended = 0

    def add(number: int, entry: bytes, base: int) -> None:
        kind, start, count = entry[4], *struct.unpack_from("<II", entry, 8)
        offset, length = (base + start) * SECTOR, count * SECTOR
        if entry[0] not in (0, 0x80):
            problems.append(f"partition {number} has the boot flag {entry[0]:#x}")
        if not count or offset + length > disk.size or not offset:
            problems.append(f"partition {number} reaches beyond the end of the disk")
            return
        guid = f"{serial:08x}-{number:02x}"
        active = entry[0] == 0x80
        found.append(Partition(number, f"{kind:#04x}", guid, "", offset, length, active))

    for number in range(4):
        entry = first[446 + 16 * number : 462 + 16 * number]
        if entry[4] in _EXTENDED:
            extended = struct.unpack_from("<I", entry, 8)[0]
        elif entry[4]:
            add(number + 1, entry, 0)
    number, position = 5, extended
    while position:
        if number - 5 >= _LOGICAL_MOST:
            problems.append(f"there are more than {_LOGICAL_MOST} logical partitions")
            break
        if (position + 1) * SECTOR > disk.size:
            problems.append("the chain of logical partitions leaves the disk")
            break
        sector = disk.read(position * SECTOR, SECTOR)
        if sector[510:] != b"\x55\xaa":
            problems.append(f"sector {position} of the logical partitions has no signature")
            break
        if sector[450]:
            add(number, sector[446:462], position)
        step = struct.unpack_from("<I", sector, 470)[0] if sector[466] else 0
        if step and extended + step <= position:
            problems.append("the chain of logical partitions runs in a circle")
            break
        position = extended + step if step else 0
        number += 1
    problems += _overlaps(tuple(found))
    return Table("mbr", tuple(found), first[:440], tuple(problems))
