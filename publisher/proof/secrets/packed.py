"""Files that the file system compresses: no byte of the disk shows what they say, so they
are searched one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from publisher.model import MIB, Extent
from publisher.proof.inspect.btrfs import Btrfs
from publisher.proof.inspect.filesystem import Node
from publisher.proof.secrets.engine import Engine, Hit
from publisher.proof.secrets.places import Place, Volumes
from publisher.proof.secrets.rule import REACH

_WINDOW = 4 * MIB
_AROUND = MIB // 4
"""What is kept of the file around a window, for judges that look further."""


class _Content:
    """A file's bytes, of which the last part read is kept; zeros behind its end."""

    def __init__(self, files: Btrfs, node: Node) -> None:
        self._files = files
        self._node = node
        self._start = 0
        self._kept = b""
        self.size = node.size

    def keep(self, start: int, end: int) -> None:
        self._kept = self._stream(start, end - start)
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        at = offset - self._start
        if at >= 0 and at + length <= len(self._kept):
            return self._kept[at : at + length]
        return self._stream(offset, length).ljust(length, b"\0")

    def _stream(self, offset: int, length: int) -> bytes:
        found = bytearray()
        for piece in self._files.stream(self._node, offset):
            found += piece[: length - len(found)]
            if len(found) == length:
                break
        return bytes(found)


def packed_hits(volumes: Volumes, engine: Engine) -> Iterator[tuple[Hit, Place]]:
    """What is found in compressed files, and where; the offset of a hit is that in its
    file. Raises Unreadable, or what else a damaged disk raises."""
    for volume in volumes.all:
        if not isinstance(volume.files, Btrfs):
            continue
        seen: set[tuple[int, int]] = set()
        for files, entry, places in volumes.entries(volume, volume.files):
            if not entry.node.is_file or not isinstance(files, Btrfs):
                continue
            new = []
            for packed in files.packed(entry.node):
                # snapshots and links share what they have
                if packed.source not in seen:
                    seen.add(packed.source)
                    new.append(packed.part)
            content = _Content(files, entry.node)
            for hit in _hits(content, _joined(new), engine):
                yield hit, replace(places[0], inside=hit.offset)


def _hits(content: _Content, runs: Sequence[Extent], engine: Engine) -> Iterator[Hit]:
    for run in runs:
        for at in range(run.offset, min(run.end, content.size), _WINDOW):
            length = min(_WINDOW, run.end - at, content.size - at)
            content.keep(max(0, at - _AROUND), at + length + _AROUND)
            yield from engine.scan(content, at, length)


def _joined(extents: Sequence[Extent]) -> Sequence[Extent]:
    found: list[Extent] = []
    for extent in extents:
        if found and extent.offset - found[-1].end <= REACH:
            found[-1] = Extent(found[-1].offset, extent.end - found[-1].offset)
        else:
            found.append(extent)
    return found
