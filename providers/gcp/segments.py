"""What worker.py sends: a gzip stream of records without the zeros, closed by a digest."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from providers.gcp.api import PROVIDER
from publisher.errors import ProviderError

RECORD = struct.Struct(">QI")
END = 2**64 - 1
RECORD_MOST = 1024 * 1024

Records: TypeAlias = Iterator[tuple[int, bytes]]


def records(stream: Iterable[bytes]) -> Records:
    """Unpack a segment as worker.py writes it. Raises ProviderError, transient,
    if it is damaged: then at the end, so nothing counts before that."""
    from isal import isal_zlib

    unpack = isal_zlib.decompressobj(31)
    waiting = bytearray()
    digest = hashlib.sha256()
    damaged = ProviderError("what the worker sent is damaged", provider=PROVIDER, transient=True)
    for piece in stream:
        try:
            waiting += unpack.decompress(piece)
        except isal_zlib.error:  # type: ignore[misc]
            raise damaged from None
        at = 0
        while len(waiting) - at >= RECORD.size:
            offset, length = RECORD.unpack_from(waiting, at)
            if length > RECORD_MOST:
                raise damaged
            end = at + RECORD.size + length
            if len(waiting) < end:
                break
            data = bytes(waiting[at + RECORD.size : end])
            if offset == END:
                if data != digest.digest() or end != len(waiting):
                    raise damaged
                for _ in stream:  # to its end, where the object's checksum is compared
                    pass
                return
            digest.update(waiting[at:end])
            at = end
            yield offset, data
        del waiting[:at]
    raise damaged
