"""Identities that derive from the disk, in place of the random ones and the times
that qemu-img writes: the same disk gives the same file.

Layouts: VMDK "Virtual Disk Format 5.0" (VMware), VHD specification 1.0 and
[MS-VHDX] (Microsoft), VDICore.h (VirtualBox).
"""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

from publisher.crc32c import crc32c
from publisher.disks import vhd
from publisher.errors import PublishError
from publisher.model import SECTOR

Derive: TypeAlias = Callable[[str], uuid.UUID]
"""A UUID of the disk for a purpose, such as "image"."""


def settle(path: Path, format: str, identity: str) -> None:  # noqa: A002
    """Replace what is random in a file just written by qemu-img ("vmdk", "vpc",
    "vdi", "vhdx"; others have nothing of the kind). `identity` is the disk's digest."""
    writer = _WRITERS.get(format)
    if writer is None:
        return

    def derive(purpose: str) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{identity}/{format}/{purpose}")

    with path.open("r+b") as file:
        writer(file, derive)


def content_id(identity: str) -> str:
    """A VMDK content id: 8 hex digits, never ffffffff, which means "no parent"."""
    chosen = hashlib.sha256(f"{identity}/vmdk".encode()).hexdigest()[:8]
    return "fffffffe" if chosen == "ffffffff" else chosen


def _vmdk(file: BinaryIO, derive: Derive) -> None:
    magic, offset, sectors = struct.unpack_from("<4s24xQQ", _read(file, 0, SECTOR))
    if magic != b"KDMV" or not offset:
        raise PublishError("the VMDK has no descriptor of its own")
    descriptor = _read(file, offset * SECTOR, sectors * SECTOR)
    # Ends at the first zero: a random id of few digits makes qemu-img's text shorter than
    # the one it wrote there before, whose end stays.
    text, _, _ = descriptor.partition(b"\0")
    chosen = b"\nCID=" + content_id(str(derive("content"))).encode()
    changed, count = re.subn(rb"\nCID=[0-9a-f]{1,8}(?=\n)", chosen, text, count=1)
    if count != 1:
        raise PublishError("the VMDK descriptor has no content id")
    _write(file, offset * SECTOR, changed.ljust(len(descriptor), b"\0")[: len(descriptor)])


def _vpc(file: BinaryIO, derive: Derive) -> None:
    end = file.seek(0, 2)
    footer = bytearray(_read(file, end - vhd.FOOTER, vhd.FOOTER))
    if footer[:8] != vhd.COOKIE:
        raise PublishError("the VHD has no footer")
    footer[24:28] = bytes(4)
    footer[68:84] = derive("image").bytes
    footer[64:68] = vhd.checksum(bytes(footer)).to_bytes(4, "big")
    _write(file, end - vhd.FOOTER, bytes(footer))
    if _read(file, 0, 8) == vhd.COOKIE:
        _write(file, 0, bytes(footer))


def _vdi(file: BinaryIO, derive: Derive) -> None:
    if _read(file, 64, 4) != b"\x7f\x10\xda\xbe":
        raise PublishError("the VDI has no signature")
    _write(file, 392, derive("image").bytes_le + derive("snapshot").bytes_le)


_HEADERS = (64 * 1024, 128 * 1024)
_REGIONS = 192 * 1024
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PAGE_83 = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")


def _vhdx(file: BinaryIO, derive: Derive) -> None:
    headers = {at: bytearray(_read(file, at, 4096)) for at in _HEADERS}
    if any(header[:4] != b"head" for header in headers.values()):
        raise PublishError("the VHDX has no header")
    # The header with the higher sequence number is the one that counts.
    in_order = sorted(headers.items(), key=lambda item: struct.unpack_from("<Q", item[1], 8))
    for number, (at, header) in enumerate(in_order, 1):
        if any(header[48:64]):
            raise PublishError("the VHDX was not closed: its log is in use")
        header[8:16] = number.to_bytes(8, "little")
        header[16:48] = derive("file write").bytes_le + derive("data write").bytes_le
        header[4:8] = bytes(4)
        header[4:8] = crc32c(bytes(header)).to_bytes(4, "little")
        log_length, log_offset = struct.unpack_from("<IQ", header, 68)
        _write(file, at, bytes(header))
        _write(file, log_offset, bytes(log_length))
    metadata = _vhdx_metadata(file)
    (count,) = struct.unpack_from("<10xH", _read(file, metadata, 32))
    for number in range(count):
        item, offset, _ = struct.unpack("<16sII8x", _read(file, metadata + 32 * (number + 1), 32))
        if item == _PAGE_83.bytes_le:
            _write(file, metadata + offset, derive("page 83").bytes_le)


def _vhdx_metadata(file: BinaryIO) -> int:
    table = _read(file, _REGIONS, 64 * 1024)
    magic, count = struct.unpack_from("<4s4xI", table)
    if magic == b"regi":
        for number in range(count):
            region, offset = struct.unpack_from("<16sQ", table, 16 + 32 * number)
            if region == _METADATA.bytes_le:
                assert isinstance(offset, int)
                return offset
    raise PublishError("the VHDX has no metadata region")


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise PublishError("the disk file ends too early")
    return data


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(data)


_WRITERS: Mapping[str, Callable[[BinaryIO, Derive], None]] = {
    "vmdk": _vmdk,
    "vpc": _vpc,
    "vdi": _vdi,
    "vhdx": _vhdx,
}
