"""Disks that somebody hostile has made: each gives a clear finding, in a process that has
no more memory and time than a sound disk needs."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from publisher.disks import raw
from publisher.errors import PublishError
from publisher.model import GIB, MIB, SECTOR
from tests.unit import btrfs_disk as btrfs
from tests.unit import hostile, rhel_world
from tests.unit import lint_world as world
from tests.unit.lint_world import VERSION, Files, Link, good, good_esp
from tests.unit.lvm_disk import Segment
from tests.unit.xfs_disk import Patch, record

pytestmark = pytest.mark.long

TIB = 1024 * GIB
Told = Mapping[str, Any]
INITRD = f"/boot/initrd.img-{VERSION}"
KEY = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)


def with_table(disk: Path, count: int, entries: bytes) -> None:
    """Give a disk a partition table whose checksums are right."""
    with disk.open("r+b") as file:
        file.seek(SECTOR)
        header = bytearray(file.read(92))
        struct.pack_into("<II", header, 80, count, 128)
        struct.pack_into("<I", header, 88, zlib.crc32(entries))
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        file.seek(SECTOR)
        file.write(header)
        file.seek(2 * SECTOR)
        file.write(entries)


def debugfs(disk: Path, *commands: str) -> None:
    path = f"{disk}?offset={8 * MIB}"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", path],
        input="\n".join(commands),
        text=True,
        capture_output=True,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def endless_table(directory: Path) -> Path:
    disk = world.disk_file(directory, good(), good_esp())
    with_table(disk, 0xFFFFFFFF, bytes(128 * 128))
    return disk


def overlapping_table(directory: Path) -> Path:
    disk = world.disk_file(directory, good(), good_esp())
    with disk.open("rb") as file:
        file.seek(2 * SECTOR)
        root = file.read(128)
    with_table(disk, 40, root * 40)
    return disk


def looping_directory(directory: Path) -> Path:
    files: Files = {**good(), "/srv/a/b/file": b"x", "/opt/key": b"here: " + KEY}
    disk = world.disk_file(directory, files, good_esp())
    debugfs(disk, "link /srv /srv/a/b/again", "link /home /home/again", "link /etc /etc/etc")
    return disk


def escaping_links(directory: Path) -> Path:
    outside = directory / "outside"
    outside.write_bytes(KEY)
    files = good()
    files["/root/.ssh/id_rsa"] = Link("../" * 40 + str(outside).lstrip("/"))
    files["/root/.ssh/authorized_keys"] = Link(str(outside))
    files["/etc/shadow"] = Link("/proc/self/environ")
    files["/etc/fstab"] = Link("/dev/zero")
    for number in range(30):
        # each step doubles the way
        files[f"/etc/cloud/cloud.cfg.d/{number}"] = Link(f"{number + 1}/../{number + 1}")
    files["/etc/cloud/cloud.cfg.d/x.cfg"] = Link("0")
    return world.disk_file(directory, files, good_esp())


def huge_names(directory: Path) -> Path:
    files = good()
    for number in range(600):
        files[f"/root/.ssh/{number:05}{'n' * 250}"] = b""
    files["/etc/os-release"] = b"ID=debian\nPRETTY_NAME=" + b"N" * MIB
    files["/etc/passwd"] = b"u:x:1:1::/" + b"h" * 5000 + b":/bin/sh\n"
    files["/boot/grub/grub.cfg"] = b"menuentry '" + b"t" * 60_000 + b"' {\n}\n"
    head = world.cpio(["x"])
    files[INITRD] = head[:94] + b"ffffffff" + head[102:]
    return world.disk_file(directory, files, good_esp())


def bomb(directory: Path) -> Path:
    head = world.cpio(["big"])
    zeros = gzip.compress(bytes(32 * MIB), 9)
    packed = gzip.compress(head[:54] + b"ffffffff" + head[62:116]) + zeros * 200
    return world.disk_file(directory, {**good(), INITRD: packed}, good_esp())


def huge_disk(directory: Path) -> Path:
    disk = world.disk_file(directory, good(), good_esp())
    for place in (directory, Path("/dev/shm")):
        path = place / f"huge-{os.getpid()}.raw"
        subprocess.run(["cp", "--sparse=always", disk, path], check=True)
        try:
            os.truncate(path, 64 * TIB)
        except OSError:
            path.unlink()
            continue
        with path.open("r+b") as file:
            file.seek(64 * TIB - MIB)
            file.write(KEY)
        return path
    pytest.skip("no file system here has files of 64 TiB")


def dpkg_without_end(directory: Path) -> Path:
    status = b"".join(b"Package: p%x\n\n" % number for number in range(60_000))
    fields = b"".join(b"%x:\n" % number for number in range(200_000))
    files: Files = {**good(), "/var/lib/dpkg/status": status + b"Package: last\n" + fields}
    return world.disk_file(directory, files, good_esp())


def rpm_without_end(directory: Path) -> Path:
    path = directory / "rpmdb.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE VIEW Packages(hnum, blob) AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
            "SELECT i + 1 FROM n) SELECT i, zeroblob(900000000) FROM n"
        )
    database.close()
    files: Files = {**good(), "/var/lib/rpm/rpmdb.sqlite": path.read_bytes()}
    return world.disk_file(directory, files, good_esp())


def rpm_of_one_header(directory: Path) -> Path:
    """An ndb in which many packages are one header, whose entries are all of it."""
    index = struct.pack(">IIII", 1117, 8, 0, 0xFFFFFFFF) * 60_000
    blob = struct.pack(">II", 60_000, MIB) + index + bytes(MIB)
    pages = 32
    data = bytearray(pages * 4096)
    struct.pack_into("<4sIII", data, 0, b"RpmP", 0, 1, pages)
    for at in range(32, len(data), 16):
        struct.pack_into("<4sIII", data, at, b"Slot", 7, pages * 256, 1)
    data += struct.pack("<4sIII", b"BlbS", 7, 0, len(blob)) + blob
    files: Files = {**good(), "/usr/lib/sysimage/rpm/Packages.db": bytes(data)}
    return world.disk_file(directory, files, good_esp())


def homes_without_end(directory: Path) -> Path:
    passwd = b"".join(b"u:x:1:1::/h/%x:/bin/sh\n" % number for number in range(100_000))
    return world.disk_file(directory, {**good(), "/etc/passwd": passwd}, good_esp())


def xfs_without_end(directory: Path) -> Path:
    def spoil(patch: Patch) -> None:
        huge = struct.pack(">Q", 1 << 62)
        patch.change_inode("/var/lib/dpkg/status", (56, huge))
        patch.change_inode("/etc/shadow", (176, record(0, 8, (1 << 21) - 1)))
        # the directory names the root in place of its file
        number = patch.node("/srv/again").number.to_bytes(4, "big")
        _, raw = patch.inode("/srv")
        root = patch.node("/").number.to_bytes(4, "big")
        patch.change_inode("/srv", (raw.index(number, 180), root))
        at, raw = patch.inode("/usr/sbin/sshd")
        patch.write(at, raw[:-1] + b"x")

    files = {**rhel_world.rhel(), "/srv/again": b"", "/var/lib/dpkg/status": b"Package: a\n"}
    return rhel_world.disk_file(directory, files, spoil=spoil)


def lvm_without_end(directory: Path) -> Path:
    """Many volumes, of which each is all of the disk, and one that is it many times."""
    all_: Sequence[Segment] = [("pv0", 0, rhel_world.EXTENTS)]
    volumes = {f"v{number}": all_ for number in range(900)}
    return rhel_world.disk_file(directory, {}, {"root": [*rhel_world.ROOT] * 400, **volumes})


def changed_btrfs(directory: Path, change: Callable[[bytearray], None]) -> Path:
    path = btrfs.kept(directory)
    image = bytearray(path.read_bytes())
    change(image)
    path.unlink()
    changed = directory / "changed.img"
    with changed.open("wb") as file:
        for at in range(0, len(image), MIB):
            piece = image[at : at + MIB]
            file.seek(at)
            if piece.strip(b"\0"):
                file.write(piece)
        file.truncate(len(image))
    return btrfs.disk(directory, changed, good_esp())


def subvolumes_in_a_circle(directory: Path) -> Path:
    """Every entry of the root subvolume's directories leads to its root directory."""

    def change(image: bytearray) -> None:
        for at, _ in btrfs.items(image, 256, 96):
            struct.pack_into("<QBQ", image, at, 256, 1, 0)

    return changed_btrfs(directory, change)


