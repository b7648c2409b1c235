"""Where a sparse file holds data, and splitting that into blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from publisher.model import Extent

PAGE = 4096


def of_file(handle: int, size: int) -> Iterator[Extent]:
    """The extents that the file system has allocated (SEEK_DATA/SEEK_HOLE);
    the whole file where it can't tell. They may still hold zeros."""
    position = 0
    while position < size:
        try:
            start = os.lseek(handle, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno == errno.EINVAL:
                yield Extent(position, size - position)
                return
            raise
        end = min(os.lseek(handle, start, os.SEEK_HOLE), size)
        if end > start:
            yield Extent(start, end - start)
        position = max(end, start + 1)


def merge(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """Sorted, overlaps and neighbours joined."""
    merged: list[Extent] = []
    for extent in sorted(extents, key=lambda e: e.offset):
        if extent.length <= 0:
            continue
        if merged and extent.offset <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Extent(last.offset, max(last.end, extent.end) - last.offset)
        else:
            merged.append(extent)
    return tuple(merged)


def align(extents: Iterable[Extent], block: int, size: int) -> tuple[Extent, ...]:
    """Grown outward to multiples of `block`, cut at `size`."""
    return merge(
        Extent(
            e.offset - e.offset % block,
            min(-(-e.end // block) * block, size) - (e.offset - e.offset % block),
        )
        for e in extents
    )


def blocks(extents: Iterable[Extent], block: int, size: int) -> Iterator[int]:
    """Ascending indices of the `block`-sized blocks that an extent touches."""
    for extent in align(extents, block, size):
        yield from range(extent.offset // block, -(-extent.end // block))


def holes(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """What lies between sorted extents."""
    position = 0
    for extent in extents:
        if extent.offset > position:
            yield Extent(position, extent.offset - position)
        position = extent.end
    if position < size:
        yield Extent(position, size - position)
