"""A qcow2's backing file and external data file (docs/interop/qcow2.txt of QEMU)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from publisher.disks.detect import Part
from publisher.disks.references import text

_DATA_FILE = 1 << 2
"""An incompatible feature."""
_DATA_NAME = 0x44415441
_EXTENSIONS_MOST = 64
_V2_HEADER, _V3_HEADER = 72, 104


def references(part: Part) -> Iterator[str]:
    head = part.read(0, _V3_HEADER).ljust(_V3_HEADER, b"\0")
    version, backing, length = struct.unpack_from(">IQI", head, 4)
    if backing:
        yield text.name(part.read(backing, min(length, text.MOST)))
    features, at = 0, _V2_HEADER
    if version >= 3:
        features, at = struct.unpack_from(">Q20xI", head, 72)
    names = list(_data_names(part, at))
    yield from names
    if features & _DATA_FILE and not names:
        yield text.UNNAMED


def _data_names(part: Part, at: int) -> Iterator[str]:
    for _ in range(_EXTENSIONS_MOST):
        kind, length = struct.unpack(">II", part.read(at, 8).ljust(8, b"\0"))
        if not kind:
            return
        if kind == _DATA_NAME:
            yield text.name(part.read(at + 8, min(length, text.MOST)))
        at += 8 + -(-length // 8) * 8
