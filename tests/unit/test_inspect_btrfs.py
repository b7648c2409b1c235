"""Btrfs: what mkfs.btrfs and Linux have written, what a root directory in a subvolume
means for the proofs, and what makes no sense."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from publisher.build import partition
from publisher.disks import extents
from publisher.model import MIB, Disk, Finding
from publisher.proof.checks import RULES
from publisher.proof.inspect import subvolumes
from publisher.proof.inspect.btrfs import TOP, Btrfs, lzo
from publisher.proof.inspect.btrfs.unpack import unpack
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.partitions import Partition
from publisher.proof.inspect.storage import RawFile, inside
from publisher.proof.inspect.tree import Mounted, Tree
from publisher.proof.inspect.volume import Volume, open_volume
from publisher.proof.inventory import collect
from publisher.proof.lint import examine
from publisher.proof.secrets import Known, search
from publisher.task import detached
from tests.unit import btrfs_disk as btrfs
from tests.unit import lint_world as world
from tests.unit.btrfs_disk import Image
from tests.unit.lint_world import VERSION, Files, Link

LARGE = random.Random(0).randbytes(3 * MIB + 17)
KEY = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)
FILES: Files = {
    "/large": LARGE,
    "/etc/os-release": b"ID=fedora\n",
    "/links/absolute": Link("/etc/os-release"),
    "/links/long": Link("../" + "./" * 60 + "etc/os-release"),
    **{f"/many/{number:04}-{'x' * 60}": b"%d" % number for number in range(500)},
}
ROOT_TREE, CHUNK_TREE, ROOT = 1, 3, 256


class Bytes:
    """A partition in memory."""

    def __init__(self, data: Image) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        inside(self, offset, length)
        return bytes(self._data[offset : offset + length])


def opened(data: Image) -> Btrfs:
    return Btrfs(Bytes(data), Budget())


@pytest.fixture(scope="module")
def kept_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return btrfs.kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def image(kept_path: Path) -> Iterator[Image]:
    """The one that is kept: changes stay in memory."""
    with (
        kept_path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped,
    ):
        yield mapped


# -- what it holds


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-m", "single"),
        ("-m", "dup", "-d", "dup"),
        ("--mixed", "-n", "4096"),
        ("-n", "65536", "-O", "^no-holes,^extref"),
        ("--csum", "sha256"),
        ("--csum", "blake2"),
        ("--csum", "xxhash"),
        ("--shrink",),
        ("-d", "raid0", "-R", "quota"),
    ],
    ids=lambda options: " ".join(options),
)
def test_it_is_read_whatever_it_was_made_with(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = btrfs.make(tmp_path, FILES, "-L", "mine", *options)
    volume = open_volume(RawFile(path, Budget()), None, Budget())
    assert (volume.kind, volume.uuid, volume.label) == ("btrfs", world.ROOT_UUID, "mine")
    assert volume.files is not None
    assert volume.files.remarks == ()
    tree = Tree(volume.files, Budget())
    assert tree.read("/large") == LARGE
    assert tree.read_at("/large", 2 * MIB + 5, 100) == LARGE[2 * MIB + 5 : 2 * MIB + 105]
    assert tree.text("/links/absolute") == tree.text("/links/long") == "ID=fedora\n"
    assert len(tree.names("/many")) == 500
    for number in (0, 250, 499):
        assert tree.text(f"/many/{number:04}-{'x' * 60}") == str(number)
    assert not tree.exists("/large/below")


def test_every_file_is_as_linux_read_it(image: Image) -> None:
    tree = Tree(opened(image), Budget())
    sums: Mapping[str, str] = json.loads(tree.text(btrfs.SUMS))
    assert len(sums) > 350
    assert sums.keys() == {p.path for p in tree.walk("/") if p.node.is_file} - {btrfs.SUMS}
    for path, expected in sums.items():
        assert hashlib.sha256(tree.read(path)).hexdigest() == expected, path


@pytest.mark.parametrize("name", btrfs.COMPRESSIONS)
def test_compressed_files_are_read_from_any_byte_on(image: Image, name: str) -> None:
    tree = Tree(opened(image), Budget())
    text = btrfs.text(8000)
    assert tree.read(f"/root/srv/{name}/large") == text
    for at in (0, 1, 4095, 131_071, 131_072, 200_000, len(text) - 1, len(text)):
        assert tree.read_at(f"/root/srv/{name}/large", at, 5000) == text[at : at + 5000]


def test_where_content_lies_is_told_only_of_what_lies_there_plainly(image: Image) -> None:
    files = opened(image)
    tree = Tree(files, Budget())
    for path in ("/root/srv/plain", "/root/srv/shared", "/root/etc/fstab", "/home/me"):
        place = tree.find(path)
        assert place is not None
        content = b"".join(files.stream(place.node)) if place.node.is_file else b""
        there = b"".join(image[e.offset : e.end] for e in files.extents(place.node))
        assert there[: len(content)] == content, path
        assert bool(there) == place.node.is_file, path
    for name in btrfs.COMPRESSIONS:
        place = tree.find(f"/root/srv/{name}/large")
        assert place is not None
        assert list(files.extents(place.node)) == []
    place = tree.find("/root/srv/sparse")
    assert place is not None
    (extent,) = files.extents(place.node)
    assert image[extent.offset : extent.offset + 3] == b"end"


def test_subvolumes_are_directories_and_empty_where_a_snapshot_was_taken(image: Image) -> None:
    files = opened(image)
    tree = Tree(files, Budget())
    assert tree.text("/root/var/nested/file") == "in a subvolume of its own\n"
    assert tree.names("/snap/var/nested") == []
    assert tree.text("/snap/etc/fstab") == tree.text("/root/etc/fstab")
    paths = files.subvolumes()
    assert sorted(paths.values()) == ["", "/home", "/root", "/root/var/nested", "/snap"]
    assert {files.named(path): path for path in paths.values()} == paths
    for path in ("/root/etc", "/root/none", "/snap/var/nested", "/root/etc/fstab/x"):
        assert files.named(path) is None, path
    below = Tree(files.subvolume(files.named("/root/var/nested") or 0), Budget())
    assert below.names("/") == ["file"]
    with pytest.raises(Damaged, match="no subvolume 999"):
        files.subvolume(999)


def test_options_of_a_mount_name_a_subvolume(image: Image) -> None:
    files = opened(image)

    def ident(*options: str) -> int | None:
        shown = subvolumes.mounted(files, options)
        return shown.ident if isinstance(shown, Btrfs) else None

    root = files.named("/root")
    assert ident() == ident("subvolid=0") == ident("ro", "subvol=/") == TOP
    assert ident("subvol=root") == ident("noatime", "subvol=/root/") == root
    assert ident(f"subvolid={root}") == ident(f"subvolid={root}", "subvol=root") == root
    for options in ("subvol=none", "subvolid=9999", "subvolid=x", "subvolid=-5"):
        assert ident(options) is None, options


def test_what_is_mounted_in_several_places_is_walked_once(image: Image) -> None:
    """As /.snapshots of openSUSE shows the root directory once more."""
    files = opened(image)
    root = files.subvolume(files.named("/root") or 0)
    tree = Tree(root, Budget())
    once = len(list(tree.walk("/")))
    tree.mount("/srv/zstd", Mounted(files))
    paths = [place.path for place in tree.walk("/")]
    assert "/srv/zstd/home/me" in paths
    assert "/srv/zstd/snap/etc/fstab" in paths
    assert "/srv/zstd/root" in paths
    assert "/srv/zstd/root/etc" not in paths
    assert len(paths) == len(set(paths)) > once
    assert tree.exists("/srv/zstd/root/etc/fstab")


# -- an installation in it


def inspected(data: Image) -> world.World:
    return world.World(root=opened(data))


def examined(path: Path) -> list[Finding]:
    budget = Budget()
    file = RawFile(path, budget)
    try:
        return list(examine(file, (), (), budget).findings)
    finally:
        file.close()


def test_an_installation_in_a_subvolume_is_proved(kept_path: Path, tmp_path: Path) -> None:
    disk = btrfs.disk(tmp_path, kept_path, world.good_esp())
    assert [f.rule for f in examined(disk)] == ["disk.growth"], "it was kept without btrfs-progs"
    inventory = collect(as_disk(disk), detached(tmp_path))
    assert inventory.gaps == ("packages of rpm: fedora keeps a list of them, and it is not there",)
    assert inventory.written > 1_700_000_000
    assert inventory.system.id == "fedora"
    # the second is in another subvolume, which fstab mounts
    assert [c.name for c in inventory.components] == ["a", "a"]
    assert inventory.components[1].paths == ("/home/me/node_modules/a/package.json",)


def test_an_inventory_has_the_date_of_the_topmost_directories(
    kept_path: Path, tmp_path: Path
) -> None:
    """The ctime of a btrfs_inode_item is at byte 124. A year of more than four digits
    is no date of a document."""
    disk = btrfs.disk(tmp_path, kept_path, world.good_esp())
    with (
        disk.open("r+b") as file,
        mmap.mmap(file.fileno(), btrfs.SIZE, offset=btrfs.START) as image,
    ):
        for time, written in ((1_650_000_000, 1_650_000_000), (1 << 60, 0), (-1, 0)):
            for subvolume in (5, *range(256, 260)):
                for at, _ in btrfs.items(image, subvolume, 1):
                    struct.pack_into("<q", image, at + 124, time)
            assert collect(as_disk(disk), detached(tmp_path / "task")).written == written


def test_the_root_directory_is_where_the_boot_loader_says(image: Image) -> None:
    def root(data: Image) -> str:
        disk = inspected(data)
        return disk.shown(disk.root())[0].path

    assert root(image) == "/root"
    # a snapshot that says in its fstab that it is another one, too
    btrfs.replace(image, b"rootflags=subvol=root", b"rootflags=subvol=snap")
    assert root(image) == "/snap"


def test_the_default_subvolume_is_the_root_directory(image: Image) -> None:
    """As openSUSE has it: without rootflags, by snapshots that are made the default."""
    snap = opened(image).named("/snap")
    assert snap
    entry = struct.pack("<QBQQHHB", TOP, 132, 2**64 - 1, 0, 0, 7, 2)
    for at in btrfs.blocks(image, ROOT_TREE):
        start = image.find(b"default", at, at + btrfs.NODE) - len(entry)
        if start > at:
            assert image[start : start + 17] == entry[:17]
            struct.pack_into("<Q", image, start, snap)
            btrfs.sign(image, at, btrfs.NODE)
    assert opened(image).default() == snap
    btrfs.replace(image, b"rootflags=subvol=root", b"systemd.unit=x.target")
    disk = inspected(image)
    assert [s.path for s in disk.shown(disk.root())] == ["/snap", "/home"]
    assert disk.tree().names("/home/me") == ["node_modules"]
    assert found("boot.root", disk) == []


def found(rule: str, disk: Inspection) -> list[str]:
    return [e.text for r in RULES if r.id == rule for e in r.check(disk)]


def test_a_subvolume_that_is_not_there_is_told(image: Image) -> None:
    btrfs.replace(image, b"rootflags=subvol=root", b"rootflags=subvol=rooz")
    btrfs.replace(image, b"subvol=home", b"subvol=hole")
    disk = inspected(image)
    assert disk.shown(disk.root())[0].path == "/root", "by its own fstab"
    (text,) = found("boot.root", disk)
    assert "rootflags=subvol=rooz names no subvolume" in text
    (text,) = found("fstab.device", disk)
    assert "has no subvol=hole" in text
    with pytest.raises(Unreadable, match="there is no subvol=hole"):
        disk.tree().names("/home")


def test_a_kernel_that_is_not_told_the_subvolume_is_told_of(image: Image) -> None:
    btrfs.replace(image, b"rootflags=subvol=root", b"systemd.unit=x.target")
    (text,) = found("boot.root", inspected(image))
    assert text == (
        "without rootflags=subvol= the kernel mounts a subvolume that holds no root directory; "
        "that is in /root"
    )


def test_files_that_grub_names_by_the_top_level_subvolume_are_found(image: Image) -> None:
    disk = inspected(image)
    assert disk.boot_file(f"/root/boot/vmlinuz-{VERSION}") == f"/boot/vmlinuz-{VERSION}"
    assert disk.boot_file("/home/me/node_modules/a/package.json").startswith("/home/me/")
    assert disk.boot_file("/snap/boot/none") == ""
    (kernel,) = disk.kernels()
    assert kernel.initrds == (f"/boot/initrd.img-{VERSION}",)
    assert kernel.driver("btrfs") == "initramfs"


@pytest.mark.long
def test_boot_may_be_a_file_system_of_its_own_with_entries(tmp_path: Path) -> None:
    """As Fedora has it: the entries of /boot, which is ext4."""
    other = "0b9a6a5c-0000-4000-8000-000000000001"
    files: Files = {
        "/etc/os-release": b"ID=fedora\n",
        "/etc/fstab": f"UUID={other} /boot ext4 defaults 1 2\n".encode(),
        "/boot/hidden": b"",
        f"/usr/lib/modules/{VERSION}/modules.dep": b"kernel/fs/btrfs/btrfs.ko:\n",
        "/lib": Link("usr/lib"),
    }
    options = f"options root=UUID={world.ROOT_UUID} ro rootflags=subvol=root\n"
    entry = f"title Fedora\nlinux /vmlinuz-{VERSION}\ninitrd /initramfs-{VERSION}.img\n{options}"
    boot: Files = {
        "/grub2/grub.cfg": b"insmod blscfg\nblscfg\n",
        "/loader/entries/a.conf": entry.encode(),
        f"/vmlinuz-{VERSION}": b"kernel",
        f"/initramfs-{VERSION}.img": world.cpio(["usr/lib"]),
    }
    part = Partition(2, "linux", "0002", "boot", 7 * MIB, MIB)
    volume = Volume(part, "ext4", other, "boot", world.Memory(boot, uuid=other))
    disk = world.World(
        root=opened(bytearray(btrfs.make(tmp_path, files).read_bytes())), more=[volume]
    )
    (kernel,) = disk.kernels()
    assert (kernel.image, kernel.version) == (f"/boot/vmlinuz-{VERSION}", VERSION)
    (text,) = found("boot.root", disk)
    assert "rootflags=subvol=root names no subvolume" in text
    assert "driver btrfs" in found("initramfs.root", disk)[0]


def test_the_driver_of_the_root_must_be_in_the_initramfs(tmp_path: Path) -> None:
    files = btrfs.good()
    files[f"/boot/initrd.img-{VERSION}"] = world.cpio(["usr/lib/modules"])
    grub = files["/boot/grub/grub.cfg"]
    assert isinstance(grub, bytes)
    files["/boot/grub/grub.cfg"] = grub.replace(b"rootflags=subvol=root", b"").replace(
        b"/root/boot", b"/boot"
    )
    files["/etc/fstab"] = f"UUID={world.ROOT_UUID} / btrfs defaults 0 0\n".encode()
    path = btrfs.disk(tmp_path, btrfs.make(tmp_path, files), world.good_esp())
    (finding,) = [f for f in examined(path) if f.severity.value == "error"]
    assert finding.rule == "initramfs.root"
    assert "the driver btrfs of kernel" in finding.evidence


# -- secrets


def as_disk(path: Path) -> Disk:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Disk(path, size, "", extents.merge(extents.of_file(file.fileno(), size)))


def test_secrets_are_told_with_their_files(tmp_path: Path) -> None:
    files: Files = {
        **FILES,
        "/root/.ssh/id_ed25519": KEY,  # inside of the inode, and in a copy of that
        "/srv/large": random.Random(1).randbytes(70_000) + b"\n" + KEY,
        "/root/.bash_history": b"ls\n",
    }
    path = btrfs.disk(tmp_path, btrfs.make(tmp_path, files, "-m", "dup"), world.good_esp())
    findings = search(as_disk(path), Known(), detached(tmp_path))
    assert {(f.rule, f.path) for f in findings} == {
        ("secrets.private-key", "/root/.ssh/id_ed25519"),
        ("secrets.private-key", "/srv/large"),
        ("secrets.history", "/root/.bash_history"),
    }


def test_secrets_in_subvolumes_are_told_by_the_path_in_the_installation(
    image: Image, tmp_path: Path
) -> None:
    token = b"a value of the build"
    line = b"line 7 of what repeats itself\n"
    place = Tree(opened(image), Budget()).find("/root/srv/plain")
    assert place is not None
    (extent, *_) = opened(image).extents(place.node)
    at = image.find(line, extent.offset)
    image[at : at + len(token)] = token
    nested = b"in a subvolume of its own"
    btrfs.replace(image, nested, token + nested[len(token) :])
    # once more where the root directory no longer has it: in the snapshot alone
    snap = opened(image).named("/snap")
    btrfs.replace(image, b"console=ttyS0,115200", token, owner=snap)
    (tmp_path / "changed").write_bytes(image)
    path = btrfs.disk(tmp_path, tmp_path / "changed", world.good_esp())
    findings = search(as_disk(path), Known({"token": token}), detached(tmp_path))
    told = {f.path: f.evidence for f in findings}
    where = "/snap/boot/grub/grub.cfg on partition 1 (btrfs), in a subvolume that is not mounted"
    assert where in told.pop("/snap/boot/grub/grub.cfg")
    # Btrfs leaves blocks behind that it has written anew elsewhere
    assert "in no file: erased" in told.pop("")
    # a link of one file, of which another shares the content
    assert told.keys() == {"/var/nested/file", "/srv/again"}


def test_secrets_in_files_that_btrfs_compresses_are_found(kept_path: Path, tmp_path: Path) -> None:
    path = btrfs.disk(tmp_path, kept_path, world.good_esp())
    findings = search(as_disk(path), Known({"token": btrfs.TOKEN}), detached(tmp_path))
    # blocks that Linux has left behind may show it, too
    assert {f.path for f in findings} - {""} == {
        f"/srv/{name}/{file}" for name in btrfs.COMPRESSIONS for file in ("short", "token")
    }
    at = len(btrfs.text(5000))
    (long,) = [f for f in findings if f.path == "/srv/zlib/token"]
    assert f"({len(btrfs.TOKEN)} bytes at {at} of the file, compressed)" in long.evidence


def test_a_subvolume_may_be_mounted_on_another_root(kept_path: Path, tmp_path: Path) -> None:
    """Of which fstab mounts no other one, so `home` has no path in the installation."""
    fstab = b"LABEL=kept /data btrfs subvol=root 0 0\n"
    files: Files = {"/etc/os-release": b"ID=debian\n", "/etc/fstab": fstab, "/usr/x": b""}
    tree = world.write_tree(tmp_path / "tree", files)
    path, start = tmp_path / "disk.raw", 16 * MIB
    parts = [
        partition.Partition(1, partition.ROOT["x86_64"], uuid.uuid4(), "root", MIB, 8 * MIB),
        partition.Partition(2, partition.ROOT["x86_64"], uuid.uuid4(), "data", start, btrfs.SIZE),
    ]
    size = start + btrfs.SIZE + MIB
    head, tail = partition.table(uuid.uuid4(), size, parts)
    with path.open("wb") as file:
        file.write(head)
        file.seek(size - len(tail))
        file.write(tail)
    ext = ("-t", "ext4", "-d", str(tree), "-E", f"offset={MIB}", str(path), "8M")
    world.run("mke2fs", "-q", "-F", *ext)
    copy = ("bs=1M", f"seek={start // MIB}", "conv=sparse,notrunc", "status=none")
    world.run("dd", f"if={kept_path}", f"of={path}", *copy)
    known = Known({"token": btrfs.TOKEN, "package": b'{"name": "a", "version": "1"}'})
    findings = search(as_disk(path), known, detached(tmp_path))
    told = {f.path: f.evidence for f in findings}
    where = (
        "/home/me/node_modules/a/package.json on partition 2 (btrfs), in a subvolume that is not"
    )
    assert where in told.pop("/home/me/node_modules/a/package.json")
    assert told.keys() - {""} == {
        f"/data/srv/{name}/{file}" for name in btrfs.COMPRESSIONS for file in ("short", "token")
    }


# -- what is damaged


def test_a_damaged_superblock_is_told_and_its_copy_is_read(image: Image) -> None:
    image[btrfs.SUPERBLOCK + 64 : btrfs.SUPERBLOCK + 80] = bytes(16)
    volume = open_volume(Bytes(image), None, Budget())
    assert volume.files is not None
    assert volume.uuid == world.ROOT_UUID
    (remark,) = volume.files.remarks
    assert remark.startswith("its first superblock is damaged, so Linux does not mount it")
    assert Tree(volume.files, Budget()).exists("/root/etc/fstab")
    image[btrfs.SUPERBLOCK + 70] = 1
    at = 64 * MIB
    image[at + 3000] ^= 1
    volume = open_volume(Bytes(image), None, Budget())
    assert isinstance(volume.fault, Damaged)
    assert volume.kind == "btrfs"


@pytest.mark.parametrize(
    ("field", "value", "remark"),
    [
        (96, struct.pack("<Q", 30 * MIB), "its log tree holds changes that were not written back"),
        (56, struct.pack("<Q", 5), "it is marked as having errors"),
        (209, struct.pack("<Q", 1 << 40), "more than its partition"),
    ],
    ids=["log", "errors", "size"],
)
def test_what_is_not_as_it_should_be_is_a_remark(
    image: Image, field: int, value: bytes, remark: str
) -> None:
    btrfs.change_superblock(image, field, value)
    (found,) = opened(image).remarks
    assert remark in found


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (136, struct.pack("<Q", 3), "spread over 3 devices"),
        (188, struct.pack("<Q", 1 << 20 | 1 << 13), "not known here: extent tree v2, bit 20"),
        (188, struct.pack("<Q", 1 << 12), "not known here: zoned"),
        (196, struct.pack("<H", 9), "checksums of a kind that is not known here"),
        (201, struct.pack("<Q", 2), "needs a device that is not here"),
    ],
    ids=["devices", "features", "zoned", "checksums", "device"],
)
def test_what_this_reader_does_not_know_is_unreadable(
    image: Image, field: int, value: bytes, text: str
) -> None:
    btrfs.change_superblock(image, field, value)
    volume = open_volume(Bytes(image), None, Budget())
    assert volume.uuid == world.ROOT_UUID, "its name is known all the same"
    assert volume.fault is not None
    assert not isinstance(volume.fault, Damaged)
    assert text in volume.fault.message


def test_several_devices_are_unreadable(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "other"]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(btrfs.SIZE)
    world.run("mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", *map(str, paths))
    volume = open_volume(RawFile(paths[0], Budget()), None, Budget())
    assert volume.fault is not None
    assert volume.fault.message == "it is spread over 2 devices, of which this is one"


def test_it_may_bear_another_uuid_than_its_blocks(tmp_path: Path) -> None:
    path = btrfs.make(tmp_path, FILES)
    world.run("btrfstune", "-m", str(path))
    volume = open_volume(RawFile(path, Budget()), None, Budget())
    assert volume.files is not None
    assert volume.uuid != world.ROOT_UUID
    assert Tree(volume.files, Budget()).read("/large") == LARGE


def test_raid_is_unreadable(image: Image) -> None:
    """Metadata that a chunk with RAID1 holds: the superblock's copy of it says so, too."""
    kind = struct.pack("<QQQ", 2, 65536, 0x24)
    raid = struct.pack("<QQQ", 2, 65536, 0x14)
    btrfs.replace(image, kind, raid, owner=CHUNK_TREE)
    with pytest.raises(Unreadable, match="as RAID1 over several devices"):
        opened(image)


