"""Why a boot did not reach its root file system, or nobody saw it: from the console."""

from __future__ import annotations

import re

from publisher.proof.inspect.inspection import REMOVABLE
from publisher.proof.rehearse.evidence import Cause, Evidence, said
from publisher.proof.rehearse.remedies import install_grub, renew_grub, with_argument
from publisher.vm.console import Phase


def refused_by_secure_boot(at: Evidence) -> Cause | None:
    if "secure boot" not in at.seen.tracker.fatal and "Access Denied" not in at.seen.printed:
        return None
    what = "the loader" if at.seen.phase is Phase.FIRMWARE else "what the loader starts"
    fault = at.files.boot_fault("uefi-secure") or "it is not signed by a key that is trusted"
    return Cause(
        f"Secure Boot refuses {what}: {fault}",
        "install shim-signed, and a signed GRUB and kernel, or register the image without "
        "Secure Boot",
    )


def nothing_to_boot(at: Evidence) -> Cause | None:
    told = "nothing to boot" in at.seen.tracker.fatal
    if at.seen.phase is not Phase.FIRMWARE and not told:
        return None
    boot, files = at.seen.look.boot, at.files
    fault = files.boot_fault(boot)
    if not (told or fault):
        return None
    if boot == "bios":
        return Cause(
            "no boot loader for BIOS starts from the disk: "
            + (fault or "its first sector starts nothing"),
            f"run {install_grub(files)} --target=i386-pc (with a BIOS boot partition on a GPT "
            "disk), or register the image for the firmware that it has a loader for",
        )
    names = [name for arch, name in REMOVABLE.items() if files.arch() in ("", arch)]
    return Cause(
        "UEFI finds no loader: "
        + (fault or f"nothing starts from \\EFI\\BOOT\\{' or '.join(names)}"),
        "run grub-install with --removable (Debian: --force-extra-removable), or register the "
        "image for the firmware that it has a loader for",
    )


def asks_in_grub(at: Evidence) -> Cause | None:
    if "GRUB did not find its configuration" not in at.seen.tracker.fatal:
        return None
    return Cause(
        "GRUB found no configuration, and asks at its prompt",
        f"run {install_grub(at.files)} and {renew_grub(at.files)} in the image as it is now",
    )


_CONFIGURATIONS = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/efi/EFI/BOOT/grub.cfg",
)


def _port(at: Evidence) -> str:
    """The serial port of QEMU's machine, as Linux names it."""
    return "ttyAMA0" if at.files.arch() == "aarch64" else "ttyS0"


def _writes_elsewhere(at: Evidence, where: str) -> Cause:
    port, own = _port(at), at.seen.look.console
    wanted = f"console={port}" + ("" if port == "ttyAMA0" else ",115200n8")
    if own and own != port:
        return Cause(
            f"{where} has no console={port}, which the rehearsal's machine has instead of the "
            f"cloud's {own}",
            f"{with_argument(at.files, wanted)}, besides the cloud's console={own}",
        )
    return Cause(f"{where} has no console={port}", with_argument(at.files, wanted))


def silent(at: Evidence) -> Cause | None:
    """The kernel speaks elsewhere, or it never started."""
    if at.seen.phase > Phase.BOOTLOADER:
        return None
    for path in _CONFIGURATIONS:
        text = at.files.text(path)
        if text and _port(at) not in text:
            return _writes_elsewhere(at, f"the kernel writes to no serial port: {path}")
    return None


def library(at: Evidence) -> Cause | None:
    found = re.search(
        r"error while loading shared libraries: (.+?)(\[ *\d+\.\d+\] .*)?$",
        at.seen.printed,
        re.MULTILINE,
    )
    if found is None:
        return None
    reason = found[1].strip()
    if found[2]:  # the kernel's panic, which does not wait for a line to end
        reason = reason.partition(":")[0] + " (why is lost among the kernel's own lines)"
    return Cause(
        f"init can't run: {reason}",
        "install the package of the library anew (apt-get install --reinstall, dnf reinstall)",
    )


def no_console(at: Evidence) -> Cause | None:
    facts = at.seen.facts
    if facts is None or f"console={_port(at)}" in facts.cmdline:
        return None
    return _writes_elsewhere(at, f"the kernel command line ({facts.cmdline})")


def starved(at: Evidence) -> Cause | None:
    if not at.seen.starved:
        return None
    disk = at.seen.look.disk
    return Cause(
        f"the disk did not answer any more, for which the kernel's {at.seen.starved} waits",
        f"rehearse it again: if that repeats itself, its kernel does not work with QEMU's {disk}",
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


PANIC = said(
    r"Kernel panic - not syncing: (.+)$",
    "the kernel panicked: {0}",
    "see the lines before it in the console log",
)
GRUB_LOST = said(
    r"error: no such (?:device|partition): ?(\S*)",
    "GRUB does not find its own files (it looks for {0})",
    lambda files: f"run {install_grub(files)} and {renew_grub(files)} in the image as it is now",
)
GRUB_NO_FILE = said(
    r"error: file [`'](\S+?)' not found",
    "GRUB wants {0}, and the image has no such file",
    lambda files: f"run {renew_grub(files)}",
)
