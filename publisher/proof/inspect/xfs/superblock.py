"""XFS's superblock: the geometry, and what a reader must know to read the rest.

Layout: "XFS Algorithms & Data Structures", 3rd edition (kernel.org), part III.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from publisher.crc32c import crc32c
from publisher.model import SECTOR, Extent
from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inspect.storage import Slice, Storage
from publisher.proof.inspect.xfs.log import is_clean

MAGIC = b"XFSB"

_VERSION_DIRECTORIES, _VERSION_FOLDS_CASE, _VERSION_MORE = 0x2000, 0x4000, 0x8000
_MORE_KNOWN, _MORE_FILE_TYPES = 0x38A, 0x200
_NEEDS_REPAIR, _META_UUID, _FILE_TYPES = 0x10, 0x4, 0x1
_INCOMPATIBLE_KNOWN = 0xFF
_FEATURES = {0x100: "metadir", 0x200: "zoned", 0x400: "zone-gaps"}
"""Names of features that came later."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Where a kind of metadata block says what it is (v5): offsets of the checksum, the
    sector, the UUID and the owner."""

    check: int
    sector: int
    uuid: int
    owner: int


@dataclass(frozen=True, slots=True)
class Superblock:
    """`ag_log` and `inode_log` are the widths of a block's number within an allocation
    group and of an inode's within a block."""

    version: int
    block_size: int
    blocks: int
    root: int
    ag_blocks: int
    ag_log: int
    inode_size: int
    inode_log: int
    directory_block: int
    file_types: bool
    """Whether directory entries have one."""
    folds_case: bool
    uuid: bytes
    meta_uuid: bytes
    label: str
    log: Extent | None
    """None where it is on another disk."""
    remarks: tuple[str, ...]

    def block(self, number: int, count: int = 1) -> int:
        """A number of a block of the file system as one of the disk's: those numbers
        name the allocation group in their upper bits."""
        group, within = number >> self.ag_log, number & (1 << self.ag_log) - 1
        linear = group * self.ag_blocks + within
        if within + count > self.ag_blocks or linear + count > self.blocks or not linear:
            raise Damaged(f"block {number} is outside of the file system")
        return linear

    def inode(self, number: int) -> int:
        """Where an inode is, in bytes."""
        within = number & (1 << self.inode_log) - 1
        return self.block(number >> self.inode_log) * self.block_size + within * self.inode_size

    def verify(self, raw: bytes, seal: Seal, block: int, owner: int, what: str) -> None:
        """Raise Damaged where a metadata block has another checksum, or is another's."""
        if not self.sound(raw, seal.check):
            raise Damaged(f"the checksum of {what} is wrong")
        sector, whose = (
            int.from_bytes(raw[at : at + 8], "big") for at in (seal.sector, seal.owner)
        )
        if (
            sector != block * (self.block_size // SECTOR)
            or whose != owner
            or raw[seal.uuid : seal.uuid + 16] != self.meta_uuid
        ):
            raise Damaged(f"{what} is another's")

    @staticmethod
    def sound(raw: bytes, at: int) -> bool:
        """Whether the checksum at an offset is that of all the rest."""
        blank = raw[:at] + bytes(4) + raw[at + 4 :]
        return crc32c(blank) == int.from_bytes(raw[at : at + 4], "little")


def read_superblock(storage: Storage) -> Superblock:
    """Raises Unreadable for features that are not known here."""
    raw = storage.read(0, SECTOR)
    if raw[:4] != MAGIC:
        raise Damaged("it has no XFS superblock")
    size, blocks = struct.unpack_from(">IQ", raw, 4)
    log_start, root = struct.unpack_from(">QQ", raw, 48)
    ag_blocks, ags, _, log_blocks, flags, sector, inode, per_block = struct.unpack_from(
        ">IIIIHHHH", raw, 84
    )
    block_log, _, inode_log, per_block_log, ag_log, _, unfinished = raw[120:127]
    directory_log, more = raw[192], struct.unpack_from(">I", raw, 200)[0]
    version = flags & 0xF
    if version not in (4, 5):
        raise Unreadable(f"it is XFS of version {version}")
    if not 9 <= block_log <= 16 or size != 1 << block_log:
        raise Damaged(f"its blocks have {size} bytes")
    if not 8 <= inode_log <= 11 or inode != 1 << inode_log or inode > size:
        raise Damaged(f"its inodes have {inode} bytes")
    if per_block_log != block_log - inode_log or per_block != 1 << per_block_log:
        raise Damaged(f"it has {per_block} inodes in a block")
    if not ag_blocks or ag_log != (ag_blocks - 1).bit_length() or ag_log > 31:
        raise Damaged(f"its allocation groups have {ag_blocks} blocks")
    if not (ags - 1) * ag_blocks < blocks <= ags * ag_blocks:
        raise Damaged(f"it says that it has {blocks} blocks in {ags} allocation groups")
    if directory_log > 7 or block_log + directory_log > 16:
        raise Damaged(f"its directories' blocks have 2^{block_log + directory_log} bytes")
    if sector not in (512, 1024, 2048, 4096, 8192, 16384, 32768):
        raise Damaged(f"its sectors have {sector} bytes")
    if unfinished:
        raise Damaged("mkfs did not finish it")
    ident = raw[32:48]
    if version == 5:
        incompatible = struct.unpack_from(">I", raw, 216)[0]
        _require(storage.read(0, sector), incompatible)
        file_types = bool(incompatible & _FILE_TYPES)
        meta_uuid = raw[248:264] if incompatible & _META_UUID else ident
    else:
        more = more if flags & _VERSION_MORE else 0
        if not flags & _VERSION_DIRECTORIES or more & ~_MORE_KNOWN:
            raise Unreadable(f"it has features that are not known here ({flags:#x}, {more:#x})")
        file_types, meta_uuid = bool(more & _MORE_FILE_TYPES), ident
    made = Superblock(
        version=version,
        block_size=size,
        blocks=blocks,
        root=root,
        ag_blocks=ag_blocks,
        ag_log=ag_log,
        inode_size=inode,
        inode_log=per_block_log,
        directory_block=size << directory_log,
        file_types=file_types,
        folds_case=bool(flags & _VERSION_FOLDS_CASE),
        uuid=ident,
        meta_uuid=meta_uuid,
        label=raw[108:120].partition(b"\0")[0].decode(errors="replace"),
        log=None,
        remarks=(),
    )
    log = None
    if log_start:
        log = Extent(made.block(log_start, log_blocks) * size, log_blocks * size)
    return replace(made, log=log, remarks=tuple(_remarks(made, log, storage)))


def _require(raw: bytes, incompatible: int) -> None:
    """The checksum is right, and nothing is in it that forbids to read on."""
    unknown = incompatible & ~_INCOMPATIBLE_KNOWN
    if unknown:
        names = [name for bit, name in _FEATURES.items() if unknown & bit]
        unnamed = unknown & ~sum(_FEATURES)
        names += [f"{unnamed:#x}"] if unnamed else []
        raise Unreadable(f"it has features that are not known here ({', '.join(names)})")
    if not Superblock.sound(raw, 224):
        raise Damaged("the checksum of its superblock is wrong")
    if incompatible & _NEEDS_REPAIR:
        raise Damaged("it is marked as needing xfs_repair")


def _remarks(made: Superblock, log: Extent | None, storage: Storage) -> Iterator[str]:
    size = made.blocks * made.block_size
    if size > storage.size:
        yield f"it has {size} bytes, more than its partition of {storage.size} bytes"
    if log is None:
        yield "its log is on another disk"
    elif log.end <= storage.size and not is_clean(Slice(storage, log.offset, log.length)):
        yield "its log holds changes that were not written back"


def uuid_of(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))
