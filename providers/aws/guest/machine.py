"""EC2's machines: Nitro's SMBIOS strings, NVMe, the firmware that the AMI asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from providers.aws.options import AwsOptions, boot_mode
from publisher.model import Arch, Spec
from publisher.proof.guest import BootMode, Look

IPV4 = "169.254.169.254"
IPV6 = "fd00:ec2::254"
DNS = "169.254.169.253"
TYPES: Mapping[Arch, str] = {"x86_64": "t3.micro", "aarch64": "t4g.micro"}
"""Small machines of today that boot in every mode of their architecture."""

ENA = "ena: network cards are ENA, here virtio-net"
XEN = "xen-blkfront, xen-netfront: machines before Nitro (t2, m4) are Xen's"
NVME = "names of volumes (/dev/xvda), which Amazon's own NVMe controllers bring"
HOPS = "the hop limit of the metadata service's answers"
UEFI_DATA = "UEFI variables that an AMI may carry (uefi-data), so Secure Boot is off"


def looks(options: AwsOptions, spec: Spec) -> Sequence[Look]:
    """uefi-preferred is proved both ways: machine types without UEFI take the other.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot.html
    """
    return tuple(_look(options, spec, boot) for boot in _boots(options, spec))


def _boots(options: AwsOptions, spec: Spec) -> Iterator[BootMode]:
    mode = boot_mode(spec)
    if mode in ("uefi", "uefi-preferred"):
        yield "uefi"
    # a NitroTPM is offered to machines that boot by UEFI only
    if mode == "legacy-bios" or (mode == "uefi-preferred" and not options.tpm):
        yield "bios"


def _look(options: AwsOptions, spec: Spec, boot: BootMode) -> Look:
    kind = TYPES[spec.arch]
    tpm = options.tpm and boot == "uefi"
    by = "UEFI" if boot == "uefi" else "BIOS"
    return Look(
        title=f"EC2 {kind}, {by}" + (", NitroTPM" if tpm else ""),
        boot=boot,
        disk="nvme",
        smbios=(
            "type=0,vendor=Amazon EC2,version=1.0,date=10/16/2017",
            f"type=1,manufacturer=Amazon EC2,product={kind},serial={{uuid}},uuid={{uuid}}",
            "type=2,manufacturer=Amazon EC2,asset={instance}",
            "type=3,manufacturer=Amazon EC2,asset=Amazon EC2",
        ),
        datasource="Ec2",
        tpm=tpm,
        addresses=(IPV4, IPV6, DNS),
        stand_ins={"virtio_net": "ena"},
        # a 16550 on PCI (1d0f:8250), where QEMU's board has a PL011
        console="ttyS0" if spec.arch == "aarch64" else "",
        unproven=(ENA, XEN) if boot == "bios" else (ENA,),
        unshown=(NVME, HOPS, UEFI_DATA) if boot == "uefi" else (NVME, HOPS),
    )
