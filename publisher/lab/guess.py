"""How a disk of unknown making boots."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import HostError
from publisher.lab.image import Boot
from publisher.model import SECTOR, Arch
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import platform_of

_CODE = 440
"""Bytes of boot code in a master boot record; all zeros where only UEFI boots it."""


def guess_boot(path: Path, kind: str, arch: Arch, scratch: Path, task: Task) -> Boot:
    """BIOS where the disk has code for it, because it starts faster. Raises HostError
    when qemu-img can't read the file."""
    if not platform_of(arch).bios:
        return "uefi"
    scratch.unlink(missing_ok=True)
    argv = ["qemu-img", "dd", "-f", kind, "-O", "raw", f"bs={SECTOR}", "count=1"]
    done = process.run([*argv, f"if={path}", f"of={scratch}"], task)
    try:
        if done.status:
            raise HostError(f"qemu-img failed: {done.text}")
        return "bios" if any(scratch.read_bytes()[:_CODE]) else "uefi"
    finally:
        scratch.unlink(missing_ok=True)
