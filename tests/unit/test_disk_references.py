"""A disk file may not choose which other files of this machine are read."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.disks import bounded, foreign
from publisher.disks.detect import Part, detect
from publisher.disks.references import references
from publisher.errors import PublishError
from publisher.memory import Memory
from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.opening import opened
from publisher.task import Task

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")

KIB = 1024
VMDK = (
    "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
    'createType="{type}"\n{extent}\nddb.adapterType = "ide"\n'
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("test", Memory(tmp_path / "memory"))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program opens the file before it is refused."""

    def never(*arguments: str, **_: object) -> bounded.Answer:
        raise AssertionError(arguments)

    monkeypatch.setattr(bounded, "qemu_img", never)


def create(path: Path, kind: str, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options, path, "1M"], check=True)
    return path


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    with path.open("r+b") as file:
        for at, data in changes:
            file.seek(at)
            file.write(data)
    return path


def data_file(directory: Path) -> Path:
    (directory / "secret").write_bytes(bytes(MIB))
    return create(directory / "a.qcow2", "qcow2", "-o", f"data_file={directory}/secret")


def data_file_without_name(directory: Path) -> Path:
    path = create(directory / "a.qcow2", "qcow2")
    return patched(path, (72, struct.pack(">Q", 4)))


def backing_file(directory: Path) -> Path:
    (directory / "secret").write_bytes(bytes(MIB))
    return create(directory / "a.qcow2", "qcow2", "-b", f"{directory}/secret", "-F", "raw")


def backing_file_of_version_2(directory: Path) -> Path:
    (directory / "secret").write_bytes(bytes(MIB))
    options = ("-o", "compat=0.10", "-b", f"{directory}/secret", "-F", "raw")
    return create(directory / "a.qcow2", "qcow2", *options)


def qcow2_named_raw(directory: Path) -> Path:
    return data_file(directory).rename(directory / "disk.raw")


def fifo(directory: Path) -> Path:
    os.mkfifo(directory / "secret")
    path = directory / "a.vmdk"
    path.write_text(VMDK.format(type="monolithicFlat", extent='RW 2048 FLAT "secret" 0'))
    return path


def extent_over_lines(directory: Path) -> Path:
    path = directory / "a.vmdk"
    extent = f'RW\n2048\nFLAT "{directory}/secret" 0'
    path.write_text(VMDK.format(type="monolithicFlat", extent=extent))
    return path


def extent_without_comment(directory: Path) -> Path:
    path = directory / "a.vmdk"
    text = VMDK.format(type="monolithicFlat", extent=f'RW 2048 FLAT "{directory}/secret" 0')
    path.write_text("\n" + text.replace("# Disk DescriptorFile\n", "#\r\n"))
    return path


def sparse_without_capacity(directory: Path) -> Path:
    path = directory / "a.vmdk"
    head = struct.pack("<4sIIQQQ", b"KDMV", 1, 3, 0, 128, 2).ljust(2 * 512, b"\0")
    text = VMDK.format(type="monolithicFlat", extent=f'RW 2048 FLAT "{directory}/secret" 0')
    path.write_bytes(head + text.encode().ljust(4096, b"\0"))
    return path


def extent_without_capacity(directory: Path) -> Path:
    inner = sparse_without_capacity(directory).rename(directory / "secret")
    path = directory / "b.vmdk"
    extent = f'RW 2048 SPARSE "{inner.name}"'
    path.write_text(VMDK.format(type="twoGbMaxExtentSparse", extent=extent))
    return path


def parent_of_vmdk(directory: Path) -> Path:
    path = create(directory / "a.vmdk", "vmdk")
    with path.open("rb") as file:
        file.seek(512)
        text = file.read(20 * 512).rstrip(b"\0")
    return patched(path, (512 + len(text), b'parentFileNameHint="secret"\n'))


def parent_of_vhd(directory: Path) -> Path:
    path = create(directory / "a.vhd", "vpc")
    name = "secret".encode("utf-16-be")
    return patched(path, (60, struct.pack(">I", 4)), (512 + 64, name))


