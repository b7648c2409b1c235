"""The superblock, the same in several places, and the checksums that it prescribes."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from publisher.crc32c import crc32c
from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inspect.storage import Storage

MAGIC = b"_BHRfS_M"
PLACES = (0x1_0000, 0x400_0000, 0x40_0000_0000)
"""Where it is, if the device is so large. Linux looks at the first one only."""
MAGIC_AT = 64
_SIZE = 4096
_CHUNKS = 0x32B
_CHUNKS_MOST = 2048
_ERROR = 1 << 2
_METADATA_UUID = 1 << 10
_FEATURES: Mapping[int, str] = {
    0: "mixed backrefs",
    1: "default subvolume",
    2: "mixed groups",
    3: "LZO",
    4: "zstd",
    5: "big metadata",
    6: "extended references",
    7: "RAID5 or RAID6",
    8: "skinny metadata",
    9: "no holes",
    10: "metadata UUID",
    11: "RAID1C3 or RAID1C4",
    12: "zoned",
    13: "extent tree v2",
    14: "RAID stripe tree",
    16: "simple quotas",
}
_KNOWN = sum(1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16))
"""Of them. A profile that needs several devices is refused where it is used."""

Checksum: TypeAlias = Callable[[bytes], bytes]

_CHECKSUMS: Mapping[int, Checksum | None] = {
    0: lambda data: crc32c(data).to_bytes(4, "little"),
    # xxhash64: in Python it takes longer than all else, no library has it here, and no
    # distribution's image uses it; what else a block says of itself is still checked
    1: None,
    2: lambda data: hashlib.sha256(data).digest(),
    3: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}


class Pointer(NamedTuple):
    """Where a block of a tree is, and what it has to say of itself. Hashed often."""

    logical: int
    generation: int
    level: int


@dataclass(frozen=True, slots=True)
class Superblock:
    uuid: str
    label: str
    block_uuid: bytes
    """What the blocks of metadata bear."""
    generation: int
    root: Pointer
    chunk_root: Pointer
    root_directory: int
    sector_size: int
    node_size: int
    device: int
    size: int
    chunks: bytes
    """Those that hold the chunk tree."""
    checksum: Checksum | None
    remarks: tuple[str, ...]


def is_guarded(raw: bytes, checksum: Checksum | None) -> bool:
    """Whether a superblock or block of metadata has the right checksum in front."""
    if checksum is None:
        return True
    expected = checksum(raw[32:])
    return raw[: len(expected)] == expected


def read_superblock(storage: Storage) -> Superblock:
    """The first one that is sound. Raises Damaged without one, and Unreadable for what
    this reader does not know."""
    fault: Damaged | None = None
    for place in PLACES:
        if place + _SIZE > storage.size:
            break
        try:
            return _parse(storage.read(place, _SIZE), place, storage.size)
        except Damaged as error:
            fault = fault or error
    raise fault or Damaged("it is too small for Btrfs")


def _parse(raw: bytes, place: int, room: int) -> Superblock:
    if raw[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        raise Damaged("it has no Btrfs superblock")
    kind = struct.unpack_from("<H", raw, 196)[0]
    if kind not in _CHECKSUMS:
        raise Unreadable(f"it has checksums of a kind that is not known here ({kind})")
    if not is_guarded(raw, _CHECKSUMS[kind]):
        raise Damaged("the checksum of its superblock is wrong")
    at, flags, _, generation, root, chunk_root, log_root = struct.unpack_from("<7Q", raw, 48)
    root_directory, devices, sector, node = struct.unpack_from("<QQII", raw, 128)
    chunks, chunk_generation = struct.unpack_from("<IQ", raw, 160)
    features = struct.unpack_from("<Q", raw, 188)[0]
    level, chunk_level = raw[198:200]
    device, size = struct.unpack_from("<QQ", raw, 201)
    if at != place:
        raise Damaged(f"its superblock says that it is at byte {at}")
    if features & ~_KNOWN:
        unknown = [bit for bit in range(64) if features & ~_KNOWN & 1 << bit]
        names = ", ".join(_FEATURES.get(bit, f"bit {bit}") for bit in unknown)
        raise Unreadable(f"it has features that are not known here: {names}")
    if devices != 1:
        raise Unreadable(f"it is spread over {devices} devices, of which this is one")
    if sector not in (4096, 8192, 16384, 32768, 65536):
        raise Damaged(f"its sectors have {sector} bytes")
    if node not in (4096, 8192, 16384, 32768, 65536) or node < sector:
        raise Damaged(f"its blocks of metadata have {node} bytes")
    if chunks > _CHUNKS_MOST:
        raise Damaged("its list of system chunks is too long")
    remarks = []
    if place != PLACES[0]:
        remarks.append(
            "its first superblock is damaged, so Linux does not mount it; the copy at byte "
            f"{place} is sound"
        )
    if log_root:
        remarks.append("its log tree holds changes that were not written back")
    if flags & _ERROR:
        remarks.append("it is marked as having errors")
    if size > room:
        remarks.append(f"it has {size} bytes, more than its partition of {room} bytes")
    ident = raw[32:48]
    return Superblock(
        str(uuid.UUID(bytes=ident)),
        raw[299:555].partition(b"\0")[0].decode(errors="replace"),
        raw[571:587] if features & _METADATA_UUID else ident,
        generation,
        Pointer(root, generation, level),
        Pointer(chunk_root, chunk_generation, chunk_level),
        root_directory,
        sector,
        node,
        device,
        size,
        raw[_CHUNKS : _CHUNKS + chunks],
        _CHECKSUMS[kind],
        tuple(remarks),
    )
