"""Why a boot did not reach its root file system, or nobody saw it: from the console."""

from __future__ import annotations

import re

from publisher.proof.rehearse.evidence import Cause, Evidence, said
from publisher.vm.console import Phase


def driver_of_root(at: Evidence) -> Cause | None:
    waits = re.search(
        r"ALERT!\s+(\S+)|Gave up waiting for (?:root|suspend/resume)|"
        r"dracut-initqueue.*timeout|Timed out waiting for device .*?(\S+)|"
        r"Unable to mount root fs on (\S+)",
        at.seen.printed,
    )
    if waits is None:
        return None
    drivers = {"nvme": "nvme", "virtio-scsi": "virtio_scsi", "virtio-blk": "virtio_blk"}
    controller = at.seen.look.disk
    seen_disk = {
        "nvme": r"nvme\d*: pci function|nvme\d+n1|nvme nvme\d",
        "virtio-scsi": r"\bsd a|\[sda\]|scsi host\d+: Virtio SCSI",
        "virtio-blk": r"\bvd[a-z]:|virtio_blk",
    }[controller]
    device = next((group for group in waits.groups() if group), "its root device")
    if re.search(seen_disk, at.seen.printed):
        return Cause(
            f"the disk is there, and nothing on it is {device.rstrip('.')}: root= names a file "
            "system that the image has not",
            "give root= and /etc/fstab the UUID of the root file system and run update-grub",
        )
    return Cause(
        f"the kernel saw no disk: the initramfs has no driver for {controller} "
        f"({drivers[controller]})",
        f"add {drivers[controller]} to /etc/initramfs-tools/modules and run update-initramfs -u",
    )


def nothing_to_boot(at: Evidence) -> Cause | None:
    fatal = at.seen.tracker.fatal
    if at.seen.look.boot == "bios":
        return Cause(
            "the disk's first sector starts nothing: no boot loader for BIOS is installed",
            "run grub-install for i386-pc (with a BIOS boot partition on a GPT disk)",
        )
    if "secure boot" in fatal or "Access Denied" in at.seen.printed:
        return Cause(
            "Secure Boot refuses the loader: it is not signed by a key that the firmware trusts",
            "install shim-signed and a signed grub, or register the image without Secure Boot",
        )
    if at.seen.phase == Phase.FIRMWARE:
        return Cause(
            "UEFI finds no loader: the EFI system partition has no \\EFI\\BOOT\\BOOTX64.EFI",
            "run grub-install with --removable (Debian: --force-extra-removable)",
        )
    return None


def silent(at: Evidence) -> Cause | None:
    """The kernel speaks elsewhere, or it never started."""
    if at.seen.phase is not Phase.BOOTLOADER:
        return None
    for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/BOOT/grub.cfg"):
        text = at.files.text(path)
        if text and "ttyS0" not in text:
            return Cause(
                f"the kernel writes to no serial port: {path} has no console=ttyS0",
                "add console=ttyS0,115200n8 to GRUB_CMDLINE_LINUX and run update-grub",
            )
    return None


def no_console(at: Evidence) -> Cause | None:
    if at.seen.facts is None or "console=ttyS" in at.seen.facts.cmdline:
        return None
    return Cause(
        f"the kernel command line has no console=ttyS0: {at.seen.facts.cmdline}",
        "add console=ttyS0,115200n8 to GRUB_CMDLINE_LINUX and run update-grub",
    )


def mount_fails(at: Evidence) -> Cause | None:
    found = re.search(
        r"Timed out waiting for device .*?(/dev/\S+|dev-\S+\.device)", at.seen.printed
    )
    if found is None and "emergency mode" not in at.seen.tracker.fatal:
        return None
    device = f": {found[1].rstrip('.')}" if found else ""
    return Cause(
        f"/etc/fstab names a device that the machine has not{device}",
        "remove the line from /etc/fstab, or add nofail to its options",
    )


def unit_fails(at: Evidence) -> Cause | None:
    reasons = at.seen.facts.reasons if at.seen.facts else ()
    if not reasons:
        return None
    parted = [reason.partition(" ") for reason in reasons]
    return Cause(
        "; ".join(f"{unit} failed: {words}" for unit, _, words in parted),
        "mend what it says, or disable the unit: systemctl disable " + parted[0][0],
    )


def deaf_to_the_button(at: Evidence) -> Cause | None:
    names = ("sbin/acpid", "bin/dbus-daemon", "bin/dbus-broker")
    if any(at.files.exists(f"{root}{name}") for name in names for root in ("/", "/usr/")):
        return None
    return Cause(
        "nothing hears the power button: systemd-logind does not start without D-Bus, and "
        "neither dbus nor acpid is installed",
        "install dbus, or acpid",
    )


LIBRARY = said(
    r"error while loading shared libraries: (.+)$",
    "init can't run: {0}",
    "install the package of the library anew (apt-get install --reinstall, dnf reinstall)",
)
PANIC = said(
    r"Kernel panic - not syncing: (.+)$",
    "the kernel panicked: {0}",
    "see the lines before it in the console log",
)
GRUB_LOST = said(
    r"error: no such (?:device|partition): ?(\S*)",
    "GRUB does not find its own files (it looks for {0})",
    "run grub-install and update-grub in the image as it is now",
)
GRUB_NO_FILE = said(
    r"error: file [`'](\S+?)' not found",
    "GRUB wants {0}, and the image has no such file",
    "run update-grub",
)
