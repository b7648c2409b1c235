"""How fstab and the kernel's command line name devices (fstab(5), udev(7))."""

from __future__ import annotations

import re
from collections.abc import Sequence

from publisher.proof.inspect import lvm
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.volume import Volume

_NAMED = re.compile(r"/dev/(sd|vd|xvd|hd|nvme|mmcblk)")
_BUILDERS = re.compile(
    r"/dev/(mapper/)?(loop|nbd)\d|/dev/disk/by-path/"
    r"|/dev/disk/by-id/(ata|mmc|nvme|scsi|usb|virtio|wwn)-(?!.*(amazon|google|msft))",
    re.IGNORECASE,
)


def named(name: str, volumes: Sequence[Volume]) -> Volume | None:
    """The volume that UUID=…, LABEL=, PARTUUID=, PARTLABEL=, /dev/disk/by-…/… or
    the path of a logical volume names; None where the disk has no such volume.
    Raises Unreadable for other names, which say nothing about one disk."""
    logical = lvm.named(name)
    group = logical.partition("/")[0]
    if logical and group in {volume.name.partition("/")[0] for volume in volumes}:
        return next((volume for volume in volumes if volume.name == logical), None)
    found = re.fullmatch(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", name)
    key, _, value = name.partition("=")
    if found:
        key, value = found.groups()
    key, value = key.upper(), value.strip('"')
    if key not in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        raise Unreadable(f"{name} says nothing about a certain disk")
    for volume in volumes:
        part = volume.partition
        own = {
            "UUID": volume.uuid,
            "LABEL": volume.label,
            "PARTUUID": part.guid if part else "",
            "PARTLABEL": part.name if part else "",
        }[key]
        same = own.lower() == value.lower() if "UUID" in key else own == value
        if own and same:
            return volume
    return None


def names_a_bus(device: str) -> bool:
    """Whether a device is named by the order in which machines find disks."""
    return bool(_NAMED.match(device))


def names_a_builder(device: str) -> bool:
    """Whether a device is one by which a tool reached the disk file it wrote to (what
    grub-mkconfig names in a chroot where udev made no /dev/disk/by-uuid), or by the
    slot or the serial number that the disk had."""
    return bool(_BUILDERS.match(device))