def parent_of_vhdx(directory: Path) -> Path:
    path = create(directory / "a.vhdx", "vhdx")
    raw = path.read_bytes()
    table = raw.index(b"metadata")
    parameters = raw.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"), table)
    (at,) = struct.unpack_from("<I", raw, parameters + 16)
    (count,) = struct.unpack_from("<H", raw, table + 10)
    key, value = (s.encode("utf-16-le") for s in ("relative_path", "secret"))
    locator = bytes(18) + struct.pack("<HIIHH", 1, 32, 32 + len(key), len(key), len(value))
    entry = struct.pack(
        "<16sII8x", bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c"), 128 * KIB, 99
    )
    return patched(
        path,
        (table + at + 4, struct.pack("<I", 2)),
        (table + 10, struct.pack("<H", count + 1)),
        (table + 32 + 32 * count, entry),
        (table + 128 * KIB, locator + key + value),
    )


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (data_file, "secret"),
        (data_file_without_name, "that it does not name"),
        (backing_file, "secret"),
        (backing_file_of_version_2, "secret"),
        (qcow2_named_raw, "secret"),
        (fifo, "secret"),
        (extent_without_comment, "secret"),
        (sparse_without_capacity, "secret"),
        (extent_without_capacity, "secret"),
        (parent_of_vmdk, "secret"),
        (parent_of_vhd, "secret"),
        (parent_of_vhdx, "secret"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_disk_that_names_another_file_is_refused_unopened(
    make: Callable[[Path], Path], named: str, tmp_path: Path, task: Task
) -> None:
    path = make(tmp_path)
    with pytest.raises(PublishError, match=rf"needs another file \(.*{named}\)") as caught:
        foreign.convert(path, tmp_path / "out.raw", task)
    assert "flatten it" in caught.value.hint
    with (
        pytest.raises(PublishError, match="needs another file"),
        opened(path, tmp_path / "scratch", Budget(), task),
    ):
        pass


@pytest.mark.usefixtures("untouched")
def test_a_vmdk_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, task: Task) -> None:
    with pytest.raises(PublishError, match="has the line 'RW'"):
        foreign.convert(extent_over_lines(tmp_path), tmp_path / "out.raw", task)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "mark", [b"QED\0", b"QFI\xfb\0\0\0\1", b"WithoutFreeSpace", b"LUKS\xba\xbe"]
)
def test_a_format_that_is_not_read_is_not_taken_for_raw(mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(mark.ljust(MIB, b"\0"))
    with pytest.raises(PublishError, match="which is not read") as caught:
        foreign.describe(path)
    assert "qemu-img convert" in caught.value.hint


def test_what_qemu_img_calls_by_another_name_is_told_by_its_format(tmp_path: Path) -> None:
    for kind in ("qcow2", "vmdk", "vpc", "vhdx", "vdi", "raw"):
        path = create(tmp_path / f"{kind}.img", kind)
        info = foreign.describe(path)
        assert info["format"] == kind
        assert foreign.opening(path, lambda: None)[0] == ["-f", kind, str(path)]


@pytest.mark.long
def test_no_change_of_a_header_breaks_the_search_for_names(tmp_path: Path) -> None:
    """Whatever the bytes are, it ends soon, with names or a PublishError."""
    draw = random.Random(1)
    made = (data_file, extent_over_lines, sparse_without_capacity, parent_of_vhd, parent_of_vhdx)
    for make in made:
        directory = tmp_path / make.__name__
        directory.mkdir()
        path = make(directory)
        sound = path.read_bytes()
        full = [at for at in range(0, len(sound), 64) if any(sound[at : at + 64])]
        started = time.monotonic()
        for _ in range(300):
            changed = bytearray(sound)
            for _ in range(draw.choice((1, 2, 8))):
                at = draw.choice(full) + draw.randrange(64)
                size = draw.choice((1, 4, 8))
                changed[at : at + size] = draw.choice((b"\xff" * size, draw.randbytes(size)))
            changed = changed[: draw.choice((len(changed), draw.randrange(len(changed))))]
            with contextlib.suppress(PublishError):
                part = Part(io.BytesIO(changed), Extent(0, len(changed)))
                list(references(detect(part), part, path))
        assert time.monotonic() - started < 10
