"""Changes a small disk at random and lets the proofs look at it.

python -m tests.unit.hostile_fuzz DISK SEED SECONDS
"""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from publisher.errors import PublishError
from publisher.model import MIB, SECTOR
from publisher.task import detached
from tests.unit import btrfs_disk as btrfs
from tests.unit import hostile, lvm_disk, rhel_world
from tests.unit import lint_world as world
from tests.unit.lint_world import VERSION, Files, Link, good, good_esp
from tests.unit.xfs_disk import seal

_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 8, 11, 12)


_SEALS = {b"XDB3": 4, b"XDD3": 4, b"BMA3": 64, b"XSLM": 12}
"""Where the blocks of XFS have their checksums."""


def small_disk(directory: Path) -> Path:
    """A disk of 24 MiB that all readers find something on."""
    database = directory / "rpm"
    with sqlite3.connect(database) as made:
        made.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        made.execute("INSERT INTO Packages (blob) VALUES (?)", (_header(),))
    made.close()
    files: Files = {
        **good(),
        "/var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1\n\n" * 3,
        "/var/lib/dpkg/info/a.md5sums": b"0" * 32 + b"  usr/bin/a\n",
        "/var/lib/dpkg/info/a.list": b"/usr/bin/a\n",
        "/var/lib/rpm/rpmdb.sqlite": database.read_bytes(),
        "/usr/lib/sysimage/rpm/Packages.db": _ndb(),
        "/lib/apk/db/installed": b"P:a\nV:1\nL:MIT\nF:usr\nR:a\n\n",
        "/usr/lib/python3/dist-packages/a-1.dist-info/METADATA": b"Name: a\nVersion: 1\n\n",
        "/srv/node_modules/a/package.json": b'{"name": "a", "version": "1"}',
        "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "/root/.bash_history": b"ls\n",
        "/root/.ssh/authorized_keys": b"ssh-ed25519 AAAA me\n",
        "/srv/token": b"AKIA" + b"Z2345678" * 2 + b"\n",
        "/srv/link": Link("../etc/fstab"),
        "/srv/large": random.Random(1).randbytes(30_000),
    }
    initrd = files[f"/boot/initrd.img-{VERSION}"]
    assert isinstance(initrd, bytes)
    files[f"/boot/initrd.img-{VERSION}"] = gzip.compress(initrd)
    files.update({f"/srv/many/{number}": b"" for number in range(100)})
    return world.disk_file(directory, files, good_esp())


def small_rhel_disk(directory: Path) -> Path:
    """One of 64 MiB with LVM and XFS, whose directories and forks are of all forms."""
    return rhel_world.disk_file(
        directory,
        {
            **rhel_world.rhel(),
            "/var/lib/dpkg/status": b"Package: a\nStatus: install ok installed\nVersion: 1\n\n",
            "/srv/token": b"AKIA" + b"Z2345678" * 2 + b"\n",
            "/srv/link": Link("../etc/fstab"),
            "/srv/far": Link("./" * 400 + "etc/fstab"),
            **{f"/srv/block/{number}": b"" for number in range(100)},
            **{f"/srv/tree/{number}-{'n' * 240}": b"x" for number in range(400)},
        },
    )


def subvolume_disk(directory: Path) -> Path:
    """A disk whose installation is in a subvolume of a Btrfs, as Linux writes it."""
    return btrfs.disk(directory, btrfs.kept(directory), good_esp())


def _header() -> bytes:
    data = b"a\0001\0/usr/\0b\0"
    index = b"".join(
        struct.pack(">IIII", *entry)
        for entry in ((1000, 6, 0, 1), (1001, 6, 2, 1), (1118, 8, 4, 1), (1117, 8, 10, 1))
    )
    return struct.pack(">II", 4, len(data)) + index + data


def _ndb() -> bytes:
    blob = _header()
    slot = struct.pack("<4sIII", b"Slot", 1, 256, 8)
    table = struct.pack("<4sIII", b"RpmP", 0, 1, 1) + bytes(16) + slot
    return table.ljust(4096, b"\0") + struct.pack("<4sIII", b"BlbS", 1, 1, len(blob)) + blob


