"""What a guest finds in its machine: identity, controllers, a CD, a TPM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Controller: TypeAlias = Literal["nvme", "virtio-scsi", "virtio-blk"]


@dataclass(frozen=True, slots=True)
class Board:
    """`smbios` are values of QEMU's -smbios option; `disk` is what all drives hang
    on; `cdrom` is an ISO file, which boots when no drive does; `tpm` the number of a
    socket that is connected to swtpm's control channel and that QEMU inherits; `bare`
    leaves out the controllers of QEMU's board that machines of clouds have not."""

    smbios: tuple[str, ...] = ()
    disk: Controller = "virtio-blk"
    nic: str = "virtio-net-pci"
    cdrom: Path | None = None
    tpm: int | None = None
    bare: bool = False

    def drive_devices(self, number: int, order: int | None = None) -> list[str]:
        """Arguments that attach the drive disk{number}; `order` is its place in the
        order of booting, without it its number."""
        order = number if order is None else order
        if self.disk == "virtio-blk":
            return ["-device", f"virtio-blk-pci,drive=disk{number},bootindex={order}"]
        if self.disk == "nvme":
            serial = f"serial=disk{number}"
            return ["-device", f"nvme,drive=disk{number},{serial},bootindex={order}"]
        return [
            *("-device", f"virtio-scsi-pci,id=scsi{number}"),
            *("-device", f"scsi-hd,bus=scsi{number}.0,drive=disk{number},bootindex={order}"),
        ]

    def arguments(self, tpm: str) -> list[str]:
        """Arguments for all but drives and network; `tpm` is the platform's kind."""
        argv = [word for value in self.smbios for word in ("-smbios", value)]
        if self.cdrom is not None:
            # not SATA: kernels made for clouds have no driver for it
            argv += ["-drive", f"if=none,id=cd,media=cdrom,format=raw,file={comma(self.cdrom)}"]
            argv += ["-device", "virtio-scsi-pci,id=cdbus"]
            argv += ["-device", "scsi-cd,bus=cdbus.0,drive=cd,bootindex=100"]
        if self.tpm is not None:
            argv += ["-chardev", f"socket,id=tpm,fd={self.tpm}"]
            argv += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", f"{tpm},tpmdev=tpm0"]
        return argv


PLAIN = Board()


def comma(path: Path | str) -> str:
    """A value inside a QEMU option, where a comma is doubled."""
    return str(path).replace(",", ",,")
