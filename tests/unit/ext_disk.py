"""Disks with a small ext4 file system in a partition, for tests of the proofs."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from publisher.build import partition
from publisher.model import MIB
from publisher.vm import host

START = MIB
"""Where the partition begins."""


def ext_disk(
    directory: Path, files: Mapping[str, str | bytes], *, size: int = 24 * MIB, name: str = "disk"
) -> Path:
    """A raw disk with a GPT and one ext4 partition that holds `files` by path."""
    tree = directory / f"{name}.tree"
    for path, content in files.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    tree.mkdir(exist_ok=True)
    disk = directory / f"{name}.raw"
    room = partition.last_usable(size) - START
    kind, guid = partition.ROOT["x86_64"], uuid.UUID(int=1)
    root = partition.Partition(1, kind, guid, "root", START, room)
    head, tail = partition.table(uuid.UUID(int=2), size, [root])
    with disk.open("wb") as made:
        made.write(head)
        made.seek(size - len(tail))
        made.write(tail)
    subprocess.run(
        [
            *(host.require("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree)),
            *("-E", f"offset={START},nodiscard", str(disk), f"{room // 1024}k"),
        ],
        check=True,
    )
    return disk
