"""The way from the firmware to the root file system."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from publisher.model import MIB, SECTOR, Firmware
from publisher.proof.inspect import subvolumes
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.device_names import names_a_builder, names_a_bus
from publisher.proof.inspect.entries import Entry
from publisher.proof.inspect.inspection import (
    ESP_PATH,
    REMOVABLE,
    Inspection,
    Loader,
)
from publisher.proof.inspect.partitions import BIOS_BOOT
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import ERROR, NOTE, WARNING, Check, Evidence, Rule

_GRUB_KERNEL_SECTOR = 0x5C
"""Where GRUB's boot.img says at which sector core.img is (grub-core/boot/i386/pc/boot.S)."""
_SIGNATURE_AT = 510
_PINNED = (
    *("ds", "ci.ds", "ci.datasource", "cloud-config-url", "url"),
    *("autoinstall", "inst.ks"),
)
"""https://github.com/canonical/cloud-init: tools/ds-identify, and parse_cmdline_url in
cloudinit/cmd/main.py."""
_OFF = ("cloud-init", "ci.di.policy")
"""What turns cloud-init off by the value "disabled", of a policy by its first part."""


def bios_fault(disk: Inspection) -> Evidence | None:
    """Why a BIOS can't boot the disk, None where it can."""
    table = disk.table()
    code = table.boot_code
    if not any(code):
        return Evidence("the first sector holds no boot code")
    if table.scheme == "none" and disk.disk.read(_SIGNATURE_AT, 2) != b"\x55\xaa":
        return Evidence("the first sector does not end as a boot sector does: 55 AA")
    if b"GRUB" in code:
        sector = struct.unpack_from("<Q", code, _GRUB_KERNEL_SECTOR)[0]
        at = sector * SECTOR
        if not sector or at + SECTOR > disk.disk.size or not any(disk.disk.read(at, SECTOR)):
            return Evidence(f"GRUB's boot code wants the rest of it at sector {sector}: nothing")
        inside = [p for p in table.partitions if p.offset <= at < p.end]
        if any(p.kind != BIOS_BOOT for p in inside):
            return Evidence(
                f"GRUB's boot code wants the rest of it at sector {sector}, inside of partition "
                f"{inside[0].number}, which is no BIOS boot partition"
            )
    elif table.scheme == "mbr" and not any(p.active for p in table.partitions):
        return Evidence("the boot code is not GRUB's, and no partition is marked as active")
    return None


def uefi_fault(disk: Inspection) -> Evidence | None:
    """Why a UEFI without boot variables can't boot the disk, None where it can."""
    if disk.esp_volume() is None:
        return Evidence("there is no EFI system partition")
    loader = disk.loader()
    esp = disk.esp()
    assert esp is not None
    try:
        arch = disk.arch()
    except Unreadable:
        arch = None
    if loader is not None:
        if arch and loader.program.arch != arch:
            return Evidence(f"the loader is for {loader.program.arch}, not {arch}", loader.path)
        return _second_stage_fault(loader, esp)
    others = [p for p in esp.glob("/EFI/*/*.efi") if not p.upper().startswith("/EFI/BOOT/")]
    names = REMOVABLE[arch] if arch else " or ".join(REMOVABLE.values())
    if others:
        return Evidence(
            f"the EFI system partition has no EFI/BOOT/{names}, only {ESP_PATH}{others[0]}, "
            "which a machine starts only after an installer has told its firmware",
            f"{ESP_PATH}{others[0]}",
        )
    return Evidence(f"the EFI system partition has no EFI/BOOT/{names}", ESP_PATH)


def _second_stage_fault(loader: Loader, esp: Tree) -> Evidence | None:
    """Why shim can't go on; None for another loader, too."""
    suffix = "x64" if loader.program.arch == "x86_64" else "aa64"
    second, fallback = f"grub{suffix}.efi", f"fb{suffix}.efi"
    is_shim = second.encode("utf-16-le") in esp.read(loader.path.removeprefix(ESP_PATH), 4 * MIB)
    if is_shim and not any(esp.is_file(f"/EFI/BOOT/{name}") for name in (second, fallback)):
        return Evidence(f"shim wants EFI/BOOT/{second}, which is not there", loader.path)
    return None


def firmware(disk: Inspection) -> Firmware | None:
    """By which firmware the disk boots; None by neither."""
    bios, uefi = bios_fault(disk) is None, uefi_fault(disk) is None
    return "bios+uefi" if bios and uefi else "bios" if bios else "uefi" if uefi else None