class Fuzzer:
    """Of one seed. Changes are kept small, so that they can be undone."""

    def __init__(self, disk: Path, seed: str) -> None:
        self._draw = random.Random(seed)
        self._path = disk
        self._changed: dict[int, bytes] = {}
        self._good = disk.read_bytes()
        self._full = self._places()

    def _places(self) -> list[int]:
        """Where blocks hold something: file systems' own data and files alike."""
        blocks = range(0, len(self._good), SECTOR)
        zeros = bytes(SECTOR)
        return [at for at in blocks if self._good[at : at + SECTOR] != zeros]

    def spoil(self) -> None:
        """Change the disk in up to 30 places, which tend to be near each other."""
        data = self._changed = {}
        centre = self._draw.choice(self._full)
        for _ in range(self._draw.choice((1, 1, 2, 5, 30))):
            near = self._draw.random() < 0.5
            block = centre if near else self._draw.choice(self._full)
            data[block + self._draw.randrange(SECTOR)] = self._piece()
        with self._path.open("r+b") as file:
            for at, piece in data.items():
                file.seek(at)
                file.write(piece[: len(self._good) - at])
        if self._draw.random() < 0.5:
            self._sign()
        if self._draw.random() < 0.9:
            self._sign_btrfs()

    def _piece(self) -> bytes:
        way = self._draw.randrange(4)
        if way == 0:
            return bytes([self._draw.randrange(256)])
        if way == 1:
            value = self._draw.choice(_INTERESTING)
            return value.to_bytes(4, "little")[: self._draw.choice((1, 2, 4))]
        if way == 2:  # something from elsewhere
            at = self._draw.choice(self._full)
            return self._good[at : at + self._draw.choice((4, 32, 512, 4096))]
        return self._draw.randbytes(self._draw.choice((2, 16, 256)))

    def _sign(self) -> None:
        """Make the checksums of the partition table and of what was changed right, or
        else nothing behind them is ever read."""
        with self._path.open("r+b") as file:
            for at, piece in list(self._changed.items()):
                for block in range(at // 4096, (at + len(piece)) // 4096 + 1):
                    self._seal(file, block * 4096)
            file.seek(SECTOR)
            header = bytearray(file.read(92))
            count, size = struct.unpack_from("<II", header, 80)
            file.seek(2 * SECTOR)
            entries = file.read(min(count * size, MIB))
            struct.pack_into("<I", header, 88, zlib.crc32(entries))
            struct.pack_into("<II", header, 12, 92, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(header))
            file.seek(SECTOR)
            file.write(header)

    def _seal(self, file: BinaryIO, start: int) -> None:
        """The checksums of XFS and LVM in a block."""
        file.seek(start)
        raw = bytearray(file.read(4096))
        whole = _SEALS.get(bytes(raw[:4]))
        if whole is not None and len(raw) == 4096:
            seal(raw, whole)
        for at in range(0, len(raw), SECTOR):
            sector = raw[at : at + SECTOR]
            if sector[:2] == b"IN":
                seal(sector, 100)
            elif sector[:4] == b"XFSB":
                seal(sector, 224)
            elif sector[:8] == b"LABELONE":
                sector[16:20] = lvm_disk.checksum(bytes(sector[20:])).to_bytes(4, "little")
            elif sector[4:12] == b" LVM2 x[":
                length = min(int.from_bytes(sector[48:56], "little"), MIB)
                file.seek(start + at + SECTOR)
                sector[56:60] = lvm_disk.checksum(file.read(length)).to_bytes(4, "little")
                sector[:4] = lvm_disk.checksum(bytes(sector[4:])).to_bytes(4, "little")
            raw[at : at + SECTOR] = sector
        self._changed[start] = bytes(raw)
        file.seek(start)
        file.write(raw)

    def _sign_btrfs(self) -> None:
        """The same for the blocks of a Btrfs."""
        superblock = btrfs.START + btrfs.SUPERBLOCK
        ident = self._good[superblock + 32 : superblock + 48]
        if self._good[superblock + 64 : superblock + 72] != b"_BHRfS_M":
            return
        touched = {
            (place - btrfs.START) // btrfs.NODE * btrfs.NODE + btrfs.START
            for at, piece in self._changed.items()
            for place in (at, at + len(piece))
            if at >= btrfs.START
        }
        with self._path.open("r+b") as file:
            for at in touched:
                file.seek(at)
                size = 4096 if at == superblock else btrfs.NODE
                block = bytearray(file.read(size))
                if block[32:48] == ident:
                    btrfs.sign(block, 0, size)
                    file.seek(at)
                    file.write(block[:4])
                    self._changed[at] = max(self._changed.get(at, b""), bytes(block[:4]), key=len)

    def mend(self) -> None:
        with self._path.open("r+b") as file:
            for at, piece in [*self._changed.items(), (0, bytes(64 * SECTOR))]:
                file.seek(at)
                file.write(self._good[at : at + len(piece)])
            file.truncate(len(self._good))


def _main(arguments: Sequence[str]) -> None:
    disk, seed, seconds = Path(arguments[0]), arguments[1], float(arguments[2])
    fuzzer, count, slowest = Fuzzer(disk, seed), 0, 0.0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as memory:
        task = detached(Path(memory))
        while time.monotonic() < end:
            fuzzer.spoil()
            started = time.monotonic()
            try:
                # the secret gate takes as long as the other two together, and reads less
                proofs = hostile.PROOFS if count % 4 == 0 else ("lint", "inventory")
                json.dumps(hostile.prove(disk, task, seconds=20, proofs=proofs))
            except PublishError:
                pass
            except BaseException:
                print(f"disk {count} of seed {seed}", file=sys.stderr)  # noqa: T201
                raise
            slowest = max(slowest, time.monotonic() - started)
            count += 1
            fuzzer.mend()
    print(f"{count} disks, {slowest:.2f}")  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1:])
