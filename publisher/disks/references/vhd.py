"""The parent of a differencing VHD or VHDX (Microsoft, "Virtual Hard Disk Image Format
Specification" and [MS-VHDX]), which QEMU reads as if it had none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.disks.detect import Part
from publisher.disks.references import text
from publisher.model import SECTOR

_DIFFERENCING = 4
_REGION_TABLES = (192 * 1024, 256 * 1024)
_METADATA = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_HAS_PARENT = 2
_ENTRIES_MOST = 2047
_LOCATOR_MOST = 64 * 1024


def references(part: Part) -> Iterator[str]:
    head = part.read(0, SECTOR).ljust(SECTOR, b"\0")
    header_at, kind = struct.unpack_from(">16xQ36xI", head)
    if kind == _DIFFERENCING:
        yield text.name(part.read(header_at + 64, 512), "utf-16-be")


def references_of_vhdx(part: Part) -> Iterator[str]:
    for table in _REGION_TABLES:
        metadata = _REGIONS.find(part, table, _METADATA)
        parameters = metadata and _ITEMS.find(part, metadata, _PARAMETERS)
        if metadata and parameters:
            flags = part.read(metadata + parameters + 4, 4)
            if int.from_bytes(flags, "little") & _HAS_PARENT:
                yield _parent(part, metadata)
                return


@dataclass(frozen=True, slots=True)
class _Table:
    """Of a VHDX: entries of 32 bytes, which begin with a GUID and an offset."""

    count: struct.Struct
    entry: struct.Struct
    start: int

    def find(self, part: Part, at: int, wanted: bytes) -> int:
        """The offset in the first entry of a kind, 0 without one."""
        (count,) = self.count.unpack(part.read(at, self.count.size).ljust(self.count.size, b"\0"))
        raw = part.read(at + self.start, 32 * min(count, _ENTRIES_MOST))
        entries = self.entry.iter_unpack(raw[: len(raw) // 32 * 32])
        return next((offset for kind, offset in entries if kind == wanted), 0)


_REGIONS = _Table(struct.Struct("<8xI"), struct.Struct("<16sQ8x"), 16)
_ITEMS = _Table(struct.Struct("<10xH"), struct.Struct("<16sI12x"), 32)


def _parent(part: Part, metadata: int) -> str:
    locator = _ITEMS.find(part, metadata, _LOCATOR)
    raw = part.read(metadata + locator, _LOCATOR_MOST) if locator else b""
    pairs = raw[20 : 20 + 12 * int.from_bytes(raw[18:20], "little")]
    for key_at, value_at, key_size, size in struct.iter_unpack(
        "<IIHH", pairs[: len(pairs) // 12 * 12]
    ):
        if text.name(raw[key_at : key_at + key_size], "utf-16-le").endswith("_path"):
            return text.name(raw[value_at : value_at + size], "utf-16-le")
    return text.UNNAMED
