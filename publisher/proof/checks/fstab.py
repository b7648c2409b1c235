"""What /etc/fstab mounts."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.proof.inspect import fstab, subvolumes
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.device_names import names_a_builder, names_a_bus
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, NOTE, WARNING, Evidence, Rule

_ELSEWHERE = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "overlay")
_VIRTUAL = ("tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "cgroup2", "efivarfs", "hugetlbfs")

_ALSO = {"ext4": ("ext2", "ext3"), "ext3": ("ext2",), "msdos": ("vfat",), "fat": ("vfat",)}
"""What a driver mounts besides its own kind."""


def _devices(disk: Inspection) -> Iterator[Evidence]:
    for mount in disk.fstab():
        if mount.kind in _ELSEWHERE or mount.kind in _VIRTUAL or "_netdev" in mount.options:
            continue
        if "noauto" in mount.options or {"bind", "rbind"} & set(mount.options):
            continue
        if mount.device in ("none", "tmpfs"):
            continue
        severity = WARNING if "nofail" in mount.options else None
        place = f"{mount.device} on {mount.directory}"
        if names_a_bus(mount.device) or names_a_builder(mount.device):
            text = f"{place} names its device by the order of disks"
            if names_a_builder(mount.device):
                text = f"{place} names a device of the machine on which the image was made"
            yield Evidence(text, fstab.PATH, mount.line, severity)
            continue
        if mount.device.startswith("/") and not mount.device.startswith("/dev/"):
            if not disk.tree().exists(mount.device):
                yield Evidence(f"{place}: no such file", fstab.PATH, mount.line, severity)
            continue
        try:
            volume = disk.device(mount.device)
        except Unreadable:
            text = f"{place} can't be checked without booting"
            yield Evidence(text, fstab.PATH, mount.line, NOTE)
            continue
        if volume is None:
            text = f"{place} is not on this disk"
            yield Evidence(text, fstab.PATH, mount.line, severity)
        elif volume.files and subvolumes.mounted(volume.files, mount.options) is None:
            text = f"{place}: {volume.title} has no {subvolumes.asked(mount.options)}"
            yield Evidence(text, fstab.PATH, mount.line, severity)
        elif volume.files and not _mounts_as(volume.files.kind, mount.kind):
            # the kernel has mounted the root by then, by what it holds
            severity = WARNING if mount.directory == "/" else severity
            text = f"{place}: {volume.title} is no {mount.kind}"
            yield Evidence(text, fstab.PATH, mount.line, severity)


def _mounts_as(kind: str, wanted: str) -> bool:
    """Whether a file system can be mounted as one of the kinds that fstab names."""
    return any(name in ("auto", kind) or kind in _ALSO.get(name, ()) for name in wanted.split(","))


RULES = (
    Rule(
        "fstab.device",
        ERROR,
        "fstab mounts only what this disk has, by UUID or label",
        "systemd waits 90 seconds for a device that is not there and then starts the emergency "
        "mode, without network.",
        "https://www.freedesktop.org/software/systemd/man/latest/systemd.mount.html#fstab",
        "name devices by UUID= or LABEL=, remove lines of other disks or add nofail to them",
        _devices,
    ),
)
