"""The partition table and the file systems."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.model import MIB
from publisher.proof.inspect.budget import Damaged, Exhausted
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, NOTE, WARNING, Evidence, Rule


def _table(disk: Inspection) -> Iterator[Evidence]:
    table = disk.table()
    for problem in table.problems:
        yield Evidence(problem)
    for remark in table.remarks:
        yield Evidence(remark, severity=WARNING)
    if table.scheme == "none" and not table.problems:
        yield Evidence("the disk has neither a GPT nor an MBR partition table", severity=WARNING)


def _root(disk: Inspection) -> Iterator[Evidence]:
    disk.volumes()
    try:
        disk.root()
    except Exhausted:
        raise
    except Damaged as error:
        yield Evidence(error.message)


def _file_systems(disk: Inspection) -> Iterator[Evidence]:
    for volume in disk.volumes():
        for remark in volume.files.remarks if volume.files else ():
            yield Evidence(f"{volume.title}: {remark}")
        if isinstance(volume.fault, Damaged):
            yield Evidence(f"{volume.title} is damaged: {volume.fault.message}", severity=ERROR)


def _readable(disk: Inspection) -> Iterator[Evidence]:
    for volume in disk.volumes():
        if volume.fault and not isinstance(volume.fault, Damaged) and volume.kind != "swap":
            yield Evidence(f"{volume.title}: {volume.fault.message}")


_GROWERS = {"xfs": ("XFS", "xfs_growfs"), "btrfs": ("Btrfs", "btrfs")}
"""Kind ▶ its name and what cloud-init's cc_resizefs grows it with. That of ext4 is in a
package that every installation on ext4 has."""


def _growth(disk: Inspection) -> Iterator[Evidence]:
    root = disk.root()
    if root.name:
        yield Evidence(f"the root file system is {root.where}, which cloud-init does not grow")
    if not root.parts:
        return
    start = max(part.offset for part in root.parts)
    parts = disk.table().partitions
    own = next((part for part in parts if part.offset <= start < part.end), None)
    behind = [part for part in parts if own is not None and part.offset >= own.end]
    if own is not None and behind:
        numbers = ", ".join(str(part.number) for part in behind)
        yield Evidence(f"behind the root partition ({own.number}) there are partitions: {numbers}")
    elif not disk.program("growpart") and not disk.program("systemd-repart"):
        yield Evidence("neither growpart nor systemd-repart is installed", severity=NOTE)
    kind, grower = _GROWERS.get(root.kind, ("", ""))
    if grower and not disk.program(grower):
        yield Evidence(f"{grower} is not installed, without which {kind} does not grow")


def swap_partition(disk: Inspection) -> Iterator[Evidence]:
    """Swap space on the disk: volumes, and files that fstab names."""
    for volume in disk.volumes():
        if volume.kind == "swap" and volume.parts is not None:
            size = sum(part.length for part in volume.parts) // MIB
            yield Evidence(f"{volume.where} is {size} MiB of swap space")
    for mount in disk.fstab():
        if mount.kind == "swap" and mount.device.startswith("/") and "/dev/" not in mount.device:
            yield Evidence(f"{mount.device} is swap space", "/etc/fstab", mount.line)


RULES = (
    Rule(
        "disk.partition-table",
        ERROR,
        "The partition table is sound",
        "Firmware and kernel refuse a damaged table, or see other partitions than it was made "
        "with. A backup that is not at the end is moved by the first tool that grows the disk.",
        "https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html",
        "write the table anew, for example with `sgdisk --verify` and `sgdisk -e`",
        _table,
    ),
    Rule(
        "disk.root",
        ERROR,
        "There is a root file system",
        "Without a root directory the kernel stops with a panic.",
        "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        "check that the file is the whole disk of an installed system",
        _root,
    ),
    Rule(
        "disk.file-system",
        WARNING,
        "The file systems are clean",
        "A journal that was not written back (elsewhere it is called log) hides what the disk "
        "really holds from tools that do not replay it; a file system larger than its partition "
        "does not mount.",
        "https://docs.kernel.org/filesystems/",
        "shut the machine down in good order, then run e2fsck -f (for XFS mount it once, then "
        "xfs_repair; for Btrfs btrfs check)",
        _file_systems,
    ),
    Rule(
        "disk.not-readable",
        WARNING,
        "Every file system can be read here",
        "What lies in a file system without a reader was not looked at: nothing is proved of it.",
        "https://docs.kernel.org/filesystems/",
        "rehearse the image, which boots it; or use ext4, XFS or Btrfs for the root file system",
        _readable,
    ),
    Rule(
        "disk.growth",
        WARNING,
        "The root file system can grow to the size of a larger disk",
        "Machines are started with disks larger than the image; cloud-init grows the root "
        "partition only into free room right behind it, and with growpart. It grows no volume of "
        "LVM: the root keeps its size until somebody gives it the new room.",
        "https://docs.cloud-init.io/en/latest/reference/modules.html#growpart",
        "make the root partition the last one on the disk and install cloud-guest-utils "
        "(cloud-utils-growpart), for XFS xfsprogs and for Btrfs btrfs-progs too; on LVM let the "
        "first boot run growpart on the partition, pvresize, and lvextend --resizefs",
        _growth,
    ),
)