def test_a_damaged_block_is_told_and_its_copy_is_read(image: Image) -> None:
    (pointer,) = struct.unpack_from("<Q", image, btrfs.SUPERBLOCK + 80)
    first, second = (
        at
        for at in btrfs.blocks(image, ROOT_TREE)
        if struct.unpack_from("<Q", image, at + 48)[0] == pointer
    )
    image[first + 5000] ^= 1
    files = opened(image)
    assert Tree(files, Budget()).exists("/root/etc/fstab")
    assert files.remarks == ("some of its metadata is damaged, of which the copy is sound",)
    image[second + 5000] ^= 1
    with pytest.raises(Damaged, match="its checksum is wrong"):
        opened(image)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (48, struct.pack("<Q", 16384), "it is another one"),
        (80, struct.pack("<Q", 99999), "it is of generation 99999"),
        (88, struct.pack("<Q", 7), "a block of tree 1 belongs to tree 7"),
        (96, struct.pack("<I", 0xFFFFFFFF), "holds 4294967295 items"),
        (100, b"\x03", "its level is 3, not 0"),
        (101, struct.pack("<Q", 1 << 63), "not in order"),
        (118, struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0), "outside of its block"),
    ],
    ids=["place", "generation", "owner", "items", "level", "order", "data"],
)
def test_blocks_that_contradict_themselves_are_damaged(
    image: Image, field: int, value: bytes, text: str
) -> None:
    for at in btrfs.blocks(image, ROOT_TREE):
        image[at + field : at + field + len(value)] = value
        btrfs.sign(image, at, btrfs.NODE)
    with pytest.raises(Damaged, match=text):
        opened(image)


