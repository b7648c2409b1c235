"""Sealing, seen from outside: nothing of the build is left in a disk whose guest was
cleaned (publisher.build.cleaning), and what was deleted is really gone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from publisher.build.cleaning import SSHD_DROP_IN
from publisher.build.layout import ROOT_OFFSET
from publisher.disks import holes
from publisher.errors import BuildError
from publisher.model import Extent
from publisher.task import Task
from publisher.vm import process

_ABSENT = (
    "/root/.ssh/authorized_keys",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    SSHD_DROP_IN,
    "/var/lib/cloud",
    "/var/lib/systemd/random-seed",
    "/var/log/wtmp",
    "/var/log/lastlog",
    "/var/log/cloud-init.log",
    "/root/.bash_history",
    "/etc/netplan/50-cloud-init.yaml",
)


def _tool(argv: Sequence[str], task: Task, keep: int = 1_000_000) -> process.Completed:
    return process.run(argv, task, keep=keep, env={**os.environ, "LC_ALL": "C"})


def prove(
    disk: Path, task: Task, *, keys_expected: bool = False, offset: int = ROOT_OFFSET
) -> None:
    """Raise BuildError when the sealed file system at `offset` is damaged or still
    holds a trace of the build. `keys_expected`: root has keys that are not ours."""
    task.phase("sealing: proving")
    root = f"{disk}?offset={offset}"
    checked = _tool(["e2fsck", "-f", "-n", root], task)
    if checked.status:
        raise BuildError(f"the sealed file system is damaged:\n{checked.text}")
    left = []
    for path in _ABSENT:
        if keys_expected and path.endswith("authorized_keys"):
            continue
        if "Inode:" in _tool(["debugfs", "-R", f"stat {path}", root], task).text:
            left.append(path)
    machine_id = _tool(["debugfs", "-R", "stat /etc/machine-id", root], task).text
    size = re.search(r"\bSize: (\d+)", machine_id)  # the first one; later comes "Fragment: Size"
    if size is None or int(size[1]):
        left.append("/etc/machine-id")
    if left:
        raise BuildError(f"sealing left traces of the build: {', '.join(left)}")


def free_blocks(listing: str, block: int) -> Iterator[Extent]:
    """The free ranges that dumpe2fs lists, as bytes within the file system."""
    for line in listing.splitlines():
        match = re.match(r"\s+Free blocks: (\d.*)", line)
        if match is None:
            continue
        for piece in match[1].split(","):
            first, _, last = piece.strip().partition("-")
            length = (int(last or first) - int(first) + 1) * block
            yield Extent(int(first) * block, length)


def erase(disk: Path, task: Task, *, offset: int = ROOT_OFFSET) -> int:
    """Make every free block of the ext file system at `offset` a hole (zeros where
    the host's file system has no holes); returns the bytes that were free. It is for
    the store to make that last."""
    task.phase("sealing: erasing free space")
    named = Path(f"{disk}?offset={offset}")
    # dumpe2fs 1.47.2 wants a file of this whole name to exist before it takes the offset from it.
    named.touch()
    try:
        listing = _tool(["dumpe2fs", str(named)], task).text
    finally:
        named.unlink()
    size = re.search(r"^Block size:\s+(\d+)", listing, re.MULTILINE)
    if size is None:
        raise BuildError(f"the sealed file system can't be read:\n{listing}")
    erased = 0
    with disk.open("r+b") as file:
        for extent in free_blocks(listing, int(size[1])):
            holes.clear(file.fileno(), Extent(offset + extent.offset, extent.length), task.check)
            erased += extent.length
    return erased
