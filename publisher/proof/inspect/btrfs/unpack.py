"""What Btrfs compresses: extents of at most 128 KiB, each by itself."""

from __future__ import annotations

import zlib
from typing import Protocol

from publisher.fetch.decode import Zstd, zstd_module
from publisher.model import MIB
from publisher.proof.inspect.btrfs import lzo
from publisher.proof.inspect.budget import Damaged, Unreadable

UNPACKED_MOST = 1 * MIB
"""The longest extent that is accepted, packed or not; Linux writes 128 KiB."""
_ZLIB, _LZO, _ZSTD = 1, 2, 3
_WINDOW = 17
"""Log2 of the window of zstd's frames (Linux' ZSTD_BTRFS_MAX_WINDOWLOG)."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, most: int, /) -> bytes: ...


def unpack(kind: int, data: bytes, size: int, sector: int) -> bytes:
    """The `size` bytes that were compressed; zeros for those that are missing, as
    Linux does. Raises Damaged, and Unreadable for an unknown `kind`."""
    try:
        if kind == _ZLIB:
            found = _whole(zlib.decompressobj(), data, size)
        elif kind == _LZO:
            found = lzo.decompress(data, size, sector)
        elif kind == _ZSTD:
            found = _zstd(data, size)
        else:
            raise Unreadable(f"the file is compressed in a way that is not known here ({kind})")
    except (EOFError, zlib.error) as error:
        raise Damaged(f"a compressed extent is damaged: {error}") from error
    return found.ljust(size, b"\0")


def _zstd(data: bytes, size: int) -> bytes:
    module = zstd_module()
    if module is None:
        # a process for each of thousands of extents takes longer than anyone waits
        raise Unreadable(
            "the file is compressed with zstd, and this Python has no module for it",
            hint="install the Python package backports.zstd",
        )
    return _whole(Zstd(module, _WINDOW), data, size)


def _whole(decoder: _Decoder, data: bytes, size: int) -> bytes:
    found = decoder.decompress(data, size)
    if len(found) < size and not decoder.eof:
        raise EOFError("it ends too early")
    return found
