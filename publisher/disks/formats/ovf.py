"""The OVF descriptor (DMTF DSP0243 1.1) of a machine with one disk, and its manifest.

What the machine has must match the drivers of the image. Debian's cloud kernel
has NVMe built in, and as modules PVSCSI, virtio-scsi, ata_piix, vmxnet3 and
virtio-net; it lacks AHCI, LSI and E1000. NVMe boots by UEFI in VMware (since
hardware version 13) and in VirtualBox; only IDE boots by BIOS in both.
VirtualBox takes neither the firmware from a descriptor (it chooses BIOS) nor
a vmxnet3: its users set the first and ask for `ide` or `virtio` here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from xml.sax.saxutils import escape, quoteattr

from publisher.model import Arch, Firmware

Controller: TypeAlias = Literal["nvme", "ide", "pvscsi", "ahci", "lsilogic"]
Network: TypeAlias = Literal["vmxnet3", "virtio", "e1000"]

STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_NVME_SINCE = "vmx-13"

_CONTROLLERS: Mapping[Controller, tuple[int, str, str]] = {
    "nvme": (20, "vmware.nvme.controller", "NVMe controller"),
    "ahci": (20, "vmware.sata.ahci", "SATA controller"),
    "pvscsi": (6, "VirtualSCSI", "SCSI controller"),
    "lsilogic": (6, "lsilogic", "SCSI controller"),
    "ide": (5, "", "IDE controller"),
}
# As the importers spell them; an unknown one becomes the importer's default.
_NETWORKS: Mapping[Network, str] = {"vmxnet3": "VmxNet3", "virtio": "VirtioNet", "e1000": "E1000"}
_CDROM = 15

# Names as cloud-init's OVF data source reads them.
_PROPERTIES = (
    ("instance-id", "Identity of the instance"),
    ("hostname", "Host name"),
    ("public-keys", "SSH public keys of the default user"),
    ("user-data", "cloud-init user data, in base64"),
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine that an OVF asks for. `controller` None: NVMe where the disk
    boots by UEFI, else IDE. `memory` is in MiB."""

    cpus: int = 2
    memory: int = 2048
    controller: Controller | None = None
    network: Network = "vmxnet3"

    def controller_for(self, firmware: Firmware) -> Controller:
        return self.controller or ("ide" if firmware == "bios" else "nvme")


@dataclass(frozen=True, slots=True)
class Package:
    """What the descriptor says of the disk: `file` with `file_size` bytes holds
    `capacity` virtual bytes, `populated` of them outside holes."""

    name: str
    version: str
    arch: Arch
    firmware: Firmware
    file: str
    file_size: int
    capacity: int
    populated: int
    hardware: Hardware = Hardware()


def file_stem(name: str) -> str:
    """`name` for the files of a package: what is the same as a URI, decoded or not,
    and in a line of the manifest."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "disk"


def descriptor(package: Package) -> str:
    """The descriptor as XML text; the same package gives the same text."""
    hardware = package.hardware
    name, file = quoteattr(package.name), quoteattr(package.file)
    efi = "bios" if package.firmware == "bios" else "efi"
    guest = ' vmw:osType="otherLinux64Guest"' if package.arch == "x86_64" else ""
    version = f"\n      <Version>{escape(package.version)}</Version>" if package.version else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"\
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"\
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"\
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"\
 xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href={file} ovf:id="file1" ovf:size="{package.file_size}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="{package.capacity}" ovf:diskId="disk1" ovf:fileRef="file1"\
 ovf:format="{STREAM_OPTIMIZED}" ovf:populatedSize="{package.populated}"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="VM Network">
      <Description>The network of the machine</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id={name}>
    <Info>A virtual machine</Info>
    <Name>{escape(package.name)}</Name>
    <OperatingSystemSection ovf:id="101"{guest}>
      <Info>The operating system</Info>
      <Description>Linux, 64 bits, {package.arch}</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection ovf:transport="iso com.vmware.guestInfo">
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{escape(package.name)}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>{_NVME_SINCE}</vssd:VirtualSystemType>
      </System>
{_items(hardware, hardware.controller_for(package.firmware), package.arch)}
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{efi}"/>
    </VirtualHardwareSection>
    <ProductSection ovf:required="false">
      <Info>The image</Info>
      <Product>{escape(package.name)}</Product>{version}
{_properties(package)}
    </ProductSection>
  </VirtualSystem>
</Envelope>
"""


