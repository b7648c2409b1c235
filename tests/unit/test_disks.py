"""Raw disks: extents, digests, blocks, sparse writing, the store, foreign formats."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.conformance import HastyClock, make_disk
from publisher.disks import extents, foreign, raw
from publisher.disks.store import Store
from publisher.errors import BuildError, Cancelled, HostError, PublishError
from publisher.memory import Memory, append_line
from publisher.model import MIB, Disk, Extent
from publisher.task import Cancellation, Task

SIZE = 32 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """One for all: no test writes into it."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", SIZE)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("test", Memory(tmp_path / "memory"), clock=HastyClock())


def test_a_disk_is_known_by_all_its_bytes_and_its_data(disk: Disk) -> None:
    content = disk.path.read_bytes()
    assert disk.sha256 == hashlib.sha256(content).hexdigest()
    assert disk.size == len(content)
    position = 0
    for extent in disk.extents:
        assert not content[position : extent.offset].strip(b"\0")
        assert content[extent.offset : extent.end].strip(b"\0")
        position = extent.end
    assert disk.data_bytes < 4 * MIB, "allocated zeros are no data"
    assert Disk.from_json(disk.to_json()) == disk


def test_streaming_and_blocks_give_the_bytes_of_the_file(disk: Disk) -> None:
    content = disk.path.read_bytes()
    with raw.Reader(disk) as reader:
        assert b"".join(reader.stream(chunk=MIB)) == content
        block = 512 * 1024
        rebuilt = bytearray(SIZE)
        indices = []
        for index, data in reader.blocks(block):
            assert len(data) == block
            rebuilt[index * block : (index + 1) * block] = data
            indices.append(index)
        assert rebuilt == content
        assert indices == sorted(set(indices))
        assert len(indices) < SIZE // block / 4


def test_the_last_block_is_padded(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"\1" * 1000)
    with raw.Reader(raw.inspect(path)) as reader:
        assert list(reader.blocks(512)) == [(0, b"\1" * 512), (1, b"\1" * 488 + bytes(24))]


def test_extents_are_merged_aligned_and_complemented() -> None:
    merged = extents.merge([Extent(8, 4), Extent(0, 4), Extent(4, 4), Extent(20, 0), Extent(30, 5)])
    assert merged == (Extent(0, 12), Extent(30, 5))
    assert extents.align(merged, 8, 34) == (Extent(0, 16), Extent(24, 10))
    assert list(extents.blocks(merged, 8, 40)) == [0, 1, 3, 4]
    assert list(extents.holes(merged, 40)) == [Extent(12, 18), Extent(35, 5)]


@pytest.mark.parametrize("length", [0, 1, 511, 65536, 4 * MIB + 1])
def test_zeros_are_told_from_data(length: int) -> None:
    assert raw.is_zero(bytes(length))
    if length:
        assert not raw.is_zero(bytes(length - 1) + b"\1")


def test_a_sparse_file_written_in_any_order_equals_its_source(
    disk: Disk, tmp_path: Path, task: Task
) -> None:
    writer = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    pieces = list(range(0, SIZE, MIB))
    random.Random(4).shuffle(pieces)
    with raw.Reader(disk) as reader:
        for offset in pieces:
            writer.write(offset, reader.read(offset, MIB))
    copy = raw.inspect(writer.finish())
    assert copy.sha256 == disk.sha256
    assert copy.path.stat().st_blocks * 512 < SIZE / 4


def test_an_interrupted_write_knows_which_pieces_it_has(tmp_path: Path, task: Task) -> None:
    writer = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    writer.write(0, b"a" * MIB)
    writer.close()
    task.memory.close()
    again = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    assert again.has(0, MIB)
    assert not again.has(MIB, MIB)
    again.close()
    task.memory.close()
    (tmp_path / "out.raw.partial").unlink()
    fresh = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    assert not fresh.has(0, MIB), "the file is gone, so the ledger must not be believed"
    fresh.close()


