"""What an image's definition may claim of a disk, and what is missing for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from providers.azure.options import ACCELERATED, NVME, TRUSTED
from publisher.proof.checks import blacklists, boot, initramfs
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.rules import Check, Evidence

DRIVERS = ("mlx5_core", "mana")
"""Of accelerated networking: ConnectX-4 Lx and newer, and Microsoft's own adapter."""

no_nvme: Check = initramfs.early("nvme", "pci_hyperv")


def absent(disk: Inspection, kernel: Kernel) -> list[str]:
    """The drivers of accelerated networking that a kernel lacks or may not load; one is
    enough."""
    return [
        module
        for module in DRIVERS
        if kernel.driver(module) == "absent"
        or blacklists.refusal(disk, kernel, module, early=False)
    ]


def not_accelerated(disk: Inspection) -> Iterator[Evidence]:
    for kernel in initramfs.kernels(disk):
        lacking = absent(disk, kernel)
        if len(lacking) == len(DRIVERS):
            text = f"kernel {kernel.version} loads no driver {' and no driver '.join(lacking)}"
            yield Evidence(text, kernel.directory)


def not_trusted(disk: Inspection) -> Iterator[Evidence]:
    fault = boot.uefi_fault(disk)
    yield from [fault] if fault is not None else boot.unsigned(disk)


def abilities(disk: Inspection) -> Sequence[str]:
    """Raises Unreadable where the disk does not tell of its drivers."""
    checks = {TRUSTED: not_trusted, NVME: no_nvme, ACCELERATED: not_accelerated}
    return [ability for ability, lacks in checks.items() if not list(lacks(disk))]
