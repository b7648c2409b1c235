"""What Btrfs compresses: extents of at most 128 KiB, each by itself."""

from __future__ import annotations

import io
import zlib

from publisher.errors import HostError
from publisher.fetch.decode import decoded
from publisher.model import MIB
from publisher.proof.inspect.btrfs import lzo
from publisher.proof.inspect.budget import Damaged, Unreadable

MOST = 1 * MIB
"""The longest extent that is accepted, packed or unpacked."""
_ZLIB, _LZO, _ZSTD = 1, 2, 3


def unpack(kind: int, data: bytes, size: int, sector: int) -> bytes:
    """The `size` bytes that were compressed; zeros for those that are missing, as
    Linux does. Raises Damaged, and Unreadable for an unknown `kind`."""
    if size > MOST or len(data) > MOST:
        raise Damaged(f"a compressed extent has {size} bytes")
    try:
        if kind == _ZLIB:
            found = zlib.decompressobj().decompress(data, size)
        elif kind == _LZO:
            found = lzo.decompress(data, size, sector)
        elif kind == _ZSTD:
            found = _zstd(data, size)
        else:
            raise Unreadable(f"the file is compressed in a way that is not known here ({kind})")
    except (EOFError, zlib.error, OSError) as error:
        raise Damaged(f"a compressed extent is damaged: {error}") from error
    except HostError as error:
        raise Unreadable(error.message, hint=error.hint) from error
    return found.ljust(size, b"\0")


def _zstd(data: bytes, size: int) -> bytes:
    # the frame's window is at most 128 KiB (ZSTD_BTRFS_MAX_WINDOWLOG)
    found = b""
    with decoded(io.BytesIO(data), "zstd", memory=8 * MIB) as stream:
        while len(found) < size and (more := stream.read(size - len(found))):
            found += more
    return found