def test_a_block_that_leads_to_itself_is_damaged(image: Image) -> None:
    """An inner block of a subvolume's tree, whose pointers all lead back to it."""
    changed = 0
    for at in btrfs.blocks(image, ROOT):
        level = image[at + 100]
        count, logical = (
            struct.unpack_from("<I", image, at + 96)[0],
            struct.unpack_from("<Q", image, at + 48)[0],
        )
        for number in range(count if level else 0):
            struct.pack_into("<Q", image, at + 101 + 33 * number + 17, logical)
            changed += 1
        btrfs.sign(image, at, btrfs.NODE)
    assert changed
    with pytest.raises(Damaged, match="its level is 1, not 0"):
        list(Tree(opened(image), Budget()).walk("/"))


def test_blocks_that_several_pointers_share_are_damaged(image: Image) -> None:
    for at in btrfs.blocks(image, ROOT):
        count = struct.unpack_from("<I", image, at + 96)[0]
        first = bytes(image[at + 118 : at + 134])
        for number in range(1, count if image[at + 100] else 0):
            place = at + 101 + 33 * number + 17
            image[place : place + 16] = first
        btrfs.sign(image, at, btrfs.NODE)
    with pytest.raises(Damaged, match="other keys than the one above says"):
        list(Tree(opened(image), Budget()).walk("/"))


