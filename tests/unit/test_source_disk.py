"""Foreign disks: taken in any format, grown with their partition table, refused when damaged."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from publisher.build import adopt as adopting
from publisher.build import disk as disk_source
from publisher.build import grow, partition
from publisher.build.adopt import adopt
from publisher.errors import BuildError, HostError
from publisher.model import MIB, SECTOR, Extent
from publisher.recipe import Disk
from publisher.task import Task, detached
from tests.unit.file_server import Files, serve

SIZE = 6 * MIB
ROOT = Extent(2 * MIB, 3 * MIB)

needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A disk with a GPT, a loader's partition, and something in its root."""
    kind = partition.ROOT["x86_64"]
    wanted = [
        partition.Partition(1, kind, uuid.uuid4(), "r", ROOT.offset, ROOT.length),
        partition.Partition(14, partition.BIOS_BOOT, uuid.uuid4(), "b", MIB, MIB),
    ]
    head, tail = partition.table(uuid.uuid4(), SIZE, wanted)
    path = tmp_path / "foreign.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.write(head)
        file.seek(ROOT.offset)
        file.write(b"the root" * 1000)
        file.seek(SIZE - len(tail))
        file.write(tail)
    return path


def converted(raw: Path, kind: str) -> Path:
    path = raw.with_suffix(f".{kind}")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", kind]
    subprocess.run([*argv, str(raw), str(path)], check=True)
    return path


def root_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(ROOT.offset)
        return file.read(ROOT.length)


@needs_qemu_img
@pytest.mark.parametrize(
    ("kind", "packed"),
    [("raw", False), ("raw", True), ("qcow2", False), ("qcow2", True), ("vmdk", False)],
)
def test_any_format_becomes_the_same_work_disk(
    raw: Path, tmp_path: Path, task: Task, kind: str, packed: bool
) -> None:
    path = converted(raw, kind) if kind != "raw" else raw
    if packed:
        path = path.with_name("packed")
        path.write_bytes(gzip.compress((raw.with_suffix(f".{kind}")).read_bytes(), 1))
    work = tmp_path / "work"
    work.mkdir()
    made = adopt(path, SIZE, work / "disk.raw", task, "build.source.disk.file")
    assert made.read_bytes() == raw.read_bytes()
    assert [p.name for p in work.iterdir()] == ["disk.raw"]


def headers(path: Path) -> list[tuple[int | bool, ...]]:
    """(own LBA, other LBA, last usable, table, header and table whole) of both headers."""
    data = path.read_bytes()
    found: list[tuple[int | bool, ...]] = []
    for at in (SECTOR, len(data) - SECTOR):
        header = data[at : at + 92]
        assert header.startswith(b"EFI PART")
        crc, here, other = struct.unpack_from("<I4xQQ", header, 16)
        last, table = struct.unpack_from("<Q16xQ", header, 48)
        count, entry, table_crc = struct.unpack_from("<III", header, 80)
        entries = data[table * SECTOR : table * SECTOR + count * entry]
        whole = zlib.crc32(header[:16] + bytes(4) + header[20:]) == crc
        found.append((here, other, last, table, whole and zlib.crc32(entries) == table_crc))
    return found


def test_growing_moves_the_backup_of_the_table_to_the_new_end(raw: Path) -> None:
    before = root_of(raw)
    grow.grow(raw, 2 * SIZE)
    end = 2 * SIZE // SECTOR - 1
    assert raw.stat().st_size == 2 * SIZE
    assert headers(raw) == [(1, end, end - 33, 2, True), (end, 1, end - 33, end - 32, True)]
    assert root_of(raw) == before
    assert struct.unpack_from("<I", raw.read_bytes(), 446 + 12) == (end,)
    old = raw.read_bytes()[SIZE - SECTOR : SIZE]
    assert not any(old), "a second backup would mislead recovery"
    again = raw.read_bytes()
    grow.grow(raw, 2 * SIZE)
    assert raw.read_bytes() == again


@pytest.mark.skipif(not shutil.which("sgdisk"), reason="sgdisk is missing")
def test_sgdisk_finds_nothing_wrong_with_a_grown_table(raw: Path) -> None:
    grow.grow(raw, 3 * SIZE)
    said = subprocess.run(["sgdisk", "-v", str(raw)], capture_output=True, text=True, check=True)
    assert "No problems found" in said.stdout


def test_a_table_with_a_wrong_checksum_is_not_touched(raw: Path) -> None:
    data = bytearray(raw.read_bytes())
    data[2 * SECTOR + 40] ^= 1
    raw.write_bytes(data)
    with pytest.raises(BuildError, match="partition table is damaged: its checksum"):
        grow.grow(raw, 2 * SIZE)


