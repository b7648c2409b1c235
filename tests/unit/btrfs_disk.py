"""Btrfs for tests: made by mkfs.btrfs, and one that Linux has written.

Only Linux makes subvolumes and compresses, and only root may mount; so that file system
is kept in data/btrfs.img.xz. To make it anew, as root:

python -m tests.unit.btrfs_disk
"""

from __future__ import annotations

import hashlib
import json
import lzma
import mmap
import os
import random
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from publisher.build import partition
from publisher.crc32c import crc32c
from publisher.model import MIB
from tests.unit import lint_world as world
from tests.unit.lint_world import ROOT_UUID, VERSION, Files

KEPT = Path(__file__).parent / "data" / "btrfs.img.xz"
SUMS = "/sums.json"
"""Path ▶ SHA-256 of each file in it, as Linux read it."""
SIZE = 128 * MIB
START = 8 * MIB
"""Where the file system is on a disk."""
SUPERBLOCK, NODE = 0x1_0000, 16384
COMPRESSIONS = ("zlib", "lzo", "zstd")

TOKEN = b"a value that a build has left"
"""In compressed files alone."""

Image: TypeAlias = bytearray | mmap.mmap
"""A file system in memory."""


def kept(directory: Path) -> Path:
    """What Linux has written: the subvolumes `root` (with `var/nested` inside), `home`
    and `snap`, a snapshot of `root`."""
    path = directory / "btrfs.img"
    zeros = bytes(MIB)
    with lzma.open(KEPT) as packed, path.open("wb") as file:
        while piece := packed.read(MIB):
            if piece == zeros:
                file.seek(MIB, os.SEEK_CUR)
            else:
                file.write(piece)
        file.truncate()
    return path


def make(directory: Path, files: Files, *options: str, size: int = SIZE) -> Path:
    """A new one."""
    path = directory / "btrfs.img"
    tree = world.write_tree(directory / "tree", files)
    with path.open("wb") as file:
        file.truncate(size)
    world.run("mkfs.btrfs", "-q", "-U", ROOT_UUID, "--rootdir", str(tree), *options, str(path))
    return path


def disk(directory: Path, image: Path, esp: Files) -> Path:
    """A disk with a file system as its root partition, behind an EFI system partition."""
    path = directory / "disk.raw"
    length = image.stat().st_size
    size = START + length + MIB
    kind = partition.ROOT["x86_64"]
    parts = [
        partition.Partition(1, kind, uuid.uuid4(), "root", START, length),
        partition.Partition(14, partition.BIOS_BOOT, uuid.uuid4(), "bios", MIB, MIB),
        partition.Partition(15, partition.ESP, uuid.uuid4(), "esp", 2 * MIB, 4 * MIB),
    ]
    head, tail = partition.table(uuid.uuid4(), size, parts)
    with path.open("wb") as file:
        file.write(bytes(world.GRUB) + head[440:])
        file.seek(size - len(tail))
        file.write(tail)
        file.seek(MIB)
        file.write(b"\xea" * 512)
    world.run(
        *("dd", f"if={image}", f"of={path}", "bs=1M", f"seek={START // MIB}"),
        *("conv=sparse,notrunc", "status=none"),
    )
    world.write_fat(path, 2 * MIB, 4 * MIB, directory / "esp", esp)
    return path


def good() -> Files:
    """An installation as Fedora lays it out, without anything to find."""
    files = world.good()
    early = ("btrfs", *world.EARLY)
    initrd = [f"usr/lib/modules/{VERSION}/{world.module(name)}" for name in early]
    grub = (
        "menuentry 'Linux' {\n"
        f"    linux /root/boot/vmlinuz-{VERSION} root=UUID={ROOT_UUID} ro rootflags=subvol=root "
        "console=tty0 console=ttyS0,115200 nvme_core.io_timeout=4294967295\n"
        f"    initrd /root/boot/initrd.img-{VERSION}\n"
        "}\n"
    )
    fstab = (
        f"UUID={ROOT_UUID} / btrfs subvol=root,compress=zstd:1 0 0\n"
        f"UUID={ROOT_UUID} /home btrfs subvol=home,compress=zstd:1 0 0\n"
        f"UUID={world.ESP_UUID} /boot/efi vfat nofail 0 2\n"
    )
    depends = files[f"{world.MODULES}/modules.dep"]
    assert isinstance(depends, bytes)
    files[f"{world.MODULES}/modules.dep"] = depends + f"{world.module('btrfs')}:\n".encode()
    files[f"/boot/initrd.img-{VERSION}"] = world.cpio(initrd)
    files["/boot/grub/grub.cfg"] = grub.encode()
    files["/etc/fstab"] = fstab.encode()
    files["/etc/os-release"] = b"ID=fedora\nVERSION_ID=41\n"
    files["/var/lib/dpkg/status"] = b"Package: a\nStatus: install ok installed\nVersion: 1\n\n"
    return files


