"""Which other files a disk file tells its reader to open: any of those that its user may
read, if the disk file may choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from publisher.disks.detect import Part
from publisher.disks.references import qcow2, vhd, vmdk


def references(kind: str, part: Part, path: Path | None) -> Iterator[str]:
    """The names in a disk file of qemu's format `kind`, but for a VMDK's extents next to
    its text, which is in the file `path` (None: in an archive).

    Raises PublishError for what may be read in more than one way.
    """
    if kind == "qcow2":
        yield from qcow2.references(part)
    elif kind == "vmdk":
        yield from vmdk.references(part, path)
    elif kind == "vpc":
        yield from vhd.references(part)
    elif kind == "vhdx":
        yield from vhd.references_of_vhdx(part)
