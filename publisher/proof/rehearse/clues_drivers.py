"""Which driver a kernel lacks that saw no disk, or no network card."""

from __future__ import annotations

import re
from collections.abc import Collection

from publisher.proof.guest import Controller
from publisher.proof.rehearse.evidence import Cause, Evidence
from publisher.proof.rehearse.remedies import rebuild_initramfs

_WAITS = re.compile(
    r"ALERT!\s+(\S+)|Gave up waiting for (?:root|suspend/resume)|"
    r"dracut-initqueue.*timeout|Timed out waiting for device .*?(\S+)|"
    r"Unable to mount root fs on (\S+)"
)
_DRIVERS: dict[Controller, tuple[str, str]] = {
    "nvme": ("nvme", r"nvme\d*: pci function|nvme\d+n1|nvme nvme\d"),
    "virtio-scsi": ("virtio_scsi", r"\bsd a|\[sda\]|scsi host\d+: Virtio SCSI"),
    "virtio-blk": ("virtio_blk", r"\bvd[a-z]:|virtio_blk"),
}
"""The driver of each controller, and what the console says once it has found a disk."""
_CARD = "virtio_net"
_EARLY = ("built in", "initramfs")
_LEAVE_OUT = "leave the rehearsals out with rehearse.enabled = false (of all clouds)"


def driver_of_root(at: Evidence) -> Cause | None:
    waits = _WAITS.search(at.seen.printed)
    if waits is None:
        return None
    controller = at.seen.look.disk
    driver, found = _DRIVERS[controller]
    device = next((group for group in waits.groups() if group), "its root device")
    if re.search(found, at.seen.printed):
        return Cause(
            f"the disk is there, and nothing on it is {device.rstrip('.')}: root= names a file "
            "system that the image has not",
            "give root= and /etc/fstab the UUID of the root file system, and write the boot "
            "loader's configuration anew",
        )
    if at.files.driver(driver) in _EARLY:
        return Cause(
            f"the kernel saw no disk, though it has the driver for {controller} ({driver})",
            f"see what it says of {driver} in the console log, and build the initramfs anew with "
            "all that the driver needs",
        )
    return _lacking(
        at,
        driver,
        f"the kernel saw no disk: the initramfs has no driver for {controller} ({driver})",
        rebuild_initramfs(at.files, driver),
        early=True,
    )


def driver_of_card(at: Evidence) -> Cause | None:
    if at.seen.reports or at.seen.answered or at.files.driver(_CARD) != "absent":
        return None
    return _lacking(
        at,
        _CARD,
        f"the kernel has no driver for the network card ({_CARD})",
        f"install a kernel with {_CARD}",
        early=False,
    )


def _lacking(at: Evidence, driver: str, cause: str, fix: str, *, early: bool) -> Cause:
    """A defect where the cloud has that device. Where QEMU's only stands in for another
    one, it may be none: but nothing was proved then, and a failure must stay one."""
    own = at.seen.look.stand_ins.get(driver)
    if own is None:
        return Cause(cause, fix)
    there: Collection[str] = _EARLY if early else (*_EARLY, "module")
    sure = bool(at.files.driver(driver)) and at.files.driver(own) in there
    return Cause(
        f"{cause}, which only the rehearsal's stand-in for the cloud's device needs: the cloud "
        f"itself needs {own}" + (", which is there" if sure else ""),
        f"{fix} for the rehearsal alone, or {_LEAVE_OUT}",
    )
