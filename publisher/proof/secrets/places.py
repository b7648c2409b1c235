"""From a byte of the disk to the file that it belongs to."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.model import Extent
from publisher.proof.inspect.btrfs import Btrfs
from publisher.proof.inspect.budget import READER_FAULTS, Budget, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.filesystem import FileSystem, Node
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import Storage
from publisher.proof.inspect.subvolumes import Shown
from publisher.proof.inspect.tree import Place as Entry
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.volume import Volume
from publisher.proof.inspect.xfs import Xfs

UNREADABLE = (Unreadable, *READER_FAULTS)
"""What a disk that is damaged, or made to be read wrong, raises."""
_JOURNAL = 8
"""The inode of ext3's and ext4's journal."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a byte is: in a file at `path`, behind its end in its last block
    (`slack`), or in none (path ""); `text` says it in words. `inner` is the path in the
    volume's own tree, which may be mounted somewhere; `inside`, at which byte of a file
    that the file system compresses."""

    text: str
    path: str = ""
    slack: bool = False
    volume: Volume | None = None
    node: Node | None = None
    inner: str = ""
    inside: int | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """A file system to walk: where the installation mounts it, where it is in the tree
    of its volume, and words to tell its paths from the installation's."""

    files: FileSystem
    directory: str = ""
    inner: str = ""
    suffix: str = ""


class Volumes:
    """The file systems of a disk, to look for places and for files."""

    def __init__(self, disk: Storage, budget: Budget) -> None:
        self._budget = budget
        self._inspection = Inspection(disk, budget)
        self.all = self._inspection.volumes()
        self._root: tuple[Volume, Tree] | None = None
        with contextlib.suppress(*UNREADABLE):
            self._root = (self._inspection.root(), self._inspection.tree())

    def _is_root(self, volume: Volume) -> bool:
        return self._root is not None and volume is self._root[0]

    def _shown(self, volume: Volume) -> Sequence[Shown]:
        with contextlib.suppress(*UNREADABLE):
            return self._inspection.shown(volume)
        return ()

    def directory(self, volume: Volume) -> str:
        """Where fstab mounts all of a volume: a path without a slash at its end, "" for
        the root, what it does not name, and FAT: what is there is named by its partition."""
        if self._is_root(volume) or volume.kind == "vfat":
            return ""
        return next((one.directory for one in self._shown(volume) if not one.path), "")

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
                found.update(self._within(volume, inside))
        for offset in offsets:
            found.setdefault(offset, Place(f"byte {offset} of the disk, outside of partitions"))
        return found

    def _within(self, volume: Volume, offsets: Mapping[int, int]) -> Mapping[int, Place]:
        """The places of offsets, given by the volume's own count ▶ the disk's."""
        placed: dict[int, Place] = {}
        files = volume.files
        fault: Exception | None = volume.fault
        first: Mapping[int, int] = {}
        if files is not None:
            try:
                # of what is there twice, files tell of the first copy only
                first = files.first_copies(offsets) if isinstance(files, Btrfs) else {}
                wanted = sorted({first.get(at, at) for at in offsets})
                _mark_journal(volume, wanted, placed)
                self._walk(volume, files, wanted, placed)
            except UNREADABLE as error:
                fault = error
        found: dict[int, Place] = {}
        for at, offset in offsets.items():
            where = f"byte {at} of {volume.title}"
            if files is not None and fault is None:
                where += ", in no file: erased, or the file system's own"
            elif fault is not None:
                where += f" (its files can't be read: {fault})"
            found[offset] = placed.get(first.get(at, at)) or Place(where, volume=volume)
        return found

    def _walk(
        self, volume: Volume, files: FileSystem, offsets: Sequence[int], placed: dict[int, Place]
    ) -> None:
        wanted, last = len(offsets), files
        for view, entry, places in self.entries(volume, files):
            if view is not last:
                # what several subvolumes share is named as the installation sees it
                last, offsets = view, [at for at in offsets if at not in placed]
            if len(placed) == wanted:
                break
            _mark(view, entry.node, offsets, placed, places)
            if isinstance(view, Btrfs):
                # what can't be made shorter stands in compressed bytes as it is
                for packed in view.packed(entry.node):
                    for extent in packed.places:
                        placed.update(dict.fromkeys(_inside(offsets, extent), places[0]))

    def entries(
        self, volume: Volume, files: FileSystem
    ) -> Iterator[tuple[FileSystem, Entry, tuple[Place, Place]]]:
        """All directories, files and links of a volume, with the places of their bytes
        and of their slack; of a Btrfs, those first that the installation mounts."""
        for view in self._views(volume, files):
            for entry in Tree(view.files, self._budget).walk("/"):
                if entry.node.is_dir or entry.node.is_file or entry.node.is_link:
                    yield view.files, entry, _in_file(volume, entry, view)

    def _views(self, volume: Volume, files: FileSystem) -> Iterator[_View]:
        shown = self._shown(volume)
        if not isinstance(files, Btrfs) or not shown:
            suffix = f" on {volume.title}" if volume.kind == "vfat" else ""
            yield _View(files, self.directory(volume), suffix=suffix)
            return
        for one in shown:
            inner = one.directory if self._is_root(volume) else one.path
            yield _View(one.files, one.directory, inner)
        yield _View(files, suffix=f" on {volume.title}, in a subvolume that is not mounted")


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
    placed: dict[int, Place],
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
            placed[at] = places[1 if slack and not sparse else 0]
        position += extent.length


def _sparse(files: FileSystem, node: Node) -> bool:
    """Whether positions can't be told by adding up extents: there are holes."""
    return sum(extent.length for extent in files.extents(node)) < node.size


def _inside(offsets: Sequence[int], extent: Extent) -> Sequence[int]:
    first = bisect.bisect_left(offsets, extent.offset)
    last = bisect.bisect_left(offsets, extent.end)
    return offsets[first:last]


def _in_file(volume: Volume, entry: Entry, view: _View) -> tuple[Place, Place]:
    path, inner = view.directory + entry.path, view.inner + entry.path
    where = (path if path != "/" else "the root directory") + view.suffix
    if entry.node.is_dir:
        place = Place(f"the directory {where}", volume=volume)
        return place, place
    return (
        Place(where, path, False, volume, entry.node, inner),
        Place(f"{where}, behind its end", path, True, volume, entry.node, inner),
    )
