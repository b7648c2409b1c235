"""Packed disks: unpacked sparse and bounded, damage noticed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher import conformance
from publisher.disks import raw, sparse_tar
from publisher.errors import BuildError, HostError
from publisher.fetch import decode, packed, unpack
from publisher.model import MIB
from publisher.task import Task, detached
from publisher.vm import host

SIZE = 8 * MIB
LIMIT = 16 * MIB


def _disk() -> bytes:
    disk = bytearray(SIZE)
    chance = random.Random(3)
    for offset in (0, 1 * MIB + 7, 5 * MIB, SIZE - 100):
        disk[offset : offset + 100] = chance.randbytes(100)
    return bytes(disk)


DISK = _disk()


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is missing")
PACKERS = [
    pytest.param(lambda data: lzma.compress(data, preset=0), id="xz"),
    pytest.param(lambda data: gzip.compress(data, 1), id="gz"),
    pytest.param(bz2.compress, id="bz2"),
    pytest.param(_zstd, id="zst", marks=needs_zstd),
]
Packer = Callable[[bytes], bytes]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def run(content: bytes, directory: Path, task: Task, limit: int = LIMIT) -> Path:
    path = directory / "disk.packed"
    path.write_bytes(content)
    return unpack(path, directory / "disk", limit, task)


@pytest.mark.parametrize("pack", PACKERS)
def test_a_packed_disk_comes_out_whole_and_sparse(pack: Packer, tmp_path: Path, task: Task) -> None:
    out = run(pack(DISK), tmp_path, task)
    assert out.read_bytes() == DISK
    assert out.stat().st_blocks * 512 <= MIB


@pytest.mark.parametrize("pack", PACKERS)
def test_joined_streams_are_one_disk(pack: Packer, tmp_path: Path, task: Task) -> None:
    joined = pack(DISK[: 3 * MIB]) + pack(DISK[3 * MIB :])
    assert run(joined, tmp_path, task).read_bytes() == DISK


@pytest.mark.parametrize("pack", PACKERS)
def test_a_packed_disk_that_was_cut_short_is_refused(
    pack: Packer, tmp_path: Path, task: Task
) -> None:
    whole = pack(DISK)
    for cut in (whole[: len(whole) // 2], whole[:-3], whole[:20] + b"\x55" + whole[21:]):
        with pytest.raises(BuildError, match=r"disk\.packed is damaged or cut short"):
            run(cut, tmp_path, task)
    assert not (tmp_path / "disk").exists()
    assert not (tmp_path / "disk.partial").exists()


@pytest.mark.parametrize("pack", PACKERS)
def test_a_bomb_is_refused(pack: Packer, tmp_path: Path, task: Task) -> None:
    with pytest.raises(BuildError, match=r"more than the 0.01 GiB") as caught:
        run(pack(bytes(SIZE) + b"\0"), tmp_path, task, limit=SIZE)
    assert "build.size" in caught.value.hint
    assert not (tmp_path / "disk.partial").exists()


def test_a_decoder_that_wants_too_much_memory_is_refused(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MEMORY", 1 * MIB)
    with pytest.raises(BuildError, match="Memory usage limit"):
        run(lzma.compress(DISK[:4096], preset=6), tmp_path, task)


def test_what_is_not_packed_stays_where_it_is(tmp_path: Path, task: Task) -> None:
    assert run(DISK, tmp_path, task) == tmp_path / "disk.packed"
    assert not (tmp_path / "disk").exists()


def test_layers_come_off_one_by_one_but_not_without_end(tmp_path: Path, task: Task) -> None:
    twice = gzip.compress(lzma.compress(DISK, preset=0))
    assert run(twice, tmp_path, task).read_bytes() == DISK
    with pytest.raises(BuildError, match="more than 3 layers"):
        run(gzip.compress(gzip.compress(twice)), tmp_path, task)


def archive(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def test_an_ova_is_left_whole_for_its_reader(tmp_path: Path, task: Task) -> None:
    packed_ova = archive(("vm.ovf", b"<Envelope/>"), ("disk1.vmdk", DISK))
    assert run(packed_ova, tmp_path, task) == tmp_path / "disk.packed"
    assert run(gzip.compress(packed_ova), tmp_path, task).read_bytes() == packed_ova


def test_an_archive_has_one_disk(tmp_path: Path, task: Task) -> None:
    with pytest.raises(BuildError, match=r"several disks \(a.vmdk, b.vmdk\)"):
        run(archive(("a.vmdk", b"a"), ("b.vmdk", b"b")), tmp_path, task)
    with pytest.raises(BuildError, match="holds no disk") as caught:
        run(archive(("readme", b"a")), tmp_path, task)
    assert "it holds readme" in caught.value.hint
    with pytest.raises(BuildError, match="damaged or cut short"):
        run(archive(("a.vmdk", DISK))[: SIZE // 2], tmp_path, task)


def test_an_archive_tells_the_size_before_it_is_unpacked(tmp_path: Path, task: Task) -> None:
    with pytest.raises(BuildError, match="more than"):
        run(archive(("a.vmdk", DISK)), tmp_path, task, limit=SIZE - 1)


def test_a_sparse_archive_of_google_cloud_is_a_disk(tmp_path: Path, task: Task) -> None:
    disk = conformance.make_disk(tmp_path / "made.raw", SIZE)
    with raw.Reader(disk) as reader:
        made = gzip.compress(b"".join(sparse_tar.write(reader)))
    assert raw.inspect(run(made, tmp_path, task)).sha256 == disk.sha256


def test_a_missing_zstd_is_said(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "which", lambda command: None)
    monkeypatch.setattr(decode, "zstd_module", lambda: None)
    with pytest.raises(HostError, match="zstd is not installed"):
        run(b"\x28\xb5\x2f\xfd" + bytes(600), tmp_path, task)


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "RESERVE", 1 << 60)
    with pytest.raises(HostError, match="no space is left"):
        run(gzip.compress(DISK), tmp_path, task)
    assert not (tmp_path / "disk.partial").exists()