def text(lines: int) -> bytes:
    """What can be compressed."""
    return b"".join(b"line %d of what repeats itself\n" % (n % 400) for n in range(lines))


# -- changes of one


def sign(image: Image, at: int, size: int) -> None:
    """Make the checksum of a block right."""
    image[at : at + 4] = struct.pack("<I", crc32c(bytes(image[at + 32 : at + size])))


def change_superblock(image: Image, field: int, value: bytes, at: int = SUPERBLOCK) -> None:
    image[at + field : at + field + len(value)] = value
    sign(image, at, 4096)


def blocks(image: Image, owner: int | None = None) -> list[int]:
    """Where the blocks of a tree (None: of all) are, copies and old ones included."""
    ident = image[SUPERBLOCK + 32 : SUPERBLOCK + 48]
    return [
        at
        for at in range(0, len(image) - NODE, NODE)
        if image[at + 32 : at + 48] == ident
        and image[at + 64 : at + 72] != b"_BHRfS_M"
        and owner in (None, struct.unpack_from("<Q", image, at + 88)[0])
    ]


def items(image: Image, owner: int, kind: int) -> Iterator[tuple[int, int]]:
    """Where the data of a tree's items of a kind are, and their length; each block is
    signed anew when its last one was given out."""
    for at in blocks(image, owner):
        count, level = struct.unpack_from("<IB", image, at + 96)
        for number in range(0 if level else count):
            found, _, start, size = struct.unpack_from("<BQII", image, at + 109 + 25 * number)
            if found == kind:
                yield at + 101 + start, size
        sign(image, at, NODE)


def replace(image: Image, old: bytes, new: bytes, owner: int | None = None) -> None:
    """Replace bytes in all blocks of a tree."""
    count = 0
    assert len(old) == len(new)
    for at in blocks(image, owner):
        block = bytes(image[at : at + NODE])
        if old in block:
            image[at : at + NODE] = block.replace(old, new)
            sign(image, at, NODE)
            count += block.count(old)
    assert count, f"{old!r} is nowhere"


# -- the one that is kept


def _write(top: Path) -> None:
    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    for name in ("root", "home"):
        run("btrfs", "subvolume", "create", str(top / name))
    root, home = top / "root", top / "home"
    world.write_tree(root, good())
    world.write_tree(home, {"/me/node_modules/a/package.json": b'{"name": "a", "version": "1"}'})
    (root / "home").mkdir()
    (root / "var").mkdir(exist_ok=True)
    run("btrfs", "subvolume", "create", str(root / "var" / "nested"))
    (root / "var" / "nested" / "file").write_bytes(b"in a subvolume of its own\n")
    run("btrfs", "subvolume", "snapshot", str(root), str(top / "snap"))
    srv = root / "srv"
    srv.mkdir()
    for name in COMPRESSIONS:
        (srv / name).mkdir()
        run("btrfs", "property", "set", str(srv / name), "compression", name)
        (srv / name / "large").write_bytes(text(8000))
        (srv / name / "small").write_bytes(text(80)[:1500])
        (srv / name / "changed").write_bytes(text(8000))
        os.sync()
        with (srv / name / "changed").open("r+b") as changed:
            changed.seek(150_000)
            changed.write(random.Random(name).randbytes(9000))
    for name in COMPRESSIONS:
        (srv / name / "token").write_bytes(text(5000) + TOKEN + text(5000))
        (srv / name / "short").write_bytes(text(30) + TOKEN)
    (srv / "plain").write_bytes(text(8000) + b"the end")
    run("cp", "--reflink=always", str(srv / "plain"), str(srv / "shared"))
    with (srv / "sparse").open("wb") as file:
        file.seek(2 * MIB)
        file.write(b"end")
    run("fallocate", "-l", "100000", str(srv / "allocated"))
    for number in range(300):
        path = srv / "many" / f"a name that is long enough to fill blocks {number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
    os.link(srv / "plain", srv / "again")
    sums = {
        "/" + str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    (top / SUMS.lstrip("/")).write_text(json.dumps(sums))


def _main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        image, top = Path(scratch, "image"), Path(scratch, "top")
        top.mkdir()
        with image.open("wb") as file:
            file.truncate(SIZE)
        world.run("mkfs.btrfs", "-q", "-m", "dup", "-U", ROOT_UUID, "-L", "kept", str(image))
        subprocess.run(["mount", "-o", "loop", str(image), str(top)], check=True)
        try:
            _write(top)
            subprocess.run(["fstrim", str(top)], check=True)
        finally:
            subprocess.run(["umount", str(top)], check=True)
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_bytes(lzma.compress(image.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    _main()
