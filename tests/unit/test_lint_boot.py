"""What lint sees of the way from the firmware to the root file system, loader by loader."""

from __future__ import annotations

import struct

import pytest

from publisher.model import MIB
from publisher.proof.checks import boot
from publisher.proof.inspect.partitions import XBOOTLDR, Partition, Table
from publisher.proof.inspect.volume import Volume
from tests.unit import lint_world as world
from tests.unit.lint_broken import ERROR, GRUB, WARNING, replace
from tests.unit.lint_world import (
    EARLY,
    ESP_UUID,
    MODULES,
    ROOT_UUID,
    VERSION,
    Files,
    Memory,
    World,
    good,
    good_esp,
    loader,
)
from tests.unit.test_inspect_entries import unified
from tests.unit.test_lint_rules import RULES, findings

OPTIONS = f"root=UUID={ROOT_UUID} ro console=ttyS0 nvme_core.io_timeout=4294967295"
ROOT_LINE = f"UUID={ROOT_UUID} / ext4 rw 0 1\n"
X86 = bytes(514) + b"HdrS" + bytes(8) + struct.pack("<H", 1024) + bytes(1008) + VERSION.encode()
ARM = b"MZ" + bytes(54) + b"ARMd" + bytes(1000)


def entry(linux: str, initrd: str, version: str = VERSION) -> bytes:
    text = f"title Debian\nversion {version}\noptions {OPTIONS}\nlinux {linux}\ninitrd {initrd}\n"
    return text.encode()


def without_grub() -> tuple[Files, bytes]:
    """The good installation without kernel and boot loader, and its initramfs."""
    files = good()
    initrd = files.pop(f"/boot/initrd.img-{VERSION}")
    for path in (GRUB, f"/boot/vmlinuz-{VERSION}"):
        del files[path]
    assert isinstance(initrd, bytes)
    return files, initrd


@pytest.mark.parametrize("kernel", [X86, ARM], ids=["x86", "arm"])
@pytest.mark.parametrize(
    "fstab",
    [
        "",
        ROOT_LINE,
        *(f"{ROOT_LINE}UUID={ESP_UUID} {at} vfat nofail 0 2\n" for at in ("/efi", "/boot")),
    ],
    ids=["no fstab", "gpt-auto", "efi", "boot"],
)
def test_systemd_boot_finds_kernels_wherever_its_partition_is_mounted(
    fstab: str, kernel: bytes
) -> None:
    files, initrd = without_grub()
    files["/etc/fstab"] = fstab.encode()
    esp: Files = {
        "/EFI/BOOT/BOOTX64.EFI": loader(),
        f"/loader/entries/abc-{VERSION}.conf": entry(
            f"/abc/{VERSION}/linux", f"/abc/{VERSION}/initrd"
        ),
        f"/abc/{VERSION}/linux": kernel,
        f"/abc/{VERSION}/initrd": initrd,
    }
    disk = World(files, esp)
    assert [f.rule for f in findings(disk)] == ["azure.rootdelay"]
    assert [found.version for found in disk.kernels()] == [VERSION]


def test_a_version_of_the_image_is_none_of_the_kernel() -> None:
    files, initrd = without_grub()
    files["/boot/vmlinuz"], files["/boot/initrd"] = X86, initrd
    files["/boot/loader/entries/image.conf"] = entry("/boot/vmlinuz", "/boot/initrd", "1.2.3")
    assert [found.version for found in World(files).kernels()] == [VERSION]


def test_an_extended_boot_partition_is_read_where_fstab_is_silent() -> None:
    files, initrd = without_grub()
    files["/etc/fstab"] = b""
    files[f"{MODULES}/config"] = files.pop(f"/boot/config-{VERSION}")
    own: Files = {
        f"/loader/entries/a-{VERSION}.conf": entry(f"/a/{VERSION}/linux", f"/a/{VERSION}/initrd"),
        f"/a/{VERSION}/linux": ARM,
        f"/a/{VERSION}/initrd": initrd,
    }
    part = Partition(2, XBOOTLDR, "0002", "xbootldr", 60 * MIB, MIB)
    extended = Memory(own, "vfat", "AAAA-BBBB", "XBOOT", True)
    more = [Volume(part, "vfat", "AAAA-BBBB", "XBOOT", extended)]
    esp: Files = {"/EFI/BOOT/BOOTX64.EFI": loader()}
    assert [f.rule for f in findings(World(files, esp, more=more))] == ["azure.rootdelay"]
    files["/boot/own"] = b""
    told = world.found(RULES["boot.configuration"], World(files, esp, more=more))
    assert len(told) == 1, "systemd mounts over nothing"


