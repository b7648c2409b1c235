"""What a lab boots: a disk file that is read and never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from publisher.errors import HostError, StateError
from publisher.model import Arch, Firmware, Noun
from publisher.task import Task
from publisher.vm import host, process
from publisher.vm.arch import platform_of

Boot: TypeAlias = Literal["bios", "uefi", "uefi-secure"]
BOOTS: tuple[Boot, ...] = ("bios", "uefi", "uefi-secure")


def preferred(firmware: Firmware, arch: Arch) -> Boot:
    """How a disk for `firmware` is booted: by BIOS where it can be, which starts faster."""
    return "bios" if "bios" in firmware and platform_of(arch).bios else "uefi"


@dataclass(frozen=True, slots=True)
class Image(Noun):
    """`format` is qemu-img's word, `stamp` changes when somebody writes the file."""

    title: str
    path: Path
    format: str
    arch: Arch
    boot: Boot
    stamp: str = ""

    @classmethod
    def of(cls, title: str, path: Path, kind: str, arch: Arch, boot: Boot) -> Self:
        """Raises HostError for a machine without BIOS that is to boot by it."""
        if boot == "bios" and not platform_of(arch).bios:
            raise HostError(f"{arch} has no BIOS", hint="use --firmware uefi")
        return cls(title, path.absolute(), kind, arch, boot, _stamp(path))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "path": Path(data["path"])})

    def check(self) -> None:
        """Raise StateError when the file is not the one that it was: what was written
        over it does not fit any more."""
        try:
            now = _stamp(self.path)
        except OSError as error:
            raise StateError(
                f"the disk {self.path} can't be read: {error.strerror}",
                hint="put it back, or begin with another image",
            ) from error
        if now != self.stamp:
            raise StateError(
                f"the disk {self.path} was changed since the snapshot was made",
                hint="put the old one back, or begin with the new one and without --restore",
            )

    def overlay(self, path: Path, task: Task) -> Path:
        """An empty qcow2 layer over it."""
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", self.format]
        done = process.run([*argv, "-b", str(self.path), str(path)], task)
        if done.status:
            raise HostError(f"qemu-img failed: {done.text}")
        return path

    def firmware(self) -> tuple[Path, Path] | None:
        """EDK II's code and variables, None for the BIOS. Raises HostError."""
        if self.boot == "bios":
            return None
        return host.efi_firmware(platform_of(self.arch), secure=self.boot == "uefi-secure")


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"
