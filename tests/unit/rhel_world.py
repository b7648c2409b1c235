"""A disk as RHEL's installer makes it: an EFI system partition, and LVM with an XFS root."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from publisher.build import partition
from publisher.model import MIB
from tests.unit import lint_world as world
from tests.unit import lvm_disk
from tests.unit.lint_world import GRUB, MODULES, VERSION, Files, good, good_esp
from tests.unit.lvm_disk import Segment
from tests.unit.xfs_disk import Patch, make_xfs

SIZE = 64 * MIB
ESP = 2 * MIB
LVM, LVM_SIZE = 8 * MIB, 55 * MIB
EXTENTS = 54
LVM_TYPE = uuid.UUID("e6d6d379-f507-44c2-a23c-238f2a3df928")
ROOT: Sequence[Segment] = (("pv0", 14, 16), ("pv0", 0, 8))
"""In two parts, the second of which comes first on the disk."""
SWAP: Sequence[Segment] = (("pv0", 8, 2),)
VOLUMES: Mapping[str, Sequence[Segment] | str] = {"root": ROOT, "swap": SWAP}
INITRD = f"/boot/initramfs-{VERSION}.img"


def on_disk(offset: int, segments: Sequence[Segment] = ROOT) -> int:
    """The byte of the disk at which one of a volume's is."""
    for _, first, count in segments:
        if offset < count * lvm_disk.EXTENT:
            return LVM + lvm_disk.START + first * lvm_disk.EXTENT + offset
        offset -= count * lvm_disk.EXTENT
    raise ValueError(offset)


def initramfs(*, without: Sequence[str] = ()) -> bytes:
    names = [f"usr/lib/modules/{VERSION}/{world.module(name)}" for name in world.EARLY]
    names += [f"usr/lib/modules/{VERSION}/{world.module(name)}" for name in ("xfs", "dm-mod")]
    names += ["usr/sbin/lvm"]
    return world.cpio([name for name in names if not name.endswith(tuple(without) or "\0")])


def rhel() -> Files:
    """What is good for Debian on ext4, on XFS and LVM."""
    files = good()
    del files["/boot/grub/grub.cfg"], files[f"/boot/initrd.img-{VERSION}"]
    depends = files[f"{MODULES}/modules.dep"]
    assert isinstance(depends, bytes)
    more = "".join(f"{world.module(name)}:\n" for name in ("xfs", "dm-mod"))
    return {
        **files,
        "/boot/grub2/grub.cfg": (
            "menuentry 'Linux' {\n"
            f"    linux /boot/vmlinuz-{VERSION} root=/dev/mapper/rhel-root ro "
            "rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap console=tty0 console=ttyS0,115200 "
            "nvme_core.io_timeout=4294967295\n"
            f"    initrd {INITRD}\n"
            "}\n"
        ).encode(),
        INITRD: initramfs(),
        f"{MODULES}/modules.dep": depends + more.encode(),
        "/etc/fstab": (
            f"/dev/mapper/rhel-root / xfs defaults 0 0\nUUID={world.ESP_UUID} /boot/efi vfat "
            "nofail 0 2\n/dev/rhel/swap none swap defaults 0 0\n"
        ).encode(),
        "/etc/os-release": b"ID=rhel\nVERSION_ID=9.4\n",
        "/usr/sbin/xfs_growfs": b"",
    }


def disk_file(
    directory: Path,
    files: Files | None = None,
    volumes: Mapping[str, Sequence[Segment] | str] = VOLUMES,
    more: Mapping[str, Files] | None = None,
    *,
    spoil: Callable[[Patch], None] = lambda _: None,
) -> Path:
    """A disk of 64 MiB. `files` are those of the root, `more` of other volumes. `spoil`
    changes the root's image."""
    path = directory / "disk.raw"
    parts = [
        partition.Partition(1, partition.ESP, uuid.uuid4(), "esp", ESP, 4 * MIB),
        partition.Partition(14, partition.BIOS_BOOT, uuid.uuid4(), "bios", MIB, MIB),
        partition.Partition(2, LVM_TYPE, uuid.uuid4(), "lvm", LVM, LVM_SIZE),
    ]
    head, tail = partition.table(uuid.uuid4(), SIZE, parts)
    text = lvm_disk.group({"pv0": EXTENTS}, volumes)
    trees = {"root": rhel() if files is None else files, **(more or {})}
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset, data in (
            (0, bytes(GRUB) + head[440:]),
            (SIZE - len(tail), tail),
            (MIB, b"\xea" * 512),
            (LVM, lvm_disk.head("pv0", text, size=LVM_SIZE)),
            (LVM + lvm_disk.START + 8 * MIB + 4086, b"SWAPSPACE2"),
        ):
            file.seek(offset)
            file.write(data)
        for name, tree in trees.items():
            segments = volumes[name]
            if isinstance(segments, str):
                continue
            size = sum(count for _, _, count in segments) * lvm_disk.EXTENT
            image = make_xfs(directory, tree, size=size, name=name)
            if name == "root":
                spoil(Patch(image))
            with image.open("rb") as source:
                for at in range(0, size, MIB):
                    file.seek(on_disk(at, segments))
                    file.write(source.read(MIB))
    esp = {**good_esp(), "/EFI/debian/grub.cfg": b"normal\n"}
    world.write_fat(path, ESP, 4 * MIB, directory / "esp", esp)
    return path
