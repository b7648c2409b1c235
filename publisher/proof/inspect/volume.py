"""What a partition holds, by its signature; and its reader, where there is one.

Places of the signatures: libblkid's superblock probes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from publisher.model import Extent
from publisher.proof.inspect import lvm
from publisher.proof.inspect.btrfs import Btrfs
from publisher.proof.inspect.btrfs.superblock import MAGIC, MAGIC_AT, PLACES
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.fat import Fat
from publisher.proof.inspect.filesystem import FileSystem
from publisher.proof.inspect.partitions import Partition
from publisher.proof.inspect.storage import Joined, Slice, Storage
from publisher.proof.inspect.xfs import Xfs

_READERS: Mapping[str, Callable[[Storage, Budget], FileSystem]] = {
    "ext": Ext,
    "vfat": Fat,
    "xfs": Xfs,
    "btrfs": Btrfs,
}


@dataclass(frozen=True, slots=True)
class Volume:
    """A partition, a logical volume of LVM, or the whole disk: then there is neither
    `partition` nor `name`. `kind` as blkid names it, "" where nothing is known of it.
    `fault` says why there is no `files`."""

    partition: Partition | None
    kind: str
    uuid: str = ""
    label: str = ""
    files: FileSystem | None = field(default=None, repr=False)
    fault: Unreadable | None = None
    name: str = ""
    """Of a logical volume: group/volume."""
    logical_parts: tuple[Extent, ...] = ()
    """Where a logical volume lies on the disk."""
    member: lvm.Member | None = field(default=None, repr=False, compare=False)
    """What a physical volume of LVM says."""

    @property
    def where(self) -> str:
        if self.name:
            return f"logical volume {self.name}"
        return f"partition {self.partition.number}" if self.partition else "the disk"

    @property
    def title(self) -> str:
        return f"{self.where} ({self.kind or 'unknown content'})"

    @property
    def parts(self) -> tuple[Extent, ...] | None:
        """Where it lies on the disk, in its own order; None for the whole disk."""
        if self.name:
            return self.logical_parts
        return (Extent(self.partition.offset, self.partition.length),) if self.partition else None


def open_volume(disk: Storage, partition: Partition | None, budget: Budget) -> Volume:
    """Look at a partition, or at the whole disk. Raises Exhausted only."""
    part = Slice(disk, partition.offset, partition.length) if partition else disk
    found = _looked_at(part, budget)
    if found.kind != "LVM2_member":
        return replace(found, partition=partition)
    try:
        member = lvm.read_member(part, partition.offset if partition else 0, budget)
    except Exhausted:
        raise
    except Unreadable as error:
        return Volume(partition, found.kind, fault=error)
    return Volume(partition, found.kind, member=member)


def open_logical(disk: Storage, volumes: Sequence[Volume], budget: Budget) -> Iterator[Volume]:
    """The logical volumes on a disk with these physical ones. Raises Exhausted only."""
    members = [volume.member for volume in volumes if volume.member is not None]
    for logical in lvm.logical_volumes(members, budget):
        if logical.fault is not None:
            yield Volume(None, "", fault=logical.fault, name=logical.name)
            continue
        found = _looked_at(Joined(disk, logical.parts), budget)
        if found.kind == "LVM2_member":
            fault = Unreadable("it is a physical volume inside of a logical one")
            found = replace(found, fault=fault)
        yield replace(found, name=logical.name, logical_parts=logical.parts)


def _looked_at(part: Storage, budget: Budget) -> Volume:
    """What a part of a disk holds, wherever that is."""
    kind = ident = label = ""
    try:
        kind, ident, label = _probe(part)
        reader = _READERS.get(kind)
        if reader is None:
            fault = Unreadable(f"there is no reader for {kind}") if kind else None
            backup = 0 if kind else _ext_backup(part)
            if backup:
                lost = Damaged(f"its superblock is gone; its backup at block {backup} is there")
                return Volume(None, "ext4", fault=lost)
            return Volume(None, kind, ident, label, fault=fault)
        files = reader(part, budget)
    except Exhausted:
        raise
    except Unreadable as error:
        return Volume(None, kind if kind != "ext" else "ext4", ident, label, fault=error)
    return Volume(None, files.kind, files.uuid, files.label, files)


def _probe(part: Storage) -> tuple[str, str, str]:
    """Kind, UUID and label; the latter two as far as they are known without its reader."""
    head = part.read(0, min(part.size, 8192))
    if head[1080:1082] == b"\x53\xef":
        return "ext", "", ""
    if head[:4] == b"XFSB":
        return "xfs", _uuid(head[32:48]), _text(head[108:120])
    if head[:6] in (b"LUKS\xba\xbe", b"SKUL\xba\xbe"):
        return "crypto_LUKS", _text(head[168:208]), ""
    if any(head[at : at + 8] == b"LABELONE" for at in range(0, 2048, 512)):
        return "LVM2_member", "", ""
    if head[4086:4096] in (b"SWAPSPACE2", b"SWAP-SPACE"):
        return "swap", _uuid(head[1036:1052]), _text(head[1052:1068])
    for kind, at, magic in _PLAIN:
        if head[at : at + len(magic)] == magic:
            return kind, "", ""
    if part.size > 0x10200:
        more = part.read(PLACES[0], 0x200)
        if more[MAGIC_AT : MAGIC_AT + 8] == MAGIC:
            return "btrfs", _uuid(more[32:48]), _text(more[299:])
    if head[510:512] == b"\x55\xaa" and (
        head[54:57] == b"FAT" or head[82:87] == b"FAT32" or head[:1] in (b"\xeb", b"\xe9")
    ):
        return "vfat", "", ""
    if any(at + 4096 <= part.size and part.read(at + MAGIC_AT, 8) == MAGIC for at in PLACES[1:]):
        return "btrfs", "", ""
    return "", "", ""


def _ext_backup(part: Storage) -> int:
    """The block of the first backup of an ext superblock, 0 where there is none."""
    for size, block in ((4096, 32768), (1024, 8193), (2048, 16384)):
        at = block * size
        if at + 1024 <= part.size:
            raw = part.read(at, 1024)
            # it says of which group it is
            if raw[56:58] == b"\x53\xef" and raw[90:92] == b"\x01\x00":
                return block
    return 0


_PLAIN = (
    ("squashfs", 0, b"hsqs"),
    ("ntfs", 3, b"NTFS    "),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("bcachefs", 4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
)


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