@pytest.mark.parametrize(
    "path",
    [
        *("/EFI/Linux/arch.efi", "/EFI/Linux/ARCH.EFI", "/EFI/linux/Arch.Efi"),
        *("/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/bootx64.efi", "/efi/boot/bootx64.efi"),
    ],
)
def test_names_on_a_fat_file_system_are_found_in_any_case(path: str) -> None:
    files, _ = without_grub()
    names = [f"usr/lib/modules/{VERSION}/{world.module(name)}" for name in EARLY]
    esp: Files = {path: unified(names)}
    if "boot" not in path.lower():
        esp["/EFI/BOOT/BOOTX64.EFI"] = loader()
    disk = World(files, esp)
    assert [found.version for found in disk.kernels()] == [VERSION]
    assert not [f for f in findings(disk) if f.severity is ERROR]


@pytest.mark.parametrize(
    ("saved", "started"),
    [
        (f"m-{VERSION}", VERSION),
        ("1", VERSION),
        (f"Linux {VERSION}", VERSION),
        ("", "6.9.0-1-cloud"),
        ("gone", "6.9.0-1-cloud"),
    ],
)
def test_the_entry_that_grub_has_saved_is_the_one_that_starts(saved: str, started: str) -> None:
    files, _ = without_grub()
    files["/boot/grub2/grub.cfg"] = (
        b'load_env\nif [ "${next_entry}" ] ; then\nset default="${next_entry}"\nelse\n'
        b'set default="${saved_entry}"\nfi\nblscfg\n'
    )
    files["/boot/grub2/grubenv"] = f"# GRUB Environment Block\nsaved_entry={saved}\n".encode()
    for version in (VERSION, "6.9.0-1-cloud"):
        files[f"/boot/loader/entries/m-{version}.conf"] = entry(
            f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}", version
        ).replace(b"title Debian", f"title Linux {version}".encode())
        files[f"/boot/vmlinuz-{version}"] = b"kernel"
    assert [kernel.version for kernel in World(files).kernels()] == [started]


# -- what does not boot


def test_modules_of_another_kernel_do_not_count() -> None:
    files = good()
    names = [f"usr/lib/modules/6.9.0-1-cloud/{world.module(name)}" for name in EARLY]
    files[f"/boot/initrd.img-{VERSION}"] = world.cpio(names)
    told = world.found(RULES["gcp.disk-driver"], World(files))
    assert [f.severity for f in told] == [ERROR, ERROR]


def test_a_root_that_is_another_file_system_is_told() -> None:
    files = good()
    other = "00000000-0000-0000-0000-000000000001"
    replace(GRUB, f"root=UUID={ROOT_UUID}", f"root=UUID={other}")(files)
    part = Partition(2, "linux", "0002", "data", 60 * MIB, MIB)
    data = Volume(part, "ext4", other, "data", Memory({"/x": b""}, uuid=other))
    (told,) = world.found(RULES["boot.root"], World(files, more=[data]))
    assert told.severity is WARNING
    assert "which is not the root file system" in told.evidence


def test_the_rest_of_grub_lies_in_no_other_partition() -> None:
    root = Partition(1, "linux", "0001", "root", MIB, 55 * MIB)
    disk = World(table=Table("gpt", (root,), bytes(world.GRUB)))
    fault = boot.bios_fault(disk)
    assert fault is not None
    assert "inside of partition 1, which is no BIOS boot partition" in fault.text
    free = Table("mbr", (Partition(1, "0x83", "", "", 8 * MIB, MIB),), bytes(world.GRUB))
    assert boot.bios_fault(World(table=free)) is None, "the gap before the first partition"


def test_other_boot_code_starts_the_active_partition() -> None:
    code = b"\xfa" * 440

    def fault(scheme: str, *, active: bool) -> str:
        part = Partition(1, "0x83", "", "", 8 * MIB, MIB, active=active)
        found = boot.bios_fault(World(table=Table(scheme, (part,), code)))  # type: ignore[arg-type]
        return found.text if found else ""

    assert "no partition is marked as active" in fault("mbr", active=False)
    assert fault("mbr", active=True) == ""


def test_a_loader_of_its_own_name_is_no_removable_one() -> None:
    esp = good_esp()
    esp["/EFI/debian/GRUBX64.EFI"] = esp.pop("/EFI/BOOT/BOOTX64.EFI")
    fault = boot.uefi_fault(World(esp=esp))
    assert fault is not None
    assert "only /boot/efi/EFI/debian/GRUBX64.EFI" in fault.text