def test_after_a_loss_of_power_what_was_written_is_not_believed(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    writer.write(0, b"a" * MIB)
    writer.close()
    task.memory.close()
    monkeypatch.setattr("publisher.disks.raw.boot_id", lambda: "the next boot")
    again = raw.SparseWriter(tmp_path / "out.raw", SIZE, task)
    assert not again.has(0, MIB)
    again.write(0, bytes(MIB))
    assert raw.is_zero(again.finish().read_bytes()), "zeros are not written over old bytes"


def test_the_store_keeps_a_disk_under_its_digest(disk: Disk, tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    scratch = store.scratch("made.raw")
    shutil.copy(disk.path, scratch)
    stored = store.add(scratch)
    assert not scratch.exists()
    assert stored.path.name == f"{disk.sha256}.raw"
    assert store.get(disk.sha256) == stored
    assert not os.access(stored.path, os.W_OK) or os.geteuid() == 0
    shutil.copy(disk.path, scratch)
    assert store.add(scratch) == stored
    os.chmod(stored.path, 0o600)
    with stored.path.open("r+b") as file:
        file.truncate(SIZE - 1)
    assert store.get(disk.sha256) is None, "a disk that was cut short is no disk"
    shutil.copy(disk.path, scratch)
    store.add(scratch)
    assert store.get(disk.sha256) == stored, "one that is made anew takes its place"
    stored.path.with_suffix(".json").unlink()
    assert store.get(disk.sha256) is None, "a crash came between the two files"
    shutil.copy(disk.path, scratch)
    assert store.add(scratch) == store.get(disk.sha256) == stored


def test_a_disk_that_is_not_proved_stays_out_of_the_store(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "state")
    scratch = store.scratch("made.raw")
    shutil.copy(disk.path, scratch)
    reading, ended = threading.Event(), []

    def read(_path: Path, check: Callable[[], None]) -> Disk:
        reading.set()
        try:
            while True:  # as long as a large disk takes
                check()
        except Cancelled:
            ended.append("early")
            raise

    def refuse() -> None:
        assert reading.wait(10), "the file is read while it is proved"
        raise BuildError("a trace")

    monkeypatch.setattr("publisher.disks.store.raw.inspect", read)
    with pytest.raises(BuildError, match="a trace"):
        store.add(scratch, prove=refuse)
    assert ended == ["early"]
    assert scratch.exists()
    assert not store.directory.exists()


def test_a_disk_that_may_be_lost_with_the_power_stays_out_of_the_store(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    store = Store(tmp_path / "state")
    scratch = store.scratch("made.raw")
    shutil.copy(disk.path, scratch)
    monkeypatch.setattr("publisher.disks.raw.os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.add(scratch)
    assert not store.directory.exists()


needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")


@needs_qemu_img
@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vpc", "vhdx", "vdi", "raw"])
def test_disks_of_other_tools_give_the_same_bytes(
    disk: Disk, tmp_path: Path, task: Task, kind: str
) -> None:
    source = tmp_path / f"foreign.{kind}"
    options = ["-o", "force_size=on"] if kind == "vpc" else []
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind, *options]
    subprocess.run([*command, str(disk.path), str(source)], check=True)
    out = raw.inspect(foreign.convert(source, tmp_path / "out.raw", task))
    assert (out.size, out.sha256) == (disk.size, disk.sha256)


@needs_qemu_img
def test_a_disk_with_a_backing_file_is_refused(disk: Disk, tmp_path: Path, task: Task) -> None:
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            str(disk.path),
            "-F",
            "raw",
            str(overlay),
        ],
        check=True,
    )
    with pytest.raises(PublishError, match="needs another file"):
        foreign.convert(overlay, tmp_path / "out.raw", task)


@needs_qemu_img
def test_a_truncated_qcow2_is_refused(disk: Disk, tmp_path: Path, task: Task) -> None:
    source = tmp_path / "foreign.qcow2"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk.path), str(source)], check=True
    )
    with source.open("r+b") as file:
        file.truncate(source.stat().st_size // 2)
    with pytest.raises(PublishError, match="damaged or cut short"):
        foreign.convert(source, tmp_path / "out.raw", task)
    assert not (tmp_path / "out.raw").exists()
    assert not (tmp_path / "out.raw.partial").exists()


@needs_qemu_img
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.qcow2", b"<html>not found</html>", "named .qcow2 but holds no such disk"),
        ("a.raw", b"", "is empty"),
    ],
)
def test_a_file_that_is_no_disk_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path, task: Task
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PublishError, match=message) as caught:
        foreign.convert(tmp_path / name, tmp_path / "out.raw", task)
    assert caught.value.hint
    assert not (tmp_path / "out.raw").exists()


def test_a_missing_file_says_so(tmp_path: Path, task: Task) -> None:
    with pytest.raises(PublishError, match="does not exist"):
        foreign.convert(tmp_path / "none.qcow2", tmp_path / "out.raw", task)


@needs_qemu_img
def test_a_cancelled_conversion_leaves_no_file(disk: Disk, tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    task = Task("x", Memory(tmp_path / "memory"), cancellation=cancellation)
    with pytest.raises(PublishError, match="cancelled"):
        foreign.convert(disk.path, tmp_path / "out.raw", task)
    assert not list(tmp_path.glob("out*"))


FAKE = """#!/bin/sh
case $1 in
{verb}) echo $$ > "$PIDS.new"; mv "$PIDS.new" "$PIDS"; exec sleep 60 ;;
info) echo '{{"format": "raw", "virtual-size": 1048576}}' ;;
esac
"""


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is missing")
@pytest.mark.parametrize("verb", ["info", "check", "convert"])
def test_qemu_img_ends_with_the_program_that_was_killed(tmp_path: Path, verb: str) -> None:
    (tmp_path / "qemu-img").write_text(FAKE.format(verb=verb))
    (tmp_path / "qemu-img").chmod(0o755)
    (tmp_path / "disk").write_bytes(b"x")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from publisher.disks import foreign\n"
        "from publisher.task import detached\n"
        "at = Path(sys.argv[1])\n"
        "foreign.convert(at / 'disk', at / 'out.raw', detached(at / 'memory'))\n"
    )
    pids = tmp_path / "pids"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PIDS": str(pids)}
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment) as parent:
        deadline = time.monotonic() + 20
        while not pids.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int(pids.read_text())
        assert os.getsid(child) == child, "a Ctrl-C in the terminal does not reach it"
        parent.kill()
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_state_directory_is_a_clear_error() -> None:
    handle = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(HostError, match="cannot write the state directory") as caught:
            append_line(handle, "a fact")
    finally:
        os.close(handle)
    assert "free some space" in caught.value.hint
