"""Writes a disk in the format of a virtualization platform: whole, verified and
repeatable, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from publisher.disks import raw, vhd
from publisher.disks.formats import identity, ova, ovf, qemu_img
from publisher.disks.formats.ovf import Hardware
from publisher.disks.formats.vmdk import end_stream
from publisher.errors import HostError, PublishError, UsageError
from publisher.model import MIB, Arch, Disk, Firmware
from publisher.task import Task

__all__ = ["DRIVERS", "FORMATS", "SUFFIXES", "Format", "Hardware", "export", "file_digest"]

Format: TypeAlias = Literal["qcow2", "vmdk", "ova", "vhd", "vhd-fixed", "vhdx", "vdi", "raw"]
FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: Mapping[Format, str] = {
    "qcow2": ".qcow2",
    "vmdk": ".vmdk",
    "ova": ".ova",
    "vhd": ".vhd",
    "vhd-fixed": ".fixed.vhd",
    "vhdx": ".vhdx",
    "vdi": ".vdi",
    "raw": ".raw",
}
"""How a file of each format ends."""

# `lsilogic` in the descriptor stands for all that is not IDE.
_STREAM = ("-o", "subformat=streamOptimized,adapter_type=lsilogic,hwversion=13")
_CONVERTED: Mapping[Format, tuple[str, tuple[str, ...]]] = {
    "qcow2": ("qcow2", ("-c", "-o", "compat=1.1")),
    "vmdk": ("vmdk", _STREAM),
    # Without force_size qemu-img rounds the size up to whole cylinders.
    "vhd": ("vpc", ("-o", "subformat=dynamic,force_size=on")),
    "vhdx": ("vhdx", ("-o", "subformat=dynamic")),
    "vdi": ("vdi", ()),
}
"""qemu-img's name and options of the formats that it writes well."""

DRIVERS: Mapping[str, str] = {
    **{to: driver for to, (driver, _) in _CONVERTED.items()},
    "vhd-fixed": "vpc",
    "raw": "raw",
}
"""qemu-img's name of each format that it reads as it is."""


def export(
    disk: Disk,
    to: Format,
    into: Path,
    task: Task,
    *,
    name: str,
    arch: Arch,
    firmware: Firmware,
    version: str = "",
    hardware: Hardware | None = None,
) -> Sequence[Path]:
    """Write `disk` to the file `into` in the format `to`; returns the files written.

    The file appears under its name once it was read back and found equal to
    the disk; whatever stood there is replaced. The same disk, names and
    qemu-img give the same bytes. `name` to `hardware` go into an OVA.
    Raises UsageError, HostError or PublishError; Cancelled leaves nothing behind.
    """
    if to not in FORMATS:
        raise UsageError(f"there is no format {to!r}", hint=f"known are: {', '.join(FORMATS)}")
    into = into.absolute()
    if into.is_dir():
        raise UsageError(f"{into} is a directory", hint="give the name of a file")
    # A directory, because a VMDK holds its own file's name.
    scratch = into.with_name(f".{into.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        partial = scratch / into.name
        if to == "ova":
            _ova(disk, partial, task, name, version, arch, firmware, hardware or Hardware())
        elif to in _CONVERTED:
            _converted(disk, to, partial, task)
        else:
            _flat(disk, partial, task, footer=to == "vhd-fixed")
        _sync(partial)
        os.replace(partial, into)
    except OSError as error:
        raise HostError(
            f"cannot write {into}: {error.strerror or error}",
            hint="check the directory, its permissions and the free space",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [into]


def _converted(disk: Disk, to: Format, path: Path, task: Task) -> None:
    driver, options = _CONVERTED[to]
    qemu_img.convert(disk, path, driver, options, task)
    identity.settle(path, driver, disk.sha256)
    if driver == "vmdk":
        end_stream(path)
    qemu_img.verify(disk, path, driver, task)


def _ova(
    disk: Disk,
    path: Path,
    task: Task,
    name: str,
    version: str,
    arch: Arch,
    firmware: Firmware,
    hardware: Hardware,
) -> None:
    stem = ovf.file_stem(name)
    vmdk = path.with_name(f"{stem}-disk1.vmdk")
    _converted(disk, "vmdk", vmdk, task)
    package = ovf.Package(
        name=name,
        version=version,
        arch=arch,
        firmware=firmware,
        file=vmdk.name,
        file_size=vmdk.stat().st_size,
        capacity=disk.size,
        populated=disk.data_bytes,
        hardware=hardware,
    )
    descriptor = ovf.descriptor(package).encode()
    task.phase("packing the OVA")
    digests = {
        f"{stem}.ovf": hashlib.sha256(descriptor).hexdigest(),
        vmdk.name: file_digest(vmdk, task),
    }
    texts = {f"{stem}.ovf": descriptor, f"{stem}.mf": ovf.manifest(digests).encode()}

    def advance(done: int) -> None:
        task.check()
        task.progress(done, package.file_size)

    ova.write(path, texts, vmdk, vmdk.name, advance)
    inside = ova.find_disk(path, task.check)
    if inside.extent.length != package.file_size:
        raise PublishError(f"{path.name} does not hold the whole disk")


def _flat(disk: Disk, path: Path, task: Task, *, footer: bool) -> None:
    """A raw copy that keeps the holes, with the footer of a fixed VHD or none."""
    task.phase("copying the disk")
    done = 0
    with raw.Reader(disk) as reader, path.open("w+b") as file:
        file.truncate(disk.size)
        for extent in disk.extents:
            file.seek(extent.offset)
            for at in range(extent.offset, extent.end, 4 * MIB):
                task.check()
                piece = reader.read(at, min(4 * MIB, extent.end - at))
                file.write(piece)
                done += len(piece)
                task.progress(done, disk.data_bytes)
    task.phase(f"comparing {path.name} with the disk")
    if raw.inspect(path, task.check).sha256 != disk.sha256:
        raise PublishError(f"{path.name} differs from the disk", hint="is the disk still whole?")
    if footer:
        with path.open("ab") as file:
            file.write(vhd.footer(disk.size, disk.sha256))
        qemu_img.verify(disk, path, "vpc", task)


def file_digest(path: Path, task: Task) -> str:
    """SHA-256 of a whole file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(4 * MIB):
            task.check()
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
