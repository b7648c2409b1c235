"""The names in an initramfs: concatenated cpio archives, the first ones (early
microcode) plain, the last one mostly compressed.

Format: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable, Iterator

from publisher.errors import HostError
from publisher.fetch.decode import Readable, decoded
from publisher.model import GIB, MIB
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable

NAMES_MOST = 300_000
_NAME_MOST = 4096
_TEXT_MOST = 32 * MIB
"""Of all names: those of distributions have 2 MiB."""
UNPACKED_MOST = 2 * GIB
"""Of one initramfs: those of distributions have less than a quarter of it."""
_MEMORY = 160 * MIB
"""What a decoder may take: initramfs-tools' `xz -9` needs 65 MiB, `zstd -19` 8 MiB."""
_HEADER = 110
_MAGIC = {
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO": "lzo",
    b"]\x00\x00": "lzma",
}


def names(pieces: Iterable[bytes], budget: Budget) -> Iterator[str]:
    """The paths inside, without a leading slash, as they come; nothing is kept.

    Raises Damaged for what is no initramfs, Unreadable for a compression that
    can't be undone here, Exhausted for one that unpacks without end.
    """
    count, length = 0, 0
    try:
        for name in _archives(_Pieces(pieces), budget, 1):
            count, length = count + 1, length + len(name)
            if count > NAMES_MOST:
                raise Damaged(f"it holds more than {NAMES_MOST} names")
            if length > _TEXT_MOST:
                raise Damaged(f"its names have more than {_TEXT_MOST // MIB} MiB")
            yield name
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise Damaged(f"it is damaged or cut short: {error}") from error
    except HostError as error:
        raise Unreadable(error.message, hint=error.hint) from error


class _Pieces:
    """A stream of pieces as something to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Metered:
    """What comes out of a decoder, drawn from the budget."""

    def __init__(self, source: Readable, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._left = UNPACKED_MOST

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Damaged(f"it unpacks to more than {UNPACKED_MOST // MIB} MiB")
        self._budget.charge(len(data))
        return data


def _archives(source: Readable, budget: Budget, layers: int) -> Iterator[str]:
    stream = _Buffered(source)
    found = False
    while stream.skip_zeros():
        head = stream.head(6)
        if head in (b"070701", b"070702"):
            yield from _cpio(stream, budget)
            found = True
            continue
        packing = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
        if not packing:
            if found:
                return  # the kernel, too, stops here
            raise Damaged("it is neither a cpio archive nor compressed")
        if not layers:
            raise Damaged("it is compressed more than once")
        if packing not in ("xz", "gzip", "zstd", "bzip2", "lz4", "lzma"):
            raise Unreadable(f"it is compressed with {packing}")
        with decoded(stream, packing, memory=_MEMORY) as inner:
            yield from _archives(_Metered(inner, budget), budget, layers - 1)
        return


class _Buffered:
    """A stream that can be looked at, skipped and read exactly."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self.position = 0

    def _fill(self, size: int) -> bool:
        while len(self._buffer) - self._at < size:
            more = self._source.read(max(size, 256 * 1024))
            if not more:
                return False
            self._buffer = self._buffer[self._at :] + more
            self._at = 0
        return True

    def head(self, size: int) -> bytes:
        self._fill(size)
        return self._buffer[self._at : self._at + size]

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none only at the end."""
        if self._at == len(self._buffer) and not self._fill(1):
            return b""
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        if not self._fill(size):
            raise EOFError("it ends too early")
        return self.read(size)

    def skip(self, size: int) -> None:
        while size:
            data = self.read(size)
            if not data:
                raise EOFError("it ends too early")
            size -= len(data)

    def skip_zeros(self) -> bool:
        """Go on to the next byte that is not zero; False at the end."""
        while self._at < len(self._buffer) or self._fill(1):
            rest = self._buffer[self._at :].lstrip(b"\0")
            self.position += len(self._buffer) - self._at - len(rest)
            self._buffer, self._at = rest, 0
            if rest:
                return True
        return False


def _cpio(stream: _Buffered, budget: Budget) -> Iterator[str]:
    start = stream.position
    while True:
        budget.charge()
        header = stream.exactly(_HEADER)
        if header[:6] not in (b"070701", b"070702"):
            raise Damaged("an entry of its cpio archive is damaged")
        try:
            size, length = int(header[54:62], 16), int(header[94:102], 16)
        except ValueError as error:
            raise Damaged("an entry of its cpio archive is damaged") from error
        if not 1 <= length <= _NAME_MOST:
            raise Damaged(f"a name in its cpio archive has {length} bytes")
        name = stream.exactly(length)[:-1].decode(errors="backslashreplace")
        stream.skip(-(stream.position - start) % 4)
        if name == "TRAILER!!!":
            return
        stream.skip(size)
        stream.skip(-(stream.position - start) % 4)
        yield name.lstrip("./")
