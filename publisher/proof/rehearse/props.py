"""What a rehearsed machine is made of, in files that go away with it: an overlay
over the disk, firmware variables of its own, a CD."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path

from publisher.errors import HostError
from publisher.model import GIB, Arch, Disk
from publisher.proof.guest import BootMode
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import platform_of
from publisher.vm.host import efi_firmware

GROWTH = 2 * GIB
"""By how much the machine's disk is larger than the image, as customers order it."""


def overlay(disk: Disk, path: Path, task: Task) -> Path:
    """A larger qcow2 file that takes all writes: the disk itself is only read."""
    size = -(-disk.size // GIB) * GIB + GROWTH
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", disk.format]
    done = process.run([*argv, "-b", str(disk.path.resolve()), str(path), str(size)], task)
    if done.status:
        raise HostError(f"qemu-img failed: {done.text}")
    return path


def firmware(boot: BootMode, arch: Arch, variables: Path) -> tuple[Path | None, Path | None]:
    """EDK II's code and a private copy of its variables; nothing for BIOS."""
    if boot == "bios":
        return None, None
    code, template = efi_firmware(platform_of(arch), secure=boot == "uefi-secure")
    shutil.copyfile(template, variables)
    return code, variables


def cd(files: Mapping[str, bytes], path: Path) -> Path:
    """An ISO 9660 image with the files at its root, by their names (Rock Ridge, Joliet)."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="rehearsal")
    try:
        for number, (name, content) in enumerate(files.items()):
            iso.add_fp(
                io.BytesIO(content),
                len(content),
                f"/FILE{number}.;1",
                rr_name=name,
                joliet_path=f"/{name}",
            )
        with path.open("wb") as file:
            path.chmod(0o600)
            iso.write_fp(file)
    finally:
        iso.close()
    return path
