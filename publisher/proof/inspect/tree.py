"""The directory tree of an installation: its root file system with what its fstab
mounts on it. Symbolic links never lead outside, and are followed a bounded number
of times."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publisher.model import MIB
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.filesystem import LINK_MOST, FileSystem, Node

_LINKS_MOST = 40
"""As Linux: path_resolution(7)."""
_DEPTH_MOST = 100
_KEPT_MOST = 200_000
"""Names of directories that are kept."""
_LINE_MOST = 256 * 1024
TEXT_MOST = 16 * MIB
"""The most of a text file that is read."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is mounted somewhere: a file system, or why it can't be read."""

    files: FileSystem | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: `path` without links and dots."""

    path: str
    files: FileSystem
    node: Node


class Tree:
    """Paths are absolute. Everything raises Unreadable, or its kinds, where the
    answer lies in a file system that can't be read."""

    def __init__(self, root: FileSystem, budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self._mounts: dict[str, Mounted] = {}
        self._known: OrderedDict[tuple[FileSystem, int], Mapping[str, int]] = OrderedDict()
        self._kept = 0

    def mount(self, path: str, mounted: Mounted) -> None:
        """Put a file system on a directory (a canonical path such as /boot)."""
        self._mounts[path] = mounted

    # -- looking

    def find(self, path: str, *, follow: bool = True) -> Place | None:
        """Where a path leads; None where nothing is. `follow`: the last link, too."""
        if len(path) > LINK_MOST:
            raise Damaged("a path is longer than 4096 bytes")
        self._budget.charge()
        todo = [part for part in reversed(path.split("/")) if part]
        here = [self._enter("", self._root, self._root.root())]
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                if len(here) > 1:
                    here.pop()
                continue
            place = here[-1]
            if not place.node.is_dir:
                return None
            number = self._lookup(place, part)
            path = f"{place.path}/{part}"
            if number is None and path in self._mounts:
                # systemd makes the directory when it mounts something there
                here.append(self._enter(path, place.files, place.node))
                continue
            if number is None:
                return None
            node = place.files.node(number)
            if node.is_link and (todo or follow):
                self._budget.charge()
                links += 1
                if links > _LINKS_MOST:
                    return None
                target = place.files.link(node)
                todo += [piece for piece in reversed(target.split("/")) if piece]
                if len(todo) > LINK_MOST:
                    return None
                if target.startswith("/"):
                    del here[1:]
                continue
            here.append(self._enter(path, place.files, node))
        last = here[-1]
        return last if last.path else Place("/", last.files, last.node)

    def _enter(self, path: str, files: FileSystem, node: Node) -> Place:
        mounted = self._mounts.get(path)
        if mounted is None:
            return Place(path, files, node)
        if mounted.files is None:
            raise Unreadable(f"{path} is a file system of its own: {mounted.fault}")
        return Place(path, mounted.files, mounted.files.root())

    def _lookup(self, place: Place, name: str) -> int | None:
        names = self._names(place.files, place.node)
        if place.files.folds_case and name not in names:
            wanted = name.lower()
            return next((names[own] for own in names if own.lower() == wanted), None)
        return names.get(name)

    def _names(self, files: FileSystem, node: Node) -> Mapping[str, int]:
        """The entries of a directory, of which the last ones used are kept."""
        key = (files, node.number)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        found = files.names(node)
        self._known[key] = found
        self._kept += len(found) + 1
        while self._kept > _KEPT_MOST and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._kept -= len(oldest) + 1
        return found

    def exists(self, path: str) -> bool:
        return self.find(path) is not None

    def is_file(self, path: str) -> bool:
        place = self.find(path)
        return place is not None and place.node.is_file

    def link(self, path: str) -> str:
        """Where the link at a path points, "" where it is none."""
        place = self.find(path, follow=False)
        return place.files.link(place.node) if place is not None and place.node.is_link else ""

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted; empty where there is none."""
        place = self.find(path)
        if place is None or not place.node.is_dir:
            return []
        return sorted(self._names(place.files, place.node))

    def glob(self, pattern: str) -> list[str]:
        """The paths that fit, sorted; * and ? stay within one name, and find no
        hidden ones."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            if not any(mark in part for mark in "*?["):
                found = [f"{path}/{part}" for path in found]
                continue
            found = [
                f"{path}/{name}"
                for path in found
                for name in self._fitting(path or "/", part)
                if not name.startswith(".") or part.startswith(".")
            ]
        return [path for path in found if self.find(path, follow=False) is not None]

    def _fitting(self, path: str, pattern: str) -> list[str]:
        names = self.names(path)
        place = self.find(path)
        if place is None or not place.files.folds_case:
            return fnmatch.filter(names, pattern)
        return [name for name in names if fnmatch.fnmatchcase(name.lower(), pattern.lower())]

    def walk(self, top: str) -> Iterator[Place]:
        """All below a directory, without following links; each directory once, even if
        its file system is mounted in more than one place."""
        start = self.find(top)
        if start is None or not start.node.is_dir:
            return
        seen = {(start.files, start.node.number): start.files}
        todo = [start]
        while todo:
            place = todo.pop()
            for name in sorted(self._names(place.files, place.node), reverse=True):
                node = place.files.node(self._names(place.files, place.node)[name])
                below = self._enter(f"{place.path.rstrip('/')}/{name}", place.files, node)
                yield below
                if not below.node.is_dir:
                    continue
                key = (below.files, below.node.number)
                if key in seen:
                    if seen[key] is not below.files:
                        continue
                    raise Damaged(f"the directory {below.path} is in more than one place")
                if below.path.count("/") > _DEPTH_MOST:
                    raise Damaged(f"directories are more than {_DEPTH_MOST} deep")
                seen[key] = below.files
                todo.append(below)

    # -- reading

    def read(self, path: str, most: int = TEXT_MOST) -> bytes:
        """A file's first `most` bytes; empty where there is none."""
        return self.read_at(path, 0, most)

    def read_at(self, path: str, offset: int, most: int) -> bytes:
        """At most `most` bytes of a file from `offset` on."""
        place = self.find(path)
        if place is None or not place.node.is_file:
            return b""
        pieces: list[bytes] = []
        for piece in place.files.stream(place.node, offset):
            pieces.append(piece[:most])
            most -= len(pieces[-1])
            if most <= 0:
                break
        return b"".join(pieces)

    def text(self, path: str, most: int = TEXT_MOST) -> str:
        return self.read(path, most).decode(errors="replace")

    def lines(self, path: str) -> Iterator[tuple[int, str]]:
        """(line number, stripped line) of what is not empty and no comment with #,
        in the first TEXT_MOST bytes."""
        for number, line in enumerate(self._raw_lines(path), 1):
            stripped = line.strip()
            if stripped and not stripped.startswith(b"#"):
                yield number, stripped.decode(errors="replace")

    def _raw_lines(self, path: str) -> Iterator[bytes]:
        rest, left = b"", TEXT_MOST
        for piece in self.stream(path):
            *whole, rest = (rest + piece[:left]).split(b"\n")
            left -= len(piece)
            for line in whole:
                self._budget.charge()
                yield line
            if len(rest) > _LINE_MOST:
                raise Damaged(f"{path} has a line of more than {_LINE_MOST} bytes")
            if left <= 0:
                break
        yield rest

    def stream(self, path: str, offset: int = 0) -> Iterator[bytes]:
        place = self.find(path)
        if place is not None and place.node.is_file:
            yield from place.files.stream(place.node, offset)
