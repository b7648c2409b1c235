"""LVM's own files, where the disk has logical volumes."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import WARNING, Evidence, Rule

_DEVICES = "/etc/lvm/devices/system.devices"
_ENTRY = "IDTYPE="


def _devices(disk: Inspection) -> Iterator[Evidence]:
    if not any(volume.name for volume in disk.volumes()):
        return
    for number, line in disk.tree().lines(_DEVICES):
        if line.startswith(_ENTRY):
            yield Evidence("lvm is told to use only certain disks, by their ids", _DEVICES, number)
            return


RULES = (
    Rule(
        "lvm.devices",
        WARNING,
        "LVM looks for its volumes on every disk",
        "Installers list the disk that they wrote to in system.devices by serial number or WWID. "
        "Machines of a cloud have disks with other ids, on which lvm then sees no volumes.",
        "https://man7.org/linux/man-pages/man8/lvmdevices.8.html",
        "remove /etc/lvm/devices/system.devices in the last build step",
        _devices,
    ),
)