@pytest.mark.parametrize("target", [(ROOT, 132), (256, 1)], ids=["subvolume", "directory"])
def test_a_directory_that_holds_itself_ends_the_walk(image: Image, target: tuple[int, int]) -> None:
    """/root/srv/many leads to /root as a subvolume, which only a reference in the root
    tree would confirm; or as a directory."""
    for at, _ in btrfs.items(image, ROOT, 96):
        if image[at + 30 : at + 34] == b"many":
            struct.pack_into("<QBQ", image, at, *target, 0)
    tree = Tree(opened(image), Budget())
    if target[1] == 132:
        assert tree.names("/root/srv/many") == []
        assert len(list(tree.walk("/"))) > 100
    else:
        assert tree.exists("/root/srv/many/srv/many/etc/fstab")
        with pytest.raises(Damaged, match="/root/srv/many is in more than one place"):
            list(tree.walk("/"))


def test_packed_data_that_make_no_sense_are_damaged() -> None:
    draw = random.Random(1)
    for kind in (1, 2, 3):
        for length in (1, 20, 4000):
            with pytest.raises(Damaged):
                unpack(kind, draw.randbytes(length), 4096, 4096)
    with pytest.raises(Unreadable, match="not known here"):
        unpack(4, b"", 4096, 4096)
    with pytest.raises(Damaged, match="ends too early"):
        unpack(1, zlib.compress(bytes(5000))[:-9], 5000, 4096)
    assert unpack(1, zlib.compress(b"short"), 4096, 4096) == b"short".ljust(4096, b"\0")