def files_without_end(directory: Path) -> Path:
    """Inodes of 2^60 bytes, and extents that unpack to as much."""

    def change(image: bytearray) -> None:
        for at, _ in btrfs.items(image, 256, 1):
            struct.pack_into("<Q", image, at + 16, 1 << 60)
        for at, size in btrfs.items(image, 256, 108):
            if size == 53:
                struct.pack_into("<Q", image, at + 8, 1 << 60)

    return changed_btrfs(directory, change)


def drivers_that_need_all_others(directory: Path) -> Path:
    names = [f"m{number}.ko" for number in range(60_000)]
    needs = [" ".join(names[at : at + 20_000]) for at in range(0, len(names), 20_000)]
    first = ("nvme.ko", names[0], names[20_000])
    lines = [f"kernel/{name}: {needed}" for name, needed in zip(first, needs, strict=True)]
    modules = f"/lib/modules/{VERSION}"
    files: Files = {**good(), f"{modules}/modules.dep": "\n".join(lines).encode()}
    del files[f"{modules}/modules.builtin"]
    return world.disk_file(directory, files, good_esp())


def variables_without_end(directory: Path) -> Path:
    text = f"set a={'x' * 16_000}\n" + ("linux /k " + "$a " * 5_000 + "\n") * 60
    files: Files = {**good(), "/boot/grub/grub.cfg": text.encode()}
    return world.disk_file(directory, files, good_esp())


