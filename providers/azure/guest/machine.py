"""Azure's machines: Hyper-V's SMBIOS strings with Azure's asset tag, SCSI or NVMe, and
the generation and security type that the image's definition states."""

from __future__ import annotations

from collections.abc import Sequence

from providers.azure.options import AzureOptions
from publisher.model import Spec
from publisher.proof.guest import BootMode, Controller, Look

IMDS = "169.254.169.254"
WIRESERVER = "168.63.129.16"
ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
"""By which guests know Azure."""

STORAGE = "hv_vmbus, hv_storvsc: disks are Hyper-V's SCSI, here virtio-scsi"
NETWORK = "hv_netvsc: network cards are Hyper-V's, here virtio-net"
ACCELERATED = "mlx5_core, mlx4_core, mana: accelerated networking"
DHCP = "DHCP's option 245, with which Azure names the wire server"
KVP = "Hyper-V's key-value pairs, in which cloud-init also reports"
TEMPORARY = "the temporary disk (/dev/disk/cloud/azure_resource)"
NVME = "names of disks, which Azure's own NVMe controllers bring"
CONFIDENTIAL = "confidential machines: memory encryption by AMD SEV-SNP or Intel TDX"


def looks(options: AzureOptions, spec: Spec) -> Sequence[Look]:
    """As most machines of such an image are first; then what else it says that it bears.

    https://learn.microsoft.com/azure/virtual-machines/generation-2
    https://learn.microsoft.com/azure/virtual-machines/enable-nvme-interface
    """
    if options.generation_for(spec) == "V1":
        return (_look(options, spec, "Standard_B2s", "bios", "virtio-scsi"),)
    arm = spec.arch == "aarch64"
    older = "Standard_D2ps_v5" if arm else "Standard_D2s_v5"
    newer = "Standard_D2ps_v6" if arm else "Standard_D2s_v6"
    trusted: BootMode = "uefi" if options.security_for(spec) == "Standard" else "uefi-secure"
    found = [_look(options, spec, older, trusted, "virtio-scsi")]
    # …Supported also admits machines without Trusted Launch
    plain = options.security_for(spec).endswith("Supported")
    other: BootMode = "uefi" if plain else trusted
    if options.nvme_for(spec):
        found.append(_look(options, spec, newer, other, "nvme"))
    elif plain:
        found.append(_look(options, spec, older, other, "virtio-scsi"))
    return tuple(found)


def _look(options: AzureOptions, spec: Spec, kind: str, boot: BootMode, disk: Controller) -> Look:
    security = options.security_for(spec)
    secure = boot == "uefi-secure"
    by = {"bios": "Gen1, BIOS", "uefi": "Gen2, UEFI", "uefi-secure": "Gen2, Trusted Launch"}[boot]
    version = "7.0" if boot == "bios" else "Hyper-V UEFI Release v4.1"
    firmware = (
        "type=0,vendor=American Megatrends Inc.,version=090008,date=12/07/2018"
        if boot == "bios"
        else f"type=0,vendor=Microsoft Corporation,version={version},date=05/13/2024"
    )
    unproven = [STORAGE] if disk == "virtio-scsi" else []
    unproven += [NETWORK, *([ACCELERATED] if options.accelerated_for(spec) else [])]
    unshown = [DHCP, KVP, TEMPORARY, *([NVME] if disk == "nvme" else [])]
    unshown += [CONFIDENTIAL] if "ConfidentialVm" in security else []
    return Look(
        title=f"Azure {kind}, {by}",
        boot=boot,
        disk=disk,
        smbios=(
            firmware,
            f"type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,version={version},"
            "serial=0000-0000-0000-0000-0000-0000-00,uuid={uuid}",
            f"type=2,manufacturer=Microsoft Corporation,product=Virtual Machine,version={version}",
            f"type=3,manufacturer=Microsoft Corporation,version={version},asset={ASSET_TAG}",
        ),
        datasource="Azure",
        agents=("walinuxagent.service", "waagent.service"),
        tpm=secure,
        cdrom=True,
        reports_ready=True,
        addresses=(IMDS, WIRESERVER),
        stand_ins={
            "virtio_net": "hv_netvsc",
            **({"virtio_scsi": "hv_storvsc"} if disk == "virtio-scsi" else {}),
        },
        unproven=tuple(unproven),
        unshown=tuple(unshown),
    )