def test_a_disk_without_a_table_only_becomes_larger(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"x" * MIB)
    grow.grow(path, 2 * MIB)
    assert path.read_bytes() == b"x" * MIB + bytes(MIB)


def test_partitions_are_found_in_gpt_and_mbr(raw: Path, tmp_path: Path) -> None:
    assert grow.partitions(raw) == [ROOT]
    mbr = bytearray(SECTOR)
    mbr[446:462] = struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 2048, 4096)
    mbr[462:478] = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 8192, 4096)
    mbr[510:] = b"\x55\xaa"
    old = tmp_path / "mbr"
    old.write_bytes(bytes(mbr) + bytes(MIB))
    assert grow.partitions(old) == [Extent(2048 * SECTOR, 4096 * SECTOR)]
    bare = tmp_path / "bare"
    bare.write_bytes(bytes(MIB))
    assert grow.partitions(bare) == [Extent(0, MIB)]


@pytest.mark.skipif(not shutil.which("mke2fs", path="/usr/sbin:/sbin"), reason="no mke2fs")
def test_ext_file_systems_are_found(raw: Path) -> None:
    assert grow.ext_partitions(raw) == []
    argv = ["/sbin/mke2fs", "-q", "-F", "-E", f"offset={ROOT.offset}", str(raw), "2048k"]
    subprocess.run(argv, check=True)
    assert grow.ext_partitions(raw) == [ROOT]


@needs_qemu_img
def test_a_disk_that_is_larger_than_the_image_is_refused(
    raw: Path, tmp_path: Path, task: Task
) -> None:
    with pytest.raises(BuildError, match="has 6 MiB, the image only 4") as caught:
        adopt(raw, 4 * MIB, tmp_path / "disk.raw", task, "build.source.disk.file")
    assert caught.value.key == "build.size"
    assert 'size = "6MiB"' in caught.value.hint


@needs_qemu_img
def test_a_truncated_qcow2_is_refused_with_the_key(raw: Path, tmp_path: Path, task: Task) -> None:
    path = converted(raw, "qcow2")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(BuildError, match="damaged or cut short") as caught:
        adopt(path, SIZE, tmp_path / "disk.raw", task, "build.source.disk.file")
    assert caught.value.key == "build.source.disk.file"
    assert not (tmp_path / "disk.raw").exists()


@needs_qemu_img
def test_a_disk_that_would_read_other_files_is_refused(
    raw: Path, tmp_path: Path, task: Task
) -> None:
    path = tmp_path / "overlay.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw"]
    subprocess.run([*argv, str(path)], check=True)
    with pytest.raises(BuildError, match="needs another file"):
        adopt(path, SIZE, tmp_path / "disk.raw", task, "build.source.disk.file")


@needs_qemu_img
@pytest.mark.parametrize(
    ("name", "message"), [("disk.qcow2", "holds no such disk"), ("disk.img", "no disk image")]
)
def test_what_is_no_disk_is_refused(name: str, message: str, tmp_path: Path, task: Task) -> None:
    page = tmp_path / name
    page.write_text("<html>404 Not Found</html>")
    with pytest.raises(BuildError, match=message):
        adopt(page, SIZE, tmp_path / "disk.raw", task, "build.source.disk.file")


@needs_qemu_img
def test_a_full_disk_is_the_machines_fault(
    raw: Path, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adopting, "grow", full)
    with pytest.raises(HostError, match="No space left"):
        adopt(raw, SIZE, tmp_path / "disk.raw", task, "build.source.disk.file")


@needs_qemu_img
def test_a_disk_comes_from_a_server_through_the_cache(
    raw: Path, tmp_path: Path, task: Task
) -> None:
    content = lzma.compress(converted(raw, "qcow2").read_bytes(), preset=0)
    with serve(Files({"/disk.qcow2.xz": content})) as files:
        source = Disk(file=f"{files.url}/disk.qcow2.xz", sha512=hashlib.sha512(content).hexdigest())
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            made = disk_source.prepare(
                source,
                2 * SIZE,
                directory=tmp_path,
                cache=tmp_path / "cache",
                into=tmp_path / name / "disk.raw",
                task=task,
            )
            assert root_of(made) == root_of(raw)
            assert made.stat().st_size == 2 * SIZE
        assert len(files.requests) == 1
        wrong = source.model_copy(update={"sha512": "0" * 128})
        with pytest.raises(BuildError, match="instead of") as caught:
            disk_source.prepare(
                wrong,
                SIZE,
                directory=tmp_path,
                cache=tmp_path / "cache",
                into=tmp_path / "three.raw",
                task=task,
            )
        assert caught.value.key == "build.source.disk.file"
