"""A VMDK's extents and parent (VMware, "Virtual Disk Format 5.0"), as QEMU finds them."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from publisher.disks.detect import Part
from publisher.disks.references import text
from publisher.errors import PublishError
from publisher.model import MIB, SECTOR

_TEXT_MOST = MIB
_NAME_MOST = 255
_PARENT = re.compile(rb'parentFileNameHint(?:\s*=\s*"?([^"\r\n]*))?')
_LINE = re.compile(rb"#.*|[\w.:-]+\s*=.*", re.ASCII)
_EXTENT = re.compile(rb'(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"\r]+)"(?:\s+\d+)?)?')
_FLAT = (b"FLAT", b"VMFS")


def references(part: Part, path: Path | None) -> Iterator[str]:
    head = part.read(0, 64)
    if head[:4] not in (b"KDMV", b"COWD"):
        yield from _in_text(part.read(0, _TEXT_MOST), path)
        return
    # the text of a sparse VMDK is read for its parent alone
    yield from _parents(part.read(SECTOR, 20 * SECTOR))
    text_at = _text_for_data(head)
    if text_at:
        yield from _in_text(part.read(text_at, _TEXT_MOST), path)


def _text_for_data(head: bytes) -> int:
    """Where a sparse VMDK without a capacity has a text that names its extents, else 0."""
    if head[:4] != b"KDMV":
        return 0
    capacity, text_at = struct.unpack_from("<Q8xQ", head.ljust(64, b"\0"), 12)
    return 0 if capacity else int(text_at) * SECTOR


def _parents(raw: bytes) -> Iterator[str]:
    for found in _PARENT.finditer(raw.partition(b"\0")[0]):
        yield text.name(found[1] or b"")


def _in_text(raw: bytes, path: Path | None) -> Iterator[str]:
    yield from _parents(raw)
    # strict: a line that QEMU takes apart in another way could hide an extent
    for line in filter(None, map(bytes.strip, raw.partition(b"\0")[0].split(b"\n"))):
        if _LINE.fullmatch(line):
            continue
        extent = _EXTENT.fullmatch(line)
        if extent is None:
            raise PublishError(f"the text of the VMDK has the line {text.name(line[:80])!r}")
        kind, name = extent.groups()
        if name is not None and not (path and _is_beside(name, kind, path)):
            yield text.name(name)


def _is_beside(name: bytes, kind: bytes, path: Path) -> bool:
    """Whether an extent is a plain file in the text's directory, and tells of no more."""
    own = path.parent / os.fsdecode(name)
    if b"/" in name or len(name) > _NAME_MOST or own.is_symlink() or not own.is_file():
        return False
    if kind in _FLAT:
        return True
    with own.open("rb") as file:
        return not _text_for_data(file.read(64))
