"""The readers of partition tables and file systems, on disks that other tools made."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from publisher.model import MIB
from publisher.proof import checks
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.fat import Fat
from publisher.proof.inspect.partitions import read_table
from publisher.proof.inspect.storage import RawFile, Slice
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.volume import open_volume
from tests.unit import lint_world as world
from tests.unit.lint_world import Files, Link

LARGE = os.urandom(3 * MIB + 17)


def tree_of(path: Path, budget: Budget | None = None) -> Tree:
    # so that what has no end fails soon
    budget = budget or Budget(steps=100_000, seconds=30)
    return Tree(Ext(RawFile(path, budget), budget), budget)


def make_ext(directory: Path, files: Files, *options: str, size: str = "8M") -> Path:
    path = directory / "ext.img"
    tree = world.write_tree(directory / "files", files)
    world.run("mke2fs", "-q", "-F", *options, "-d", str(tree), str(path), size)
    return path


FILES: Files = {
    "/large": LARGE,
    "/etc/os-release": b"ID=debian\n",
    "/links/absolute": Link("/etc/os-release"),
    "/links/relative": Link("../etc/os-release"),
    "/links/escape": Link("../../../../../../etc/os-release"),
    "/links/long": Link("../" + "./" * 60 + "etc/os-release"),
    "/links/loop": Link("loop"),
    **{f"/many/{number:04}-{'x' * 60}": b"" for number in range(300)},
}


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext4"),
        ("-t", "ext2", "-b", "1024"),
        ("-t", "ext3", "-I", "128"),
        ("-t", "ext4", "-b", "1024", "-O", "^64bit,inline_data"),
        ("-t", "ext4", "-b", "1024", "-g", "256", "-O", "meta_bg,^resize_inode,^flex_bg"),
        ("-t", "ext4", "-O", "^extent,^64bit"),
    ],
    ids=["ext4", "ext2", "ext3", "inline", "meta_bg", "indirect"],
)
def test_ext_is_read_whatever_it_was_made_with(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tree_of(make_ext(tmp_path, FILES, *options))
    assert tree.read("/large") == LARGE
    assert tree.read_at("/large", 2 * MIB + 5, 100) == LARGE[2 * MIB + 5 : 2 * MIB + 105]
    assert len(tree.names("/many")) == 300
    for name in ("absolute", "relative", "escape", "long"):
        assert tree.text(f"/links/{name}") == "ID=debian\n", name
    assert not tree.exists("/links/loop")
    assert tree.link("/links/escape") == "../../../../../../etc/os-release"
    assert tree.glob("/many/000?-*") == [f"/many/000{n}-{'x' * 60}" for n in range(10)]
    assert not tree.exists("/large/below")


def test_the_kinds_of_ext_are_told_apart_with_uuid_and_label(tmp_path: Path) -> None:
    for kind in ("ext2", "ext3", "ext4"):
        path = make_ext(tmp_path, {}, "-t", kind, "-U", world.ROOT_UUID, "-L", "mine", size="2M")
        volume = open_volume(RawFile(path, Budget()), None, Budget())
        assert (volume.kind, volume.uuid, volume.label) == (kind, world.ROOT_UUID, "mine")


def test_holes_read_as_zeros(tmp_path: Path) -> None:
    sparse = tmp_path / "files" / "sparse"
    sparse.parent.mkdir()
    with sparse.open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"end")
    assert tree_of(make_ext(tmp_path, {})).read("/sparse") == bytes(5 * MIB) + b"end"


def test_fat_is_read_with_long_and_short_names(tmp_path: Path) -> None:
    for bits, size in ((12, 2), (16, 16), (32, 40)):
        path = tmp_path / f"fat{bits}.img"
        path.write_bytes(b"")
        os.truncate(path, size * MIB)
        option = ["-F"] if bits == 32 else []
        world.run(
            *("mformat", "-i", str(path), "-T", str(size * 2048), "-h", "16", "-s", "32"),
            *("-N", "6C179627", "-v", "ESP", *option, "::"),
        )
        scratch = world.write_tree(
            tmp_path / str(bits),
            {"/EFI/BOOT/BOOTX64.EFI": LARGE[: 100 * 1024], "/EFI/A rather long name.conf": b"x"},
        )
        world.run("mcopy", "-s", "-i", str(path), str(scratch / "EFI"), "::")
        volume = open_volume(RawFile(path, Budget()), None, Budget())
        assert (volume.kind, volume.uuid, volume.label) == ("vfat", "6C17-9627", "ESP")
        assert volume.files is not None
        tree = Tree(volume.files, Budget())
        assert tree.read("/efi/boot/bootx64.efi") == LARGE[: 100 * 1024], "case is folded"
        assert tree.names("/EFI") == ["A rather long name.conf", "BOOT"]


@pytest.mark.long
def test_partitions_are_those_that_sfdisk_sees(tmp_path: Path) -> None:
    script = {
        "gpt": "label: gpt\nsize=1M, type=U\nsize=2M, name=root, uuid=" + world.ROOT_UUID + "\n",
        "dos": "label: dos\nlabel-id: 0x1234abcd\nsize=1M, type=ef\nsize=4M, type=5\n"
        "size=1M, type=83, bootable\nstart=6144, size=1M, type=82\n",
    }
    for label, text in script.items():
        path = tmp_path / label
        path.write_bytes(b"")
        os.truncate(path, 16 * MIB)
        subprocess.run(
            ["/usr/sbin/sfdisk", "--quiet", str(path)], input=text, text=True, check=True
        )
        told = subprocess.run(
            ["/usr/sbin/sfdisk", "--json", str(path)], capture_output=True, text=True, check=True
        )
        expected = [
            (part["start"] * 512, part["size"] * 512)
            for part in json.loads(told.stdout)["partitiontable"]["partitions"]
            if part["type"] != "5"
        ]
        table = read_table(RawFile(path, Budget()))
        assert [(p.offset, p.length) for p in table.partitions] == expected
        assert table.problems == ()
        if label == "gpt":
            assert table.partitions[1].guid == world.ROOT_UUID
            assert table.partitions[1].name == "root"
        else:
            assert table.partitions[0].guid == "1234abcd-01"
            assert table.partitions[-1].number == 5


# -- what does not make sense


def gpt(tmp_path: Path) -> bytearray:
    path = tmp_path / "gpt"
    path.write_bytes(b"")
    os.truncate(path, 4 * MIB)
    subprocess.run(
        ["/usr/sbin/sfdisk", "--quiet", str(path)],
        input="label: gpt\nsize=1M\nsize=1M\n",
        text=True,
        check=True,
    )
    return bytearray(path.read_bytes())


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise Damaged("outside")
        return self.data[offset : offset + length]


def test_a_damaged_gpt_is_told_and_its_backup(tmp_path: Path) -> None:
    data = gpt(tmp_path)
    data[1024 + 40] ^= 1
    table = read_table(Bytes(bytes(data)))
    assert "checksum of the entries is wrong; its backup at the end is sound" in table.problems[0]
    data[-512 + 24] ^= 1
    assert "its backup too" in read_table(Bytes(bytes(data))).problems[0]


def test_a_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    table = read_table(Bytes(bytes(gpt(tmp_path))[: 2 * MIB]))
    assert table.partitions == ()
    assert "the disk has only 4096: it was cut short" in table.problems[0]


def test_a_lost_superblock_is_told_with_its_backup(tmp_path: Path) -> None:
    path = make_ext(tmp_path, {}, "-t", "ext4", "-b", "1024", size="16M")
    data = bytearray(path.read_bytes())
    data[1024:2048] = bytes(1024)
    volume = open_volume(Bytes(bytes(data)), None, Budget())
    assert (volume.kind, volume.files) == ("ext4", None)
    assert isinstance(volume.fault, Damaged)
    assert "backup at block 8193" in volume.fault.message


def test_a_backup_that_is_not_at_the_end_is_a_remark(tmp_path: Path) -> None:
    table = read_table(Bytes(bytes(gpt(tmp_path)) + bytes(MIB)))
    assert len(table.partitions) == 2
    assert "not at the end" in table.remarks[0]


@pytest.mark.parametrize("step", [2, 4], ids=["back", "itself"])
def test_extended_partitions_in_a_circle_are_told(step: int) -> None:
    disk = bytearray(64 * 512)
    disk[446:462] = struct.pack("<B3sB3sII", 0, b"", 5, b"", 8, 50)
    disk[510:512] = b"\x55\xaa"
    for at, next_ in ((8, 4), (10, 4), (12, step)):
        sector = struct.pack("<446xB3sB3sII", 0, b"", 0x83, b"", 1, 1)
        sector += struct.pack("<B3sB3sII", 0, b"", 5, b"", next_, 50)
        disk[at * 512 : at * 512 + 512] = sector.ljust(510, b"\0") + b"\x55\xaa"
    table = read_table(Bytes(bytes(disk)))
    assert len(table.partitions) == 2
    assert "the chain of logical partitions runs in a circle" in table.problems


def test_a_table_with_more_entries_than_linux_reads_is_damaged() -> None:
    for count in (1024, 1025):
        entries = bytes(128 * count)
        fields = (92, 0, 0, 1, 511, 300, 500, bytes(16), 2, count, 128, zlib.crc32(entries))
        header = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 65536, *fields))
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        data = bytes(512) + header.ljust(512, b"\0") + entries
        table = read_table(Bytes(data.ljust(512 * 512, b"\0")))
        assert [f"has {count} entries" in problem for problem in table.problems] == (
            [True] if count > 1024 else []
        )


def test_a_directory_that_holds_itself_ends_the_walk(tmp_path: Path) -> None:
    path = make_ext(tmp_path, {"/a/b/c": b""}, "-t", "ext4", "-O", "^metadata_csum")
    world.run("debugfs", "-w", "-R", "link /a /a/b/again", str(path))
    with pytest.raises(Damaged, match="more than one place"):
        list(tree_of(path).walk("/"))


def test_a_chain_of_clusters_in_a_circle_ends(tmp_path: Path) -> None:
    path = tmp_path / "fat.img"
    path.write_bytes(b"")
    os.truncate(path, 2 * MIB)
    world.write_fat(path, 0, 2 * MIB, tmp_path / "files", {"/file": LARGE[:20_000]})
    data = bytearray(path.read_bytes())
    reserved = struct.unpack_from("<H", data, 14)[0] * 512
    # FAT12: entry 3 leads back to entry 2
    data[reserved + 4] = data[reserved + 4] & 0x0F | 0x20
    data[reserved + 5] = 0
    budget = Budget()
    files = Fat(Bytes(bytes(data)), budget)
    (number,) = files.names(files.root()).values()
    node = files.node(number)
    assert sum(map(len, files.stream(node))) == node.size, "no more than the size says"


def test_a_directory_whose_clusters_are_a_circle_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "fat.img"
    path.write_bytes(b"")
    os.truncate(path, 8 * MIB)
    world.write_fat(path, 0, 8 * MIB, tmp_path / "t", {f"/d/{n:08}": b"" for n in range(300)})
    data = bytearray(path.read_bytes())
    files = Fat(Bytes(bytes(data)), Budget())
    assert files.names(files.node(files.names(files.root())["d"]))
    reserved = struct.unpack_from("<H", data, 14)[0] * 512
    # FAT12: the directory begins with cluster 2, which leads to itself
    data[reserved + 3] = 2
    data[reserved + 4] &= 0xF0
    files = Fat(Bytes(bytes(data)), Budget())
    with pytest.raises(Damaged, match="more than 65536 entries"):
        files.names(files.node(files.names(files.root())["d"]))


def test_a_journal_that_was_not_written_back_is_a_remark(tmp_path: Path) -> None:
    path = make_ext(tmp_path, FILES, "-t", "ext4")
    assert Ext(RawFile(path, Budget()), Budget()).remarks == ()
    world.run("debugfs", "-w", "-R", "feature needs_recovery", str(path))
    (remark,) = Ext(RawFile(path, Budget()), Budget()).remarks
    assert "journal holds changes that were not written back" in remark


def test_a_link_to_itself_leads_nowhere_after_a_few_steps() -> None:
    tree = Tree(world.Memory({"/a": Link("a"), "/b/c": Link("../b/c/d")}), Budget(steps=500))
    assert tree.find("/a") is None
    assert tree.find("/b/c/x") is None
    with pytest.raises(Exhausted, match="more steps"):
        Tree(world.Memory({"/a": Link("a")}), Budget(steps=20)).find("/a")


def test_what_no_sound_disk_needs_ends_by_the_budget(tmp_path: Path) -> None:
    path = make_ext(tmp_path, FILES)
    with pytest.raises(Exhausted, match="more bytes"):
        tree_of(path, Budget(size=MIB)).read("/large")
    with pytest.raises(Exhausted, match="more steps"):
        tree_of(path, Budget(steps=100)).names("/many")
    with pytest.raises(Exhausted, match="longer than"):
        list(tree_of(path, Budget(seconds=-1)).walk("/"))


@pytest.mark.parametrize(
    ("kind", "at", "magic"),
    [
        ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
        ("swap", 4086, b"SWAPSPACE2"),
    ],
)
def test_what_has_no_reader_is_known_by_name(kind: str, at: int, magic: bytes) -> None:
    data = bytearray(MIB)
    data[at : at + len(magic)] = magic
    volume = open_volume(Bytes(bytes(data)), None, Budget())
    assert volume.kind == kind
    assert isinstance(volume.fault, Unreadable)
    assert not isinstance(volume.fault, Damaged)


def test_a_partition_may_not_reach_beyond_the_disk(tmp_path: Path) -> None:
    part = Slice(Bytes(bytes(1024)), 512, 4096)
    assert part.size == 512
    with pytest.raises(Damaged):
        part.read(0, 513)


def test_long_lines_and_names_take_no_longer_than_they_are() -> None:
    modules = f"kernel/{'a' * 200_000}: {' ' * 40_000}".encode()
    files: Files = {
        **world.good(),
        f"{world.MODULES}/modules.dep": modules,
        "/etc/ssh/sshd_config": b"PermitRootLogin" + b" " * 200_000 + b"x\n",
        "/boot/grub/grub.cfg": b'linux "' + b'\\"' * 8_000 + b"\n",
    }
    disk = world.World(files)
    started = time.monotonic()
    for rule in checks.RULES:
        with contextlib.suppress(Unreadable):
            list(rule.check(disk))
    assert time.monotonic() - started < 5


def test_a_line_without_end_is_damaged() -> None:
    disk = world.World({**world.good(), "/etc/fstab": bytes(4 * MIB)})
    with pytest.raises(Damaged, match="/etc/fstab has a line of more than"):
        disk.fstab()
