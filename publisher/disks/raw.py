"""Raw disks: reading by position, digests that hash holes without reading them,
and writing a sparse file in any order."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from publisher.closing import Closing
from publisher.disks import extents as ext
from publisher.errors import HostError, PublishError
from publisher.memory import boot_id
from publisher.model import GIB, MIB, Disk, Extent
from publisher.task import Task

_PIECE = 64 * MIB
LARGEST = 16 * 1024 * GIB
"""The digest of a larger disk, holes and all, takes many hours."""


@functools.lru_cache(maxsize=8)
def _zero_bytes(size: int) -> bytes:
    return bytes(size)


def is_zero(data: bytes) -> bool:
    """True when all bytes are zero: one memcmp (a memoryview would compare
    byte by byte)."""
    return data == _zero_bytes(len(data))


class Reader(Closing):
    """Positioned reads of a Disk's virtual bytes; thread-safe. Reading beyond
    the end gives zeros, so the last block of any size comes out whole."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        try:
            self._handle = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot read {disk.path}: {error.strerror}") from error

    @property
    def size(self) -> int:
        return self.disk.size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._handle, length, offset)
        while len(data) < length:
            more = os.pread(self._handle, length - len(data), offset + len(data))
            if not more:
                return data + bytes(length - len(data))
            data += more
        return data

    def blocks(self, block: int) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of every block that an extent touches, ascending, the
        last one padded with zeros to `block` bytes."""
        for index in ext.blocks(self.disk.extents, block, self.disk.size):
            yield index, self.read(index * block, block)

    def stream(self, chunk: int = 4 * MIB) -> Iterator[bytes]:
        """All virtual bytes in order; holes come as zeros and are not read."""
        position = 0
        for extent in self.disk.extents:
            yield from zeros(extent.offset - position, chunk)
            for at in range(extent.offset, extent.end, chunk):
                yield self.read(at, min(chunk, extent.end - at))
            position = extent.end
        yield from zeros(self.disk.size - position, chunk)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def zeros(length: int, chunk: int = 4 * MIB) -> Iterator[bytes]:
    """`length` zero bytes in pieces that share one buffer."""
    while length >= chunk:
        yield _zero_bytes(chunk)
        length -= chunk
    if length:
        yield _zero_bytes(length)


def _ahead(handle: int, extents: Iterable[Extent], chunk: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the extents in pieces of at most `chunk` bytes, each read while the
    one before is looked at."""
    pieces = (
        (at, min(chunk, extent.end - at))
        for extent in extents
        for at in range(extent.offset, extent.end, chunk)
    )
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        before: tuple[int, Future[bytes]] | None = None
        for at, length in pieces:
            coming = pool.submit(os.pread, handle, length, at)
            if before is not None:
                yield before[0], before[1].result()
            before = at, coming
        if before is not None:
            yield before[0], before[1].result()


def inspect(
    path: Path,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] | None = None,
) -> Disk:
    """The Disk in a raw file: its digest and its extents, those 64 KiB-aligned
    and without runs of zeros. One pass over the data; holes are hashed, not read.
    Raises PublishError for a disk larger than LARGEST."""
    unit = 64 * 1024
    chunk = 4 * MIB
    digest = hashlib.sha256()
    found: list[Extent] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise PublishError(
                f"{path} is a disk of {size // (1024 * GIB)} TiB, whose digest takes many hours",
                hint="shrink it: what is behind the last partition can be cut off",
            )
        position = 0
        whole = ext.align(ext.of_file(file.fileno(), size), unit, size)
        for at, data in _ahead(file.fileno(), whole, chunk):
            for piece in zeros(at - position, chunk):
                check()
                digest.update(piece)
            check()
            digest.update(data)
            found.extend(
                Extent(at + start, min(unit, len(data) - start))
                for start in range(0, len(data), unit)
                if not is_zero(data[start : start + unit])
            )
            position = at + len(data)
            if progress is not None:
                progress(position)
        for piece in zeros(size - position, chunk):
            check()
            digest.update(piece)
    return Disk(path, size, digest.hexdigest(), ext.merge(found))


def write_out(path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Have a file survive a loss of power, in pieces that a cancellation need not wait
    for as a whole. sync_file_range(2): that alone promises nothing, fsync then does."""
    before_and_after = 0x1 | 0x2 | 0x4  # wait before, write, wait after
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, _PIECE):
            check()
            offset, length = ctypes.c_int64(at), ctypes.c_int64(_PIECE)
            libc.sync_file_range(file.fileno(), offset, length, before_and_after)
        check()
        os.fsync(file.fileno())


class SparseWriter(Closing):
    """Writes a sparse raw file in any order from any thread, and remembers what
    was written in a ledger of the task, so that the next run goes on.

    Data goes to `into` + ".partial"; `finish` renames it. After a loss of power the
    ledger may know of pieces that never reached the disk, so it is believed only in
    the boot of the host in which it was written.
    """

    def __init__(self, into: Path, size: int, task: Task) -> None:
        self.into = into
        self.size = size
        self._partial = into.with_name(into.name + ".partial")
        self._ledger = task.memory.ledger("written")
        self._lock = threading.Lock()
        into.parent.mkdir(parents=True, exist_ok=True)
        whole = self._partial.exists() and self._partial.stat().st_size == size
        if not whole or task.memory.get("written in boot") != boot_id():
            self._ledger.clear()
            self._partial.unlink(missing_ok=True)
        task.memory.set("written in boot", boot_id())
        self._handle = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._handle, size)
        self._written = {
            int(entry.split()[0]): int(entry.split()[1]) for entry in self._ledger.entries()
        }

    def has(self, offset: int, length: int) -> bool:
        """True when exactly this piece was written by an earlier run."""
        return self._written.get(offset) == length

    def write(self, offset: int, data: bytes) -> None:
        """Write one piece; zeros stay holes. Raises HostError when the disk is full."""
        try:
            if not is_zero(data):
                view = memoryview(data)
                while view:
                    count = os.pwrite(self._handle, view, offset + len(data) - len(view))
                    view = view[count:]
        except OSError as error:
            raise HostError(
                f"cannot write {self._partial}: {error.strerror}",
                hint="free some space, then run the same command again: it continues",
            ) from error
        self._ledger.add(f"{offset} {len(data)}")
        with self._lock:
            self._written[offset] = len(data)

    def finish(self) -> Path:
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1
        os.replace(self._partial, self.into)
        return self.into

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
