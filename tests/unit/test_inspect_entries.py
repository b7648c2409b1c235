"""What boots: GRUB in its dialects, loader entries, extlinux, unified images."""

from __future__ import annotations

import struct
import time

import pytest

from publisher.proof.checks import initramfs
from publisher.proof.inspect.budget import Damaged
from tests.unit import lint_world as world
from tests.unit.lint_world import VERSION, Files, World, good, good_esp, loader

KERNEL = f"/boot/vmlinuz-{VERSION}"


def with_grub(text: str, **more: bytes) -> Files:
    files: Files = {**good(), "/boot/grub/grub.cfg": text.encode()}
    return {**files, **more}


def test_grub_follows_variables_submenus_and_its_default() -> None:
    boot = World(
        with_grub(
            'set default="1>1"\n'
            'set extra="console=ttyS0"\n'
            "menuentry 'First' --id first {\n  linux /boot/a root=/dev/x ${extra}\n}\n"
            "function savedefault {\n  save_env\n}\n"
            "submenu 'More' {\n"
            "  menuentry 'Firmware' {\n    fwsetup\n  }\n"
            '  menuentry "Older \\"one\\"" {\n    linux ($root)/boot/b quiet\n'
            "    initrd /boot/early.img /boot/b.img\n  }\n"
            "  menuentry 'Rescue (recovery mode)' {\n    linux /boot/b single\n  }\n}\n"
        )
    ).boot()
    first, second, third = boot.entries
    assert first.arguments == ("root=/dev/x", "console=ttyS0")
    assert (second.kernel, second.initrds) == ("/boot/b", ("/boot/early.img", "/boot/b.img"))
    assert [entry.kernel for entry in boot.default] == ["/boot/b"]
    assert [entry.rescue for entry in boot.entries] == [False, False, True]
    assert third.line == 18


def test_grub_may_have_its_configuration_on_the_efi_system_partition() -> None:
    files = good()
    text = files.pop("/boot/grub/grub.cfg")
    boot = World(files, {**good_esp(), "/EFI/fedora/grub.cfg": text}).boot()
    (entry,) = boot.default
    assert (entry.path, entry.kernel) == ("/boot/efi/EFI/fedora/grub.cfg", KERNEL)


def test_loader_entries_take_their_options_from_grubs_environment() -> None:
    files = with_grub("blscfg\nset kernelopts=wrong\n")
    files["/boot/grub/grubenv"] = b"# GRUB Environment Block\nkernelopts=root=UUID=1 ro\n####"
    for number in (9, 10):
        files[f"/boot/loader/entries/fedora-6.{number}.conf"] = (
            f"title Fedora 6.{number}\nlinux /vmlinuz-6.{number}\ninitrd /initramfs.img $tuned\n"
            "options $kernelopts console=ttyS0\n"
        ).encode()
    files["/boot/loader/entries/0-rescue.conf"] = b"title Rescue\nlinux /vmlinuz-0-rescue\n"
    boot = World(files).boot()
    assert boot.default[0].title == "Fedora 6.10", "the newest, by number"
    assert boot.default[0].values("console") == ["ttyS0"]
    assert boot.default[0].line == 4


def test_extlinux_is_read() -> None:
    files = good()
    del files["/boot/grub/grub.cfg"]
    files["/boot/extlinux/extlinux.conf"] = (
        b"DEFAULT linux\nLABEL linux\n  LINUX ../vmlinuz\n  APPEND root=UUID=1 console=ttyS0\n"
        b"  INITRD /boot/initrd.img\n"
    )
    (entry,) = World(files).boot().default
    assert (entry.initrds, entry.line) == (("/boot/initrd.img",), 4)
    assert entry.values("console") == ["ttyS0"]


