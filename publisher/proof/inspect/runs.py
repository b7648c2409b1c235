"""Files as runs of blocks, as ext and XFS keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.storage import Storage

_PIECE = 1 * MIB

Run: TypeAlias = tuple[int, int, int]
"""(first block within the file, blocks, first block of the disk or 0 for zeros)."""


def content(
    storage: Storage, budget: Budget, runs: Iterable[Run], block: int, size: int, offset: int
) -> Iterator[bytes]:
    """The bytes of a file of `size` bytes from `offset` on, in pieces. The runs ascend,
    what they leave out is a hole; `block` is a block's size."""
    position = offset
    for first, count, physical in runs:
        start, end = first * block, (first + count) * block
        if end <= position:
            continue
        yield from _zeros(budget, position, min(start, size))
        position = max(position, min(start, size))
        while position < min(end, size):
            length = min(_PIECE, end - position, size - position)
            if physical:
                yield storage.read(physical * block + position - start, length)
            else:
                yield from _zeros(budget, position, position + length)
            position += length
        if position >= size:
            return
    yield from _zeros(budget, position, size)


def places(runs: Iterable[Run], block: int) -> Iterator[Extent]:
    """Where the runs lie, without those of zeros."""
    for _, count, physical in runs:
        if physical:
            yield Extent(physical * block, count * block)


def _zeros(budget: Budget, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        length = min(_PIECE, end - start)
        budget.charge(length)
        yield bytes(length)
        start += length
