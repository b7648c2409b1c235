"""The sparse tar that we write is the one that GNU tar and Python read."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from publisher.disks import raw, sparse_tar
from publisher.model import GIB, MIB, Disk, Extent

LAYOUTS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "data at both ends": (8 * MIB, [(0, 70000), (8 * MIB - 65536, 65536)]),
    "a hole at the end": (8 * MIB, [(65536, 10)]),
    "no data at all": (1 * MIB, []),
    "no hole at all": (1 * MIB, [(0, MIB)]),
    "more extents than the header holds": (64 * MIB, [(n * MIB + 7, 3000) for n in range(64)]),
    "offsets beyond octal": (9 * GIB, [(0, 4096), (9 * GIB - 4096, 4096)]),
}


def make(path: Path, layout: str) -> Disk:
    size, pieces = LAYOUTS[layout]
    noise = random.Random(layout)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in pieces:
            file.seek(offset)
            file.write(noise.randbytes(length))
    if size > GIB:  # hashing that takes seconds and tells nothing here
        return Disk(path, size, "", tuple(Extent(*piece) for piece in pieces))
    return raw.inspect(path)


def pack(disk: Disk) -> bytes:
    with raw.Reader(disk) as reader:
        return b"".join(sparse_tar.write(reader))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "octal" not in name])
def test_gnu_tar_unpacks_the_same_bytes(tmp_path: Path, layout: str) -> None:
    disk = make(tmp_path / "source.raw", layout)
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("there is no tar here")
    subprocess.run([tar, "-x", "-C", tmp_path], input=pack(disk), check=True)
    assert raw.inspect(tmp_path / "disk.raw").sha256 == disk.sha256


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_python_reads_the_same_map_and_bytes(tmp_path: Path, layout: str) -> None:
    disk = make(tmp_path / "source.raw", layout)
    with tarfile.open(fileobj=io.BytesIO(pack(disk))) as archive:
        (member,) = archive.getmembers()
        assert member.name == "disk.raw"
        assert member.size == disk.size
        assert member.mtime == 0
        file = archive.extractfile(member)
        assert file is not None
        # Only forwards: going back over an empty map entry confuses tarfile.
        digest = hashlib.sha256()
        while disk.sha256 and (piece := file.read(MIB)):
            digest.update(piece)
        assert disk.sha256 in ("", digest.hexdigest())
        with raw.Reader(disk) as reader:
            for extent in () if disk.sha256 else disk.extents:
                file.seek(extent.offset)
                assert file.read(extent.length) == reader.read(extent.offset, extent.length)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_our_reader_gives_back_the_disk(tmp_path: Path, layout: str) -> None:
    disk = make(tmp_path / "source.raw", layout)
    archive = pack(disk)
    assert len(archive) == sparse_tar.archive_size(disk)
    source = io.BytesIO(archive)
    member = sparse_tar.read_member(source)
    assert (member.name, member.size, member.oldgnu) == ("disk.raw", disk.size, True)
    with raw.Reader(disk) as reader:
        for offset, data in sparse_tar.read(source, member):
            assert data == reader.read(offset, len(data))
    assert member.extents == disk.extents


def test_the_same_disk_gives_the_same_archive(tmp_path: Path) -> None:
    disk = make(tmp_path / "one.raw", "data at both ends")
    other = Disk(tmp_path / "two.raw", disk.size, disk.sha256, disk.extents)
    shutil.copy(disk.path, other.path)
    assert pack(disk) == pack(other)


def test_gnu_tar_writes_what_our_reader_understands(tmp_path: Path) -> None:
    disk = make(tmp_path / "disk.raw", "more extents than the header holds")
    archive = tmp_path / "disk.tar"
    subprocess.run(
        ["tar", "-c", "--format=oldgnu", "-S", "-f", archive, "-C", tmp_path, "disk.raw"],
        check=True,
    )
    with archive.open("rb") as file:
        member = sparse_tar.read_member(file)
        assert (member.size, member.oldgnu) == (disk.size, True)
        assert member.stored < disk.size
        with raw.Reader(disk) as reader:
            for offset, data in sparse_tar.read(file, member):
                assert data == reader.read(offset, len(data))


def broken(archive: bytes) -> dict[str, bytes]:
    flipped = bytearray(archive)
    flipped[3] ^= 1
    return {
        "checksum": bytes(flipped),
        "ends too early": archive[: len(archive) // 2],
        "more than one member": archive[:-1024] + archive[:512] + bytes(1024),
        "follows the end": archive + b"x",
    }


@pytest.mark.parametrize(
    "what", ["checksum", "ends too early", "more than one member", "follows the end"]
)
def test_a_broken_archive_is_refused(tmp_path: Path, what: str) -> None:
    size = 12 * 512
    path = tmp_path / "d.raw"
    path.write_bytes(random.Random(3).randbytes(size))
    archive = pack(Disk(path, size, "", (Extent(0, size),)))
    archive = archive[: 512 + size + 1024]
    source = io.BytesIO(broken(archive)[what])
    with pytest.raises(sparse_tar.TarError, match=what):
        list(sparse_tar.read(source, sparse_tar.read_member(source)))
