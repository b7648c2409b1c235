"""Which format a disk file has, by its own bytes: qemu's tools are always told, because
what they guess may be a format that reads other files."""

from __future__ import annotations

import os
from typing import BinaryIO

from publisher.disks import vhd
from publisher.errors import PublishError
from publisher.model import Extent

_READ = (
    (0, b"QFI\xfb\0\0\0\2", "qcow2"),
    (0, b"QFI\xfb\0\0\0\3", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, vhd.COOKIE, "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
_REFUSED = (
    (0, b"QFI\xfb", "qcow of another version than 2 and 3"),
    (0, b"QED\0", "QED"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format", "cloop"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (-512, b"koly", "DMG"),
)
_HEAD = 4096


class Part:
    """The bytes of a file that are a disk file: all of it, or a part of an archive."""

    def __init__(self, file: BinaryIO, extent: Extent | None = None) -> None:
        self._file = file
        self._extent = extent or Extent(0, os.fstat(file.fileno()).st_size)

    @property
    def size(self) -> int:
        return self._extent.length

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes at the end, none beyond it."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        self._file.seek(self._extent.offset + offset)
        return self._file.read(length)


def detect(part: Part) -> str:
    """qemu's name of the format, "raw" for what has no mark of another. Raises
    PublishError for a format that is not read here."""
    found = _marked(part, _READ)
    if found:
        return found
    refused = _marked(part, _REFUSED)
    if refused:
        raise PublishError(
            f"its format is {refused}, which is not read",
            hint="convert it first: qemu-img convert -O qcow2 FILE disk.qcow2",
        )
    if _is_descriptor(part.read(0, _HEAD)):
        return "vmdk"
    return "vpc" if _is_fixed_vhd(part) else "raw"


def _marked(part: Part, marks: tuple[tuple[int, bytes, str], ...]) -> str:
    for at, mark, name in marks:
        if part.read(at if at >= 0 else part.size + at, len(mark)) == mark:
            return name
    return ""


def _is_descriptor(head: bytes) -> bool:
    """The text of a VMDK: its first line that is no comment tells a version."""
    lines = (line.strip() for line in head.partition(b"\0")[0].splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    return first.startswith(b"version=")


def _is_fixed_vhd(part: Part) -> bool:
    """Its mark is at the end."""
    try:
        return vhd.parse(part.read(part.size - vhd.FOOTER, vhd.FOOTER)) == part.size - vhd.FOOTER
    except vhd.VhdError:
        return False
