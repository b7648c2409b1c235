"""Guest OS features that an installation really supports.

The features: https://cloud.google.com/compute/docs/images/create-custom#guest-os-features.
What those of Confidential VMs need:
https://cloud.google.com/confidential-computing/confidential-vm/docs/create-custom-confidential-vm-images
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, get_args

from providers.gcp.options import Feature
from publisher.proof.checks import blacklists, boot, initramfs
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.kernel import Kernel

Lack: TypeAlias = str
"""Why a feature is not supported, "" if it is."""


def lacks(disk: Inspection) -> Mapping[Feature, Lack]:
    """Every feature that the disk can tell about, with what it lacks. Raises
    Unreadable where the kernel says nothing of its drivers."""
    found: dict[Feature, Lack] = {}
    for kernel in initramfs.kernels(disk):
        for feature in get_args(Feature):
            check = _CHECKS.get(feature)
            if check is not None:
                found[feature] = found.get(feature) or check(disk, kernel)
    return found


def _driver(module: str) -> Callable[[Inspection, Kernel], Lack]:
    def check(disk: Inspection, kernel: Kernel) -> Lack:
        if kernel.driver(module) == "absent":
            return f"kernel {kernel.version} has no driver {module}"
        refused = blacklists.refusal(disk, kernel, module, early=False)
        return f"the driver {module} is not loaded: {refused.text}" if refused else ""

    return check


def _since(
    major: int, minor: int, long_term: tuple[int, int] | None = None
) -> Callable[[Inspection, Kernel], Lack]:
    """The kernel is not older than this, or of the `long_term` series. The number of
    an enterprise kernel (5.14.0-570.el9) says nothing, it holds much of newer ones:
    https://github.com/osbuild/images/blob/main/pkg/cloud/gcp/compute.go."""

    def check(_disk: Inspection, kernel: Kernel) -> Lack:
        if kernel.number >= (major, minor) or kernel.number == long_term:
            return ""
        if ".el" in kernel.version:
            return ""
        return f"kernel {kernel.version} is older than {major}.{minor}"

    return check


def _built(*symbols: str) -> Callable[[Inspection, Kernel], Lack]:
    """The kernel was built with these options, as a module or not."""

    def check(_disk: Inspection, kernel: Kernel) -> Lack:
        if not kernel.config():
            return f"kernel {kernel.version} does not tell of its configuration"
        missing = [symbol for symbol in symbols if symbol not in kernel.config()]
        return f"kernel {kernel.version} is built without {missing[0]}" if missing else ""

    return check


def _all(*checks: Callable[[Inspection, Kernel], Lack]) -> Callable[[Inspection, Kernel], Lack]:
    def check(disk: Inspection, kernel: Kernel) -> Lack:
        return next((lack for one in checks if (lack := one(disk, kernel))), "")

    return check


def _uefi(disk: Inspection, _kernel: Kernel) -> Lack:
    fault = boot.uefi_fault(disk)
    return fault.text if fault else ""


def _signed(disk: Inspection, _kernel: Kernel) -> Lack:
    return next((found.text for found in boot.unsigned(disk)), "")


def _linux(_disk: Inspection, _kernel: Kernel) -> Lack:
    return "the installation is Linux"


# Memory encryption works by the kernel's own support only:
# https://docs.kernel.org/arch/x86/amd-memory-encryption.html,
# https://docs.kernel.org/virt/coco/sev-guest.html, https://docs.kernel.org/arch/x86/tdx.html.
# Confidential VMs have NVMe disks and gVNIC only.
_DEVICES = _all(_driver("nvme"), _driver("gve"))
_SEV = _all(_uefi, _built("CONFIG_AMD_MEM_ENCRYPT"), _DEVICES)
_SNP = _all(_SEV, _built("CONFIG_SEV_GUEST"))
_CHECKS: Mapping[str, Callable[[Inspection, Kernel], Lack]] = {
    "BARE_METAL_LINUX_COMPATIBLE": _all(_uefi, _driver("nvme"), _driver("idpf")),
    "CCA_CAPABLE": _all(_uefi, _built("CONFIG_ARM_CCA_GUEST")),
    "GVNIC": _driver("gve"),
    "IDPF": _driver("idpf"),
    "SECURE_BOOT": _all(_uefi, _signed),
    "SEV_CAPABLE": _SEV,
    "SEV_LIVE_MIGRATABLE": _SEV,
    "SEV_LIVE_MIGRATABLE_V2": _all(_SEV, _since(6, 6, long_term=(6, 1))),
    "SEV_SNP_CAPABLE": _SNP,
    "SNP_SVSM_CAPABLE": _SNP,
    "TDX_CAPABLE": _all(_uefi, _built("CONFIG_INTEL_TDX_GUEST"), _since(6, 6), _DEVICES),
    "UEFI_COMPATIBLE": _uefi,
    # 3.17: https://docs.ansible.com/ansible/latest/collections/google/cloud/
    # gcp_compute_image_module.html, from Google's description of the API
    "VIRTIO_SCSI_MULTIQUEUE": _all(_driver("virtio_scsi"), _since(3, 17)),
    "WINDOWS": _linux,
}
"""Those that are not here say nothing about a Linux guest's disk."""