def unified(names: list[str]) -> bytes:
    """A unified kernel image with an initramfs of these names."""
    parts = {
        b".linux": b"kernel",
        b".cmdline": f"root=UUID={world.ROOT_UUID} console=ttyS0\0".encode(),
        b".uname": VERSION.encode(),
        b".initrd": world.cpio(names),
    }
    head = bytearray(loader())
    struct.pack_into("<H", head, 128 + 6, len(parts))
    struct.pack_into("<H", head, 128 + 20, 240)
    at, body = len(head), b""
    for number, (name, content) in enumerate(parts.items()):
        struct.pack_into(
            "<8sIIII",
            head,
            128 + 24 + 240 + 40 * number,
            *(name, len(content), 0, len(content), at + len(body)),
        )
        body += content
    return bytes(head) + body


def test_the_initramfs_of_a_unified_image_is_looked_into() -> None:
    files = good()
    del files["/boot/grub/grub.cfg"]
    esp = {**good_esp(), "/EFI/Linux/arch.efi": unified(["usr/lib/x"])}
    (told,) = World(files, esp).kernels()
    assert (told.version, told.initrds) == (VERSION, ("/boot/efi/EFI/Linux/arch.efi",))
    found = list(initramfs.early("virtio_scsi")(World(files, esp)))
    assert "not in its initramfs" in found[0].text
    names = [f"usr/lib/modules/{VERSION}/{world.module('virtio_scsi')}"]
    esp["/EFI/Linux/arch.efi"] = unified(names)
    assert list(initramfs.early("virtio_scsi")(World(files, esp))) == []


LONG = f"set a={'x' * 8_000}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set a=x\n" + "set a=$a$a\n" * 60, "a line of"),
        (LONG + "linux /k" + " $a" * 5_000, "a line of"),
        (LONG + "linux /k\ninitrd" + " $a" * 5_000, "a line of"),
        (LONG + "".join(f"set b{n}=$a\n" for n in range(2_000)), "variables of"),
        ("linux /a\n" * 501, "more entries than"),
        ("search x\n" * 5_001, "more searches than"),
        ("linux /a\ninitrd" + " /b" * 17, "more than 16 initramfs"),
        ("linux /a\n" + "initrd /b\n" * 17, "more than 16 initramfs"),
        ("#\n" + "x\n" * 20_002, "longer than"),
        ("x " * 8_193 + "\n", "longer than"),
        (f"{'x' * 16_000}\n" * 270, "longer than"),
    ],
    ids=[
        *("growing variable", "arguments", "initramfs", "variables", "entries", "searches"),
        *("initrds", "initrds in lines", "lines", "line", "text"),
    ],
)
def test_what_nobody_needs_is_damaged(text: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(Damaged, match=said):
        World(with_grub(text)).boot()
    assert time.monotonic() - started < 5


def test_a_loader_entry_has_an_end() -> None:
    files = with_grub(LONG + "blscfg\n")
    entry = "/boot/loader/entries/a.conf"
    files[entry] = b"linux /k\noptions $a\n"
    assert len(World(files).boot().entries[0].arguments[0]) == 8_000
    files[entry] = b"linux /k\n" + b"options $a\n" * 3
    with pytest.raises(Damaged, match="a line of"):
        World(files).boot()
    files[entry] = b"linux /k\n" + b"title x\n" * 10_000
    with pytest.raises(Damaged, match="longer than"):
        World(files).boot()
    files[entry] = b"linux /k\n" + b"initrd /i\n" * 17
    with pytest.raises(Damaged, match="more than 16"):
        World(files).boot()


def test_entries_of_all_loaders_count_together() -> None:
    esp = {**good_esp(), **{f"/EFI/{n}/grub.cfg": b"linux /k\n" * 100 for n in range(6)}}
    with pytest.raises(Damaged, match="more entries than"):
        World(good(), esp).boot()
    files: Files = {**good(), "/extlinux.conf": b"label x\nlinux /k\n" * 501}
    with pytest.raises(Damaged, match="more entries than"):
        World(files).boot()


def test_grubs_environment_is_small() -> None:
    files = with_grub("linux /k\n")
    files["/boot/grub/grubenv"] = b"a=b\n" * 20_000
    with pytest.raises(Damaged, match="grubenv is longer than"):
        World(files).boot()