def claimed(wanted: Firmware, key: str) -> Check:
    """The disk boots by the firmware that a pipeline says it does."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for name, fault in (("bios", bios_fault), ("uefi", uefi_fault)):
            found = fault(disk) if name in wanted.split("+") else None
            if found is not None:
                text = f"the disk does not boot by {name.upper()}: {found.text}"
                yield Evidence(text, found.path, found.line, key=key)

    return check


def _boots(disk: Inspection) -> Iterator[Evidence]:
    bios, uefi = bios_fault(disk), uefi_fault(disk)
    if bios is not None and uefi is not None:
        yield Evidence(f"neither by BIOS ({bios.text}) nor by UEFI: {uefi.text}", uefi.path)


def unsigned(disk: Inspection) -> Iterator[Evidence]:
    """The loader carries no signature, which Secure Boot asks for."""
    loader = disk.loader()
    if loader is not None and not loader.program.signed:
        yield Evidence("the loader has no signature, so Secure Boot refuses it", loader.path)


def _configuration(disk: Inspection) -> Iterator[Evidence]:
    boot = disk.boot()
    if not boot.entries:
        if not boot.files:
            yield Evidence("no configuration of GRUB, systemd-boot or extlinux was found", "/boot")
        for path in boot.files:
            leads_on = path.startswith(f"{ESP_PATH}/EFI/") and path.endswith("/grub.cfg")
            text = "leads to one on the root file system, and there is none" if leads_on else ""
            yield Evidence(f"the configuration {text or 'starts no kernel'}", path)


def _kernels(disk: Inspection) -> Iterator[Evidence]:
    for entry in disk.boot().entries:
        if entry.rescue or entry.kernel.lower().endswith(".efi"):
            continue
        for what, path in (("kernel", entry.kernel), *(("initramfs", p) for p in entry.initrds)):
            if not disk.boot_file(path):
                severity = None if entry in disk.boot().default else WARNING
                yield Evidence(f"the {what} {path} is not there", entry.path, entry.line, severity)


def _root_devices(disk: Inspection) -> Iterator[Evidence]:
    yield from _root_volumes(disk)
    for entry in disk.boot().entries:
        if entry.rescue:
            continue
        for device in entry.values("root")[-1:]:
            if names_a_bus(device) or names_a_builder(device):
                text = "the root device by the order of disks"
                if names_a_builder(device):
                    text = "a device of the machine on which the image was made"
                yield Evidence(f"root={device} names {text}", entry.path, entry.line)
                continue
            try:
                volume = disk.device(device)
            except Unreadable:
                yield Evidence(
                    f"root={device} can't be checked without booting",
                    entry.path,
                    entry.line,
                    NOTE,
                )
                continue
            text = f"root={device} names no file system of this disk"
            if volume is None:
                yield Evidence(text, entry.path, entry.line)
            elif volume is not disk.root():
                yield Evidence(
                    f"root={device} is {volume.title}, which is not the root file system",
                    entry.path,
                    entry.line,
                    WARNING,
                )
            else:
                yield from _root_subvolume(disk, entry)


def _root_subvolume(disk: Inspection, entry: Entry) -> Iterator[Evidence]:
    """Why the kernel mounts a subvolume of the root's Btrfs that is not the root."""
    files = disk.root_files()
    shown = subvolumes.mounted(files, entry.root_flags)
    flag = subvolumes.asked(entry.root_flags)
    if shown is None:
        text = f"rootflags={flag} names no subvolume of {disk.root().title}"
        yield Evidence(text, entry.path, entry.line)
    elif not subvolumes.same(shown, files) and not disk.is_root(shown):
        own = disk.shown(disk.root())
        inside = own[0].path if own else "another one"
        what = f"rootflags={flag}" if flag else "without rootflags=subvol="
        yield Evidence(
            f"{what} the kernel mounts a subvolume that holds no root directory; "
            f"that is in {inside}",
            entry.path,
            entry.line,
        )


def _root_volumes(disk: Inspection) -> Iterator[Evidence]:
    """dracut waits for each volume that rd.lvm.lv= names, not for the root's alone."""
    names = {volume.name for volume in disk.volumes() if volume.name}
    for entry in disk.boot().entries:
        for name in entry.values("rd.lvm.lv"):
            if name not in names and not entry.rescue:
                text = f"rd.lvm.lv={name} names no logical volume of this disk"
                yield Evidence(text, entry.path, entry.line)


def _searches(disk: Inspection) -> Iterator[Evidence]:
    for reference in disk.boot().references:
        if reference.what in ("uuid", "label"):
            name = f"{reference.what.upper()}={reference.value}"
            if disk.device(name) is None:
                yield Evidence(
                    f"GRUB searches {name}, which is not on this disk",
                    reference.path,
                    reference.line,
                )


