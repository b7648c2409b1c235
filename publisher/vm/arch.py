"""What differs between processor architectures, in one table."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from publisher.errors import HostError
from publisher.model import Arch


@dataclass(frozen=True, slots=True)
class Platform:
    """How a guest of one architecture is run by QEMU and made bootable by Debian.

    `efi_code` and `efi_secure` list (code, variables) pairs of EDK II images,
    the preferred first; `efi_secure` holds Microsoft's keys and enforces them.
    """

    arch: Arch
    host_names: tuple[str, ...]
    qemu: str
    qemu_package: str
    machine: str
    cpu: str
    efi: tuple[tuple[str, str], ...]
    efi_secure: tuple[tuple[str, str], ...]
    efi_package: str
    bios: bool
    console: str
    debian_arch: str
    debian_kernel: str
    debian_boot: tuple[str, ...]
    efi_suffix: str


PLATFORMS: dict[Arch, Platform] = {
    "x86_64": Platform(
        arch="x86_64",
        host_names=("x86_64", "amd64"),
        qemu="qemu-system-x86_64",
        qemu_package="qemu-system-x86",
        machine="q35,graphics=off",
        cpu="max",
        efi=(
            ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
            ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ),
        efi_secure=(
            ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
            ("/usr/share/OVMF/OVMF_CODE.ms.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"),
        ),
        efi_package="ovmf",
        bios=True,
        console="ttyS0,115200",
        debian_arch="amd64",
        debian_kernel="linux-image-cloud-amd64",
        debian_boot=("grub-cloud-amd64",),
        efi_suffix="x64",
    ),
}


def platform_of(arch: Arch) -> Platform:
    """The table's row. Raises HostError for an architecture that is not in it."""
    try:
        return PLATFORMS[arch]
    except KeyError:
        known = ", ".join(PLATFORMS)
        raise HostError(
            f"guests of architecture {arch} can't be built yet",
            key="image.arch",
            hint=f"use one of: {known}",
        ) from None


def is_native(arch: Arch) -> bool:
    """True when this machine's processor is of that architecture."""
    return platform.machine().lower() in platform_of(arch).host_names
