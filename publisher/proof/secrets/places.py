"""From a byte of the disk to the file that it belongs to."""

from __future__ import annotations

import bisect
import contextlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.model import Extent
from publisher.proof.inspect.budget import Budget, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.filesystem import FileSystem, Node
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import Storage
from publisher.proof.inspect.tree import Place as Entry
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.volume import Volume
from publisher.proof.inspect.xfs import Xfs

UNREADABLE = (Unreadable, struct.error, ValueError, LookupError, RecursionError)
"""What a disk that is damaged, or made to be read wrong, raises."""
_JOURNAL = 8
"""The inode of ext3's and ext4's journal."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a byte is: in a file at `path`, behind its end in its last block
    (`slack`), or in none (path ""); `text` says it in words. `inner` is the path
    within the volume, which may be mounted somewhere."""

    text: str
    path: str = ""
    slack: bool = False
    volume: Volume | None = None
    node: Node | None = None
    inner: str = ""


class Volumes:
    """The file systems of a disk, to look for places and for files."""

    def __init__(self, disk: Storage, budget: Budget) -> None:
        self._budget = budget
        inspection = Inspection(disk, budget)
        self.all = inspection.volumes()
        self._directories = dict(_mounted(inspection))
        self._root: tuple[Volume, Tree] | None = None
        with contextlib.suppress(*UNREADABLE):
            self._root = (inspection.root(), inspection.tree())

    def directory(self, volume: Volume) -> str:
        """Where fstab mounts a volume: a path without a slash at its end, "" for the
        root and what it does not name."""
        return self._directories.get(id(volume), "")

    def trees(self) -> Iterator[tuple[Volume, Tree]]:
        """Each file system that can be read by itself, the root with what is mounted."""
        for volume in self.all:
            if self._root is not None and volume is self._root[0]:
                yield self._root
            elif volume.files is not None:
                yield volume, Tree(volume.files, self._budget)

    def locate(self, offsets: Sequence[int]) -> Mapping[int, Place]:
        """The place of each offset. Files are walked only where there is one to find."""
        found: dict[int, Place] = {}
        # logical volumes lie in partitions, and say more
        for volume in sorted(self.all, key=lambda volume: not volume.name):
            left = sorted(offset for offset in offsets if offset not in found)
            inside = _inside_of(volume, left)
            if inside:
                found.update(_within(volume, self.directory(volume), inside, self._budget))
        for offset in offsets:
            found.setdefault(offset, Place(f"byte {offset} of the disk, outside of partitions"))
        return found


def _mounted(inspection: Inspection) -> Iterator[tuple[int, str]]:
    """The directory of each volume that is not the root, but FAT: what is there is named
    by its partition."""
    with contextlib.suppress(*UNREADABLE):
        root = inspection.root()
        for mount in inspection.fstab():
            with contextlib.suppress(Unreadable):
                volume = inspection.device(mount.device)
                if volume is None or volume is root or volume.kind in ("vfat", "swap"):
                    continue
                yield id(volume), mount.directory.rstrip("/")


def _inside_of(volume: Volume, offsets: Sequence[int]) -> dict[int, int]:
    """Those of the offsets (ascending) that a volume has, by its own count, ascending."""
    if volume.parts is None:
        return {offset: offset for offset in offsets}
    found: dict[int, int] = {}
    position = 0
    for part in volume.parts:
        for offset in _inside(offsets, part):
            found[position + offset - part.offset] = offset
        position += part.length
    return found


def _within(
    volume: Volume, directory: str, offsets: Mapping[int, int], budget: Budget
) -> Mapping[int, Place]:
    """The places of offsets, given by the volume's own count ▶ the disk's."""
    places: dict[int, Place] = {}
    files = volume.files
    fault: Exception | None = volume.fault
    if files is not None:
        try:
            local = list(offsets)
            _mark_journal(volume, local, places)
            for entry in Tree(files, budget).walk("/"):
                if len(places) == len(offsets):
                    break
                if not (entry.node.is_dir or entry.node.is_file or entry.node.is_link):
                    continue
                _mark(files, entry.node, local, places, _in_file(volume, directory, entry))
        except UNREADABLE as error:
            fault = error
    for offset in offsets:
        if offset not in places:
            where = f"byte {offset} of {volume.title}"
            if files is not None and fault is None:
                where += ", in no file: erased, or the file system's own"
            elif fault is not None:
                where += f" (its files can't be read: {fault})"
            places[offset] = Place(where, volume=volume)
    return {offsets[offset]: place for offset, place in places.items()}


def _mark_journal(volume: Volume, offsets: Sequence[int], places: dict[int, Place]) -> None:
    journal = Place(f"the journal of {volume.title}", volume=volume)
    files = volume.files
    if isinstance(files, Ext):
        _mark(files, files.node(_JOURNAL), offsets, places, (journal, journal))
    elif isinstance(files, Xfs) and files.log is not None:
        places.update(dict.fromkeys(_inside(offsets, files.log), journal))


def _mark(
    files: FileSystem,
    node: Node,
    offsets: Sequence[int],
    found: dict[int, Place],
    places: tuple[Place, Place],
) -> None:
    """Note the offsets (ascending) within a file, which is at the first of the
    places, or in its slack at the second."""
    position = 0
    sparse: bool | None = None
    for extent in files.extents(node):
        for at in _inside(offsets, extent):
            slack = position + at - extent.offset >= node.size and not node.is_dir
            if slack and sparse is None:
                sparse = _sparse(files, node)
            found[at] = places[1 if slack and not sparse else 0]
        position += extent.length


def _sparse(files: FileSystem, node: Node) -> bool:
    """Whether positions can't be told by adding up extents: there are holes."""
    return sum(extent.length for extent in files.extents(node)) < node.size


def _inside(offsets: Sequence[int], extent: Extent) -> Sequence[int]:
    first = bisect.bisect_left(offsets, extent.offset)
    last = bisect.bisect_left(offsets, extent.end)
    return offsets[first:last]


def _in_file(volume: Volume, directory: str, entry: Entry) -> tuple[Place, Place]:
    path = directory + entry.path
    where = path if path != "/" else "the root directory"
    if volume.kind == "vfat":
        where += f" on {volume.title}"
    if entry.node.is_dir:
        place = Place(f"the directory {where}", volume=volume)
        return place, place
    return (
        Place(where, path, False, volume, entry.node, entry.path),
        Place(f"{where}, behind its end", path, True, volume, entry.node, entry.path),
    )
