"""What tells two disks apart: files where their file systems can be read, blocks elsewhere."""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from publisher.model import GIB, MIB, Disk, Noun
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.filesystem import FileSystem, Node
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.partitions import Partition
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.volume import Volume

BLOCK = 4096
Names: TypeAlias = dict[str, Node]


@dataclass(frozen=True, slots=True)
class Difference(Noun):
    """`place` is a partition or what lies outside of them, `path` a file in it or
    "", `what` what differs, in words."""

    place: str
    path: str
    what: str

    def __str__(self) -> str:
        where = f"{self.place}: {self.path}" if self.path else self.place
        return f"{where}: {self.what}"


def compare(
    one: Disk, other: Disk, check: Callable[[], None] = lambda: None
) -> Iterator[Difference]:
    """Every difference between two raw disks, the files of each partition first;
    none exactly when they have the same bytes.

    Raises Damaged for a file system that contradicts its format."""
    if one.sha256 == other.sha256:
        return
    if one.size != other.size:
        yield Difference("disk", "", f"it has {one.size} bytes, and {other.size}")
        return
    with closing(_open(one.path, check)) as first, closing(_open(other.path, check)) as second:
        left, right = (Inspection(file, _budget(check)) for file in (first, second))
        if left.table() != right.table():
            yield Difference("partition table", "", "the partitions differ")
            yield from _blocks(one.path, other.path, 0, one.size, "disk", check)
            return
        at = 0
        volumes = zip(_partitions(left), _partitions(right), strict=True)
        for (part, volume), (_, twin) in sorted(volumes, key=lambda pair: pair[0][0].offset):
            yield from _blocks(one.path, other.path, at, part.offset, "outside partitions", check)
            found = list(_volume(volume, twin, check))
            yield from found
            yield from _blocks(one.path, other.path, part.offset, part.end, volume.title, check)
            at = part.end
        yield from _blocks(one.path, other.path, at, one.size, "outside partitions", check)
        yield from _logical(left.volumes(), right.volumes(), check)


def _budget(check: Callable[[], None]) -> Budget:
    return Budget(seconds=3600, size=1024 * GIB, steps=1_000_000_000, check=check)


def _open(path: Path, check: Callable[[], None]) -> RawFile:
    return RawFile(path, _budget(check))


def _partitions(disk: Inspection) -> list[tuple[Partition, Volume]]:
    return [(v.partition, v) for v in disk.volumes() if v.partition is not None]


def _logical(
    one: Sequence[Volume], other: Sequence[Volume], check: Callable[[], None]
) -> Iterator[Difference]:
    """The files of LVM's volumes; their blocks are those of partitions."""
    left, right = ({v.name: v for v in volumes if v.name} for volumes in (one, other))
    for name in sorted(left.keys() | right.keys()):
        if name in left and name in right:
            yield from _volume(left[name], right[name], check)
        else:
            which = "first" if name in left else "second"
            yield Difference(f"logical volume {name}", "", f"only in the {which}")


# -- files


def _volume(one: Volume, other: Volume, check: Callable[[], None]) -> Iterator[Difference]:
    if one.files is None or other.files is None:
        return
    place = one.title
    if (one.kind, one.uuid, one.label) != (other.kind, other.uuid, other.label):
        yield Difference(place, "", "kind, UUID or label of the file system")
    try:
        names, twins = dict(_walk(one.files)), dict(_walk(other.files))
    except Damaged:
        raise
    except Unreadable as error:
        yield Difference(place, "", f"its files can't be compared: {error}")
        return
    times = 0
    for path in sorted(names.keys() | twins.keys()):
        check()
        if path not in twins or path not in names:
            which = "first" if path in names else "second"
            yield Difference(place, path, f"only in the {which}")
            continue
        node, twin = names[path], twins[path]
        what = list(_file(one.files, node, other.files, twin))
        if isinstance(one.files, Ext) and isinstance(other.files, Ext):
            inode, counterpart = _Inode(one.files, node), _Inode(other.files, twin)
            what += inode.differences(counterpart)
            times += inode.hidden != counterpart.hidden
        if what:
            yield Difference(place, path, ", ".join(what))
    if times:
        yield Difference(place, "", f"access, change or creation times of {times} files")


def _walk(files: FileSystem) -> Iterator[tuple[str, Node]]:
    waiting = [("/", files.root())]
    seen: set[int] = set()
    while waiting:
        path, node = waiting.pop()
        yield path, node
        if not node.is_dir:
            continue
        if node.number in seen:
            raise Damaged(f"the directory {path} is in itself")
        seen.add(node.number)
        for name, number in files.names(node).items():
            waiting.append((f"{path.rstrip('/')}/{name}", files.node(number)))


def _file(one: FileSystem, node: Node, other: FileSystem, twin: Node) -> Iterator[str]:
    if stat.S_IFMT(node.mode) != stat.S_IFMT(twin.mode):
        yield "kind of file"
        return
    if node.mode != twin.mode:
        yield f"mode {stat.S_IMODE(node.mode):o} and {stat.S_IMODE(twin.mode):o}"
    if node.owner != twin.owner:
        yield f"owner {node.owner} and {twin.owner}"
    if node.is_link and one.link(node) != other.link(twin):
        yield f"target {one.link(node)} and {other.link(twin)}"
    if node.is_file:
        if node.size != twin.size:
            yield f"content ({node.size} and {twin.size} bytes)"
        elif _digest(one, node) != _digest(other, twin):
            yield "content"


def _digest(files: FileSystem, node: Node) -> bytes:
    digest = hashlib.sha256()
    for piece in files.stream(node):
        digest.update(piece)
    return digest.digest()


class _Inode:
    """What an ext inode says besides what every file system does.
    https://www.kernel.org/doc/html/latest/filesystems/ext4/inodes.html"""

    def __init__(self, files: Ext, node: Node) -> None:
        raw = files.raw_inode(node.number)
        self.group = int.from_bytes(raw[24:26] + raw[122:124], "little")
        self.links = int.from_bytes(raw[26:28], "little")
        access, change, modify = struct.unpack_from("<III", raw, 8)
        extra = int.from_bytes(raw[128:130], "little") if len(raw) > 130 else 0
        fine = raw[132 : 128 + extra].ljust(24, b"\0")  # the times' fractions, and the creation's
        self.modified = (modify, fine[4:8])
        self.hidden = (access, change, fine[:4], fine[8:20])
        self.attributes = raw[128 + extra :] if extra else b""

    def differences(self, other: _Inode) -> Iterator[str]:
        if self.group != other.group:
            yield f"group {self.group} and {other.group}"
        if self.links != other.links:
            yield f"{self.links} and {other.links} links"
        if self.modified != other.modified:
            yield "time of the last change"
        if self.attributes != other.attributes:
            yield "extended attributes"


# -- blocks


def _blocks(
    one: Path, other: Path, start: int, end: int, place: str, check: Callable[[], None]
) -> Iterator[Difference]:
    """How many blocks differ in a range, and where the first one is."""
    count, first = 0, -1
    with one.open("rb") as left, other.open("rb") as right:
        left.seek(start)
        right.seek(start)
        while start < end:
            check()
            length = min(MIB, end - start)
            a, b = left.read(length), right.read(length)
            if a != b:
                for at in range(0, length, BLOCK):
                    if a[at : at + BLOCK] != b[at : at + BLOCK]:
                        first = start + at if first < 0 else first
                        count += 1
            start += length
    if count:
        yield Difference(
            place, "", f"{count} blocks of {BLOCK} bytes, the first one at byte {first}"
        )