def _pinned(disk: Inspection) -> Iterator[Evidence]:
    for entry in disk.boot().entries:
        for argument in entry.arguments:
            key, _, value = argument.partition("=")
            if key in _PINNED or (key in _OFF and value.partition(",")[0] == "disabled"):
                yield Evidence(f"the kernel is started with {argument}", entry.path, entry.line)


def console(devices: tuple[str, ...]) -> Check:
    """The kernel writes to one of these serial devices (such as ttyS0)."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for entry in _default(disk):
            consoles = [value.partition(",")[0] for value in entry.values("console")]
            if not set(consoles) & set(devices):
                shown = ", ".join(f"console={c}" for c in consoles) or "no console="
                yield Evidence(
                    f"the kernel is started with {shown}, not with console={devices[0]}",
                    entry.path,
                    entry.line,
                )

    return check


def argument(key: str, accepts: Callable[[str], bool], wanted: str) -> Check:
    """A kernel argument's last value is accepted."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for entry in _default(disk):
            values = entry.values(key)
            if not (values and accepts(values[-1])):
                shown = f"{key}={values[-1]}" if values else f"no {key}="
                yield Evidence(
                    f"the kernel is started with {shown}, not with {wanted}",
                    entry.path,
                    entry.line,
                )

    return check


def without(*unwanted: str) -> Check:
    """The kernel is not started with these arguments."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for entry in _default(disk):
            found = [a for a in entry.arguments if a in unwanted]
            if found:
                yield Evidence(
                    f"the kernel is started with {' '.join(found)}", entry.path, entry.line
                )

    return check


def _default(disk: Inspection) -> list[Entry]:
    found = list(disk.boot().default)
    if not found:
        raise Unreadable("no boot entry was found")
    return found


RULES = (
    Rule(
        "boot.firmware",
        ERROR,
        "The disk boots, by BIOS or by UEFI",
        "A cloud's firmware has no boot variables of this disk: BIOS starts the code in the first "
        "sector, UEFI the loader at the removable path of the EFI system partition.",
        "https://uefi.org/specs/UEFI/2.10/03_Boot_Manager.html#removable-media-boot-behavior",
        "install the loader with `grub-install --removable` (UEFI) or `grub-install /dev/DISK` "
        "with a BIOS boot partition",
        _boots,
    ),
    Rule(
        "boot.configuration",
        ERROR,
        "A boot loader knows a kernel to start",
        "GRUB without a menu entry stops at its prompt, which nobody sees in a cloud.",
        "https://www.gnu.org/software/grub/manual/grub/html_node/Configuration.html",
        "run update-grub (grub2-mkconfig) in the image",
        _configuration,
    ),
    Rule(
        "boot.kernel",
        ERROR,
        "The kernels and initramfs files that are to be started exist",
        "The boot loader stops where a file of its entry is missing.",
        "https://www.gnu.org/software/grub/manual/grub/html_node/linux.html",
        "run update-initramfs -c -k all (dracut --regenerate-all) and update-grub in the image",
        _kernels,
    ),
    Rule(
        "boot.root",
        ERROR,
        "root= names the root file system of this disk, and not by the order of disks",
        "A wrong root= or rd.lvm.lv= ends in the initramfs' emergency shell. Names such as "
        "/dev/sda1 change with the cloud's controller: NVMe, SCSI and virtio disks are called "
        "differently.",
        "https://docs.kernel.org/admin-guide/kernel-parameters.html",
        "use root=UUID=… (GRUB_DISABLE_LINUX_UUID unset), with rootflags=subvol=… where the "
        "root directory is not in Btrfs's default subvolume, and run update-grub in the image",
        _root_devices,
    ),
    Rule(
        "boot.search",
        ERROR,
        "GRUB searches for file systems that this disk has",
        "GRUB can't find its configuration or the kernel and stops at its prompt.",
        "https://www.gnu.org/software/grub/manual/grub/html_node/search.html",
        "run grub-install and update-grub in the image, after its file systems were made",
        _searches,
    ),
    Rule(
        "boot.pinned",
        ERROR,
        "The kernel's arguments do not turn cloud-init off or tie it to one source",
        "ds=… makes cloud-init look only where the build looked, autoinstall and inst.ks start "
        "an installer again.",
        "https://docs.cloud-init.io/en/latest/explanation/kernel-command-line.html",
        "remove the argument from GRUB_CMDLINE_LINUX and run update-grub in the image",
        _pinned,
    ),
)
