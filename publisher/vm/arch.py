"""What differs between processor architectures, in one table."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from publisher.errors import HostError
from publisher.model import Arch


@dataclass(frozen=True, slots=True)
class Platform:
    """How a guest of one architecture is run by QEMU and made bootable by Debian.

    `efi` and `efi_secure` list (code, variables) pairs of EDK II images, the
    preferred first; `efi_secure` holds Microsoft's keys and enforces them.
    `cpu` is the model under emulation, `panic` the device by which a guest tells
    that its kernel panicked, `tpm` the one that a TPM is; `bare` is added to `machine`
    where it is a cloud's, which have none of what it takes away; `consoles` are the serial
    consoles of QEMU and of the clouds, the one of QEMU last. `emulators` run programs
    on other hosts, the preferred first; `elf_machine` is their e_machine.
    """

    arch: Arch
    host_names: tuple[str, ...]
    qemu: str
    qemu_package: str
    machine: str
    bare: str
    cpu: str
    panic: str
    tpm: str
    emulators: tuple[str, ...]
    emulator_package: str
    elf_machine: int
    efi: tuple[tuple[str, str], ...]
    efi_secure: tuple[tuple[str, str], ...]
    efi_package: str
    bios: bool
    consoles: tuple[str, ...]
    debian_arch: str
    debian_kernel: str
    debian_boot: tuple[str, ...]
    efi_suffix: str


_X86_CPU = (
    # all instructions that x86-64-v3 systems demand …
    "max"
    # … without what costs an emulated guest much and gives it nothing: strings that are
    # copied byte by byte, a fifth level of page tables, keys and guards of pages, guests
    # of its own; MWAIT, which QEMU emulates with two processors by never being idle.
    # Where newer QEMUs have FSRM, Linux relies on ERMS with it, and else goes round in
    # circles (arch/x86/lib/memmove_64.S)
    ",-erms,-fsrm,-la57,-pku,-smap,-svm,-monitor"
    # Kernels that can be run by FIPS 140, as Debian 13's, prove each implementation of a
    # cipher to themselves when its module comes; udev loads those for AES and PCLMULQDQ
    # wherever a processor has them, and that takes an emulated one three seconds
    # (crypto/Kconfig: CRYPTO_FIPS, crypto/testmgr.c)
    ",-aes,-pclmulqdq"
    # A processor whose time stamps Linux trusts, instead of asking the HPET through QEMU's
    # lock each time, and that never speculates, so that nothing is done against that:
    # Bonnell, in arch/x86/kernel/cpu/common.c (cpu_vuln_whitelist) and intel.c
    ",vendor=GenuineIntel,family=6,model=28,stepping=10"
)

PLATFORMS: dict[Arch, Platform] = {
    "x86_64": Platform(
        arch="x86_64",
        host_names=("x86_64", "amd64"),
        qemu="qemu-system-x86_64",
        qemu_package="qemu-system-x86",
        machine="q35,graphics=off",
        # kernels load five modules for an AHCI without a disk
        bare=",sata=off,smbus=off",
        cpu=_X86_CPU,
        panic="pvpanic",
        tpm="tpm-crb",
        emulators=("qemu-x86_64-static", "qemu-x86_64"),
        emulator_package="qemu-user-static",
        elf_machine=62,
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
        consoles=("ttyS0,115200",),
        debian_arch="amd64",
        debian_kernel="linux-image-cloud-amd64",
        debian_boot=("grub-cloud-amd64",),
        efi_suffix="x64",
    ),
    "aarch64": Platform(
        arch="aarch64",
        host_names=("aarch64", "arm64"),
        qemu="qemu-system-aarch64",
        qemu_package="qemu-system-arm",
        machine="virt,gic-version=max",
        bare="",
        # the processor of AWS's, Google's and Azure's first machines for this
        # architecture; emulating the signed pointers of "max" takes much longer
        cpu="neoverse-n1",
        panic="pvpanic-pci",
        tpm="tpm-tis-device",
        emulators=("qemu-aarch64-static", "qemu-aarch64"),
        emulator_package="qemu-user-static",
        elf_machine=183,
        efi=(("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),),
        efi_secure=(("/usr/share/AAVMF/AAVMF_CODE.ms.fd", "/usr/share/AAVMF/AAVMF_VARS.ms.fd"),),
        efi_package="qemu-efi-aarch64",
        bios=False,
        consoles=("ttyS0,115200", "ttyAMA0,115200"),
        debian_arch="arm64",
        debian_kernel="linux-image-cloud-arm64",
        debian_boot=("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed"),
        efi_suffix="aa64",
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
