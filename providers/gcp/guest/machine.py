"""Compute Engine's machines: Google's SMBIOS strings, virtio-scsi or NVMe, and the
firmware that the image's guest OS features ask for."""

from __future__ import annotations

from collections.abc import Sequence

from providers.gcp.options import GcpOptions, features
from publisher.model import Spec
from publisher.proof.guest import BootMode, Controller, Look

ADDRESS = "169.254.169.254"
NAMES = ("metadata.google.internal", "metadata")

GVE = "gve: newer machine types have gVNIC, here virtio-net"
IDPF = "idpf: IDPF network cards, here virtio-net"
NVME = "names of disks (google-…), which Google's own NVMe controllers bring"
NETWORK = "a network of 32 bits with an MTU of 1460 and its routes from DHCP"
CONFIDENTIAL = {
    "SEV_CAPABLE": "memory encryption by AMD SEV",
    "SEV_SNP_CAPABLE": "memory encryption by AMD SEV-SNP",
    "TDX_CAPABLE": "memory encryption by Intel TDX",
}


def looks(options: GcpOptions, spec: Spec) -> Sequence[Look]:
    """On x86 a machine of the second generation with virtio-scsi first; machines of
    the third have NVMe, and take images with gVNIC only.

    An image with UEFI_COMPATIBLE boots by UEFI on a machine with a virtual TPM,
    Secure Boot off; SECURE_BOOT says that its loaders bear it:
    https://cloud.google.com/compute/shielded-vm/docs/creating-shielded-images
    https://cloud.google.com/compute/docs/machine-resource#disk_interface
    """
    if spec.arch == "aarch64":
        return (_look(options, spec, "c4a-standard-1", "nvme"),)
    second = _look(options, spec, "e2-small", "virtio-scsi")
    if "GVNIC" not in features(options, spec):
        return (second,)
    return second, _look(options, spec, "c3-standard-4", "nvme")


def _look(options: GcpOptions, spec: Spec, kind: str, disk: Controller) -> Look:
    declared = features(options, spec)
    boot: BootMode = "bios"
    if "UEFI_COMPATIBLE" in declared:
        boot = "uefi-secure" if "SECURE_BOOT" in declared else "uefi"
    by = {"bios": "BIOS", "uefi": "UEFI, vTPM", "uefi-secure": "UEFI, Secure Boot, vTPM"}[boot]
    unproven = [GVE] if "GVNIC" in declared or disk == "nvme" else []
    unproven += [IDPF] if "IDPF" in declared else []
    unshown = [NETWORK] + ([NVME] if disk == "nvme" else [])
    unshown += [text for feature, text in CONFIDENTIAL.items() if feature in declared]
    return Look(
        title=f"GCE {kind}, {by}",
        boot=boot,
        disk=disk,
        smbios=(
            "type=0,vendor=Google,version=Google,date=01/01/2011",
            "type=1,manufacturer=Google,product=Google Compute Engine,"
            "serial=GoogleCloud-{uuid},uuid={uuid}",
            "type=2,manufacturer=Google,product=Google Compute Engine,"
            "serial=Board-GoogleCloud-{uuid}",
            "type=3,manufacturer=Google",
        ),
        datasource="GCE",
        agents=("google-guest-agent.service", "google-guest-agent-manager.service"),
        tpm=boot != "bios",
        addresses=(ADDRESS,),
        names=dict.fromkeys(NAMES, ADDRESS),
        # machines of the third generation have gVNIC alone
        stand_ins={"virtio_net": "gve"} if disk == "nvme" else {},
        unproven=tuple(unproven),
        unshown=tuple(unshown),
    )