_Item: TypeAlias = Mapping[str, str | int]


def _items(hardware: Hardware, controller: Controller, arch: Arch) -> str:
    """The hardware items; their elements in the alphabetical order that CIM demands."""
    items: tuple[_Item, ...] = (
        {
            "AllocationUnits": "hertz * 10^6",
            "Description": "Number of virtual CPUs",
            "ElementName": f"{hardware.cpus} virtual CPU(s)",
            "InstanceID": 1,
            "ResourceType": 3,
            "VirtualQuantity": hardware.cpus,
        },
        {
            "AllocationUnits": "byte * 2^20",
            "Description": "Memory size",
            "ElementName": f"{hardware.memory} MiB of memory",
            "InstanceID": 2,
            "ResourceType": 4,
            "VirtualQuantity": hardware.memory,
        },
        _controller(controller, 3),
        {
            "AddressOnParent": 0,
            "ElementName": "Hard disk 1",
            "HostResource": "ovf:/disk/disk1",
            "InstanceID": 4,
            "Parent": 3,
            "ResourceType": 17,
        },
        {
            "AddressOnParent": 7,
            "AutomaticAllocation": "true",
            "Connection": "VM Network",
            "Description": f"{_NETWORKS[hardware.network]} network adapter",
            "ElementName": "Network adapter 1",
            "InstanceID": 5,
            "ResourceSubType": _NETWORKS[hardware.network],
            "ResourceType": 10,
        },
        *_cdrom(controller, arch),
    )
    lines = []
    for item in items:
        optional = ' ovf:required="false"' if item["ResourceType"] == _CDROM else ""
        lines.append(f"      <Item{optional}>")
        lines += [f"        <rasd:{k}>{escape(str(v))}</rasd:{k}>" for k, v in item.items()]
        lines.append("      </Item>")
    return "\n".join(lines)


def _controller(controller: Controller, instance: int) -> _Item:
    kind, sub_type, title = _CONTROLLERS[controller]
    return {
        "Address": 0,
        "Description": title,
        "ElementName": f"{title} 0",
        "InstanceID": instance,
        **({"ResourceSubType": sub_type} if sub_type else {}),
        "ResourceType": kind,
    }


def _cdrom(disk: Controller, arch: Arch) -> tuple[_Item, ...]:
    """An empty drive: the transport "iso" brings the properties on a CD (DSP0243, 11).
    It shares the disk's controller where that is the architecture's own."""
    own: Controller = "ide" if arch == "x86_64" else "ahci"
    shared = disk == own
    drive: _Item = {
        "AddressOnParent": 1 if shared else 0,
        "AutomaticAllocation": "false",
        "ElementName": "CD-ROM 1",
        "InstanceID": 7,
        "Parent": 3 if shared else 6,
        "ResourceSubType": "vmware.cdrom.remotepassthrough",
        "ResourceType": _CDROM,
    }
    return (drive,) if shared else (_controller(own, 6), drive)


def _properties(package: Package) -> str:
    lines = []
    for key, label in _PROPERTIES:
        value = f"{package.name}-{package.version}".rstrip("-") if key == "instance-id" else ""
        lines.append(
            f'      <Property ovf:key="{key}" ovf:type="string" ovf:userConfigurable="true"'
            f" ovf:value={quoteattr(value)}>"
        )
        lines.append(f"        <Label>{label}</Label>")
        lines.append("      </Property>")
    return "\n".join(lines)


def manifest(digests: Mapping[str, str]) -> str:
    """The .mf file: SHA-256 in hex by file name, in the form of DSP0243, 5.1."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in digests.items())