def test_extents_longer_than_linux_writes_are_damaged(image: Image) -> None:
    for at, size in btrfs.items(image, ROOT, 108):
        if size == 53 and image[at + 16]:
            struct.pack_into("<Q", image, at + 8, 1 << 60)
    budget = Budget()
    tree = Tree(Btrfs(Bytes(image), budget), budget)
    with pytest.raises(Damaged, match=f"a compressed extent has {1 << 60} bytes"):
        tree.read("/root/srv/zlib/large")
    assert tree.read("/root/srv/plain"), "the budget is as it was"


def test_lzo_never_leaves_what_it_was_given() -> None:
    draw = random.Random(2)
    ended = 0
    for number in range(3000):
        piece = draw.randbytes(draw.randrange(1, 60))
        data = struct.pack("<II", len(piece) + 8, len(piece)) + piece
        try:
            assert len(lzo.decompress(data, 4096, 4096)) <= 4096, number
            ended += 1
        except Damaged:
            pass
    assert ended < 3000
    # a run of zeros makes a length without end
    with pytest.raises(Damaged):
        lzo.decompress(struct.pack("<II", 4008, 4000) + bytes(4000), 1 << 20, 4096)


def test_reading_ends_by_the_budget(image: Image) -> None:
    for path in ("/root/srv/sparse", "/root/srv/zstd/large"):
        budget = Budget(size=200_000)
        with pytest.raises(Exhausted, match="more bytes"):
            Tree(Btrfs(Bytes(image), budget), budget).read(path)
    budget = Budget(steps=2000)
    with pytest.raises(Exhausted, match="more steps"):
        list(Tree(Btrfs(Bytes(image), budget), budget).walk("/"))
