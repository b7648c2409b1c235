"""Fixed VHD: a raw disk followed by a footer of 512 bytes.

Fields and checksum as in Microsoft's "Virtual Hard Disk Image Format
Specification", version 1.0; all numbers are big-endian.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from publisher.disks import raw
from publisher.errors import PublishError
from publisher.model import SECTOR, Disk

FOOTER = 512
COOKIE = b"conectix"
_FIXED = 2
_NO_OFFSET = 0xFFFF_FFFF_FFFF_FFFF
_CHECKSUM_AT = 64
_LAYOUT = struct.Struct(">8s I I Q I 4s I 4s Q Q H B B I I 16s B 427x")
# Readers take the size from `current size` and not from the rounded geometry
# only for creators that they know; "win " is what Hyper-V writes.
_CREATOR = b"win "
_CREATOR_VERSION = 0x000A_0000
_HOST = b"Wi2k"


class VhdError(PublishError):
    """The 512 bytes are no valid footer of a fixed VHD."""


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track, by the specification's appendix."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    per_track = 17
    heads = max((sectors // per_track + 1023) // 1024, 4)
    if sectors // per_track >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
    if sectors // per_track >= heads * 1024:
        per_track, heads = 63, 16
    return sectors // per_track // heads, heads, per_track


def checksum(footer: bytes) -> int:
    """One's complement of the sum of all bytes, the checksum's own four left out."""
    total = sum(footer) - sum(footer[_CHECKSUM_AT : _CHECKSUM_AT + 4])
    return ~total & 0xFFFF_FFFF


def footer(size: int, identity: str) -> bytes:
    """The footer of a fixed VHD of `size` virtual bytes.

    The same size and `identity` (such as the disk's digest) give the same
    bytes: the unique id derives from them, and the creation time is zero.
    """
    cylinders, heads, sectors = geometry(size)
    unique = uuid.uuid5(uuid.NAMESPACE_OID, identity).bytes

    def pack(check: int) -> bytes:
        return _LAYOUT.pack(
            COOKIE, 2, 0x0001_0000, _NO_OFFSET, 0, _CREATOR, _CREATOR_VERSION, _HOST,
            size, size, cylinders, heads, sectors, _FIXED, check, unique, 0,
        )  # fmt: skip

    return pack(checksum(pack(0)))


def parse(data: bytes) -> int:
    """The virtual size that a footer states. Raises VhdError."""
    if len(data) != FOOTER:
        raise VhdError(f"a VHD footer has 512 bytes, not {len(data)}")
    if data[:8] != COOKIE:
        raise VhdError(f"the VHD footer starts with {data[:8]!r}, not with 'conectix'")
    fields = _LAYOUT.unpack(data)
    kind, stated, size = fields[13], fields[14], fields[9]
    if stated != checksum(data):
        raise VhdError("the checksum of the VHD footer is wrong")
    if kind != _FIXED:
        raise VhdError(f"the VHD is of type {kind}, not fixed")
    assert isinstance(size, int)
    return size


def stream(disk: Disk, chunk: int = 4 * 1024**2) -> Iterator[bytes]:
    """The disk as a fixed VHD, made while it streams: `disk.size` + 512 bytes."""
    with raw.Reader(disk) as reader:
        yield from reader.stream(chunk)
    yield footer(disk.size, disk.sha256)