def options_without_end(directory: Path) -> Path:
    files = good()
    files["/boot/grub/grub.cfg"] = f"set a={'x' * 16_000}\nblscfg\n".encode()
    options = ("options " + "$a" * 8_000 + "\n") * 60
    files["/boot/loader/entries/a.conf"] = f"linux /vmlinuz\n{options}".encode()
    return world.disk_file(directory, files, good_esp())


def names_without_end(directory: Path) -> Path:
    """Several initramfs files of long names alone."""
    entry = world.cpio(["n" * 4095])[: 110 + 4096 + 2]
    packed = gzip.compress(entry * 10_000, 9)
    grub = good()["/boot/grub/grub.cfg"]
    assert isinstance(grub, bytes)
    initrds = " ".join(["initrd", INITRD, *[f"/boot/{number}" for number in range(10)]])
    files: Files = {
        **good(),
        **{f"/boot/{number}": packed for number in range(10)},
        "/boot/grub/grub.cfg": grub.replace(f"initrd {INITRD}".encode(), initrds.encode()),
    }
    return world.disk_file(directory, files, good_esp())


def fstab_without_end(directory: Path) -> Path:
    return world.disk_file(directory, {**good(), "/etc/fstab": b"a b c\n" * 1_500_000}, good_esp())


DISKS: tuple[Callable[[Path], Path], ...] = (
    endless_table,
    overlapping_table,
    looping_directory,
    escaping_links,
    huge_names,
    bomb,
    huge_disk,
    dpkg_without_end,
    rpm_without_end,
    rpm_of_one_header,
    homes_without_end,
    xfs_without_end,
    lvm_without_end,
    subvolumes_in_a_circle,
    files_without_end,
    drivers_that_need_all_others,
    variables_without_end,
    options_without_end,
    names_without_end,
    fstab_without_end,
)
SECONDS = 60
"""Of processor time, for all disks together."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Told]:
    made: dict[str, str] = {}
    for make in DISKS:
        made[str(make(tmp_path_factory.mktemp(make.__name__)))] = make.__name__
    try:
        lines = hostile.bounded(*made, seconds=SECONDS).splitlines()
    finally:
        for path in made:
            Path(path).unlink()
    answers = [json.loads(line) for line in lines]
    return {made[answer["disk"]]: answer for answer in answers}


def said(told: Told, proof: str, rule: str) -> str:
    texts = [finding["evidence"] for finding in told[proof] if finding["rule"] == rule]
    assert texts, told[proof]
    return " | ".join(texts)


def rules(told: Told, proof: str) -> set[str]:
    return {finding["rule"] for finding in told[proof] if finding["severity"] == "error"}


@pytest.mark.parametrize("make", DISKS, ids=lambda make: make.__name__)
def test_no_proof_fails_and_each_ends_soon(told: Mapping[str, Told], make: Any) -> None:
    answer = told[make.__name__]
    assert "error" not in answer
    for proof in ("lint", "secrets", "inventory"):
        assert answer[f"{proof}_seconds"] < 30, proof
    longest = max((len(f["evidence"]) for f in answer["lint"] + answer["secrets"]), default=0)
    assert longest < 5000, "a finding is for people to read"


def test_a_table_without_end_is_told(told: Mapping[str, Told]) -> None:
    text = said(told["endless_table"], "lint", "disk.partition-table")
    assert "4294967295 entries" in text
    assert told["endless_table"]["inventory"]["gaps"]


def test_partitions_that_overlap_are_told(told: Mapping[str, Told]) -> None:
    assert "overlap" in said(told["overlapping_table"], "lint", "disk.partition-table")


def test_a_directory_that_holds_itself_is_told(told: Mapping[str, Told]) -> None:
    answer = told["looping_directory"]
    assert "secrets.private-key" not in rules(answer, "lint")
    *_, gap = answer["inventory"]["gaps"]  # behind that there is no list of packages
    assert "more than one place" in gap


def test_links_do_not_lead_out_of_the_disk(told: Mapping[str, Told]) -> None:
    answer = told["escaping_links"]
    assert not {"traces.private-key", "traces.authorized-keys", "traces.password"} & rules(
        answer, "lint"
    )
    assert answer["secrets"] == []


def test_names_without_end_are_told(told: Mapping[str, Told]) -> None:
    text = said(told["huge_names"], "lint", "lint.unreadable")
    assert "longer than a configuration can be" in text


def test_a_bomb_is_told_and_the_other_rules_are_decided(told: Mapping[str, Told]) -> None:
    text = said(told["bomb"], "lint", "lint.unreadable")
    assert f"{INITRD}: it unpacks to more than" in text
    assert "gcp.disk-driver" in text
    assert "fstab.device" not in text
    assert "identity.machine-id" not in text


def test_a_disk_of_64_tib_is_read_where_it_has_something(told: Mapping[str, Told]) -> None:
    answer = told["huge_disk"]
    assert "not at the end" in said(answer, "lint", "disk.partition-table")
    assert f"byte {64 * TIB - MIB}" in said(answer, "secrets", "secrets.private-key")


def test_a_disk_whose_digest_takes_hours_is_refused_at_once(tmp_path: Path) -> None:
    disk = huge_disk(tmp_path)
    try:
        with pytest.raises(PublishError, match="64 TiB, whose digest takes many hours"):
            raw.inspect(disk)
    finally:
        disk.unlink()


def test_packages_without_end_are_a_gap(told: Mapping[str, Told]) -> None:
    for name in ("dpkg_without_end", "rpm_without_end", "rpm_of_one_header"):
        gap, *_ = told[name]["inventory"]["gaps"]
        assert gap.startswith(f"packages of {name.partition('_')[0]}: "), gap


def test_homes_without_end_are_told(told: Mapping[str, Told]) -> None:
    text = said(told["homes_without_end"], "secrets", "secrets.unexamined")
    assert "more homes than" in text


@pytest.mark.parametrize(
    ("disk", "text"),
    [
        ("variables_without_end", "a line of the boot loader's configuration has no end"),
        ("options_without_end", "a.conf is longer than a configuration can be"),
        ("names_without_end", "/boot/0: its names have more than 32 MiB"),
        ("fstab_without_end", "/etc/fstab mounts more than 1000 file systems"),
    ],
)
def test_a_configuration_without_end_is_told(
    told: Mapping[str, Told], disk: str, text: str
) -> None:
    assert text in said(told[disk], "lint", "lint.unreadable")
    assert told[disk]["lint_seconds"] < 10


def test_drivers_that_need_all_others_are_told(told: Mapping[str, Told]) -> None:
    answer = told["drivers_that_need_all_others"]
    assert "nvme" in said(answer, "lint", "aws.nvme-driver")
    assert answer["lint_seconds"] < 15


def test_xfs_without_end_is_told(told: Mapping[str, Told]) -> None:
    answer = told["xfs_without_end"]
    text = said(answer, "lint", "lint.unreadable")
    assert "the checksum of inode" in text
    assert "outside of the file system" in text
    *_, gap = answer["inventory"]["gaps"]  # behind that there is no list of packages
    assert "/srv/again" in gap


def test_volumes_that_share_the_disk_are_told(told: Mapping[str, Told]) -> None:
    text = said(told["lvm_without_end"], "lint", "disk.root")
    assert "shares extents with another logical volume" in text


def test_a_btrfs_that_makes_no_sense_is_told(told: Mapping[str, Told]) -> None:
    answer = told["subvolumes_in_a_circle"]
    # a snapshot is still whole
    assert "a subvolume that holds no root directory" in said(answer, "lint", "boot.root")
    assert "more than one place" in said(answer, "secrets", "secrets.unexamined")
    answer = told["files_without_end"]
    assert "/etc/fstab has a line of more than" in said(answer, "lint", "lint.unreadable")
    assert answer["inventory"]["gaps"]
    assert "were not all read" in said(answer, "secrets", "secrets.unexamined")
