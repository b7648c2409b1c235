"""What qemu-img leaves out of a stream-optimized VMDK (VMware, "Virtual Disk Format 5.0")."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import PublishError
from publisher.model import SECTOR


def end_stream(path: Path) -> None:
    """Append the end-of-stream marker: a sector of zeros, as its kind is 0.

    Importers that read the file in order look for a next grain or this marker;
    where the disk ends in a hole they would else run into the end of the file.
    (qemu-img leaves zeros there only if the last grain became smaller.)
    """
    with path.open("ab") as file:
        if file.tell() % SECTOR:
            raise PublishError(f"{path.name} does not end at a sector")
        file.write(bytes(SECTOR))
