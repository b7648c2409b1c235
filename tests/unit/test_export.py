"""Export: every format comes back as the same bytes, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.conformance import HastyClock, make_disk
from publisher.disks import foreign, raw
from publisher.disks.formats import identity, qemu_img
from publisher.errors import Cancelled, HostError, PublishError, UsageError
from publisher.events import Event, StepProgress
from publisher.export import FORMATS, SUFFIXES, Format, export
from publisher.memory import Memory
from publisher.model import MIB, Disk
from publisher.task import Cancellation, Task

ODD = 8 * MIB + 3 * 512
"""No whole number of clusters, grains, cylinders or mebibytes."""

Exporter = Callable[[Disk, Format, str], Path]
Written = Callable[[Format], Path]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", ODD)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("export", Memory(tmp_path / "memory"), clock=HastyClock())


@pytest.fixture
def write(tmp_path: Path, task: Task) -> Exporter:
    def export_as(disk: Disk, to: Format, file: str) -> Path:
        (path,) = export(
            disk, to, tmp_path / file, task, name="web", arch="x86_64", firmware="bios+uefi"
        )
        return path

    return export_as


@pytest.fixture(scope="module")
def written(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The disk in a format, written once, alone in its directory: for reading only."""
    files: dict[Format, Path] = {}

    def export_once(to: Format) -> Path:
        if to not in files:
            into = tmp_path_factory.mktemp("written") / f"web{SUFFIXES[to]}"
            task = Task("export", Memory(tmp_path_factory.mktemp("m") / "m"), clock=HastyClock())
            export(disk, to, into, task, name="web", arch="x86_64", firmware="bios+uefi")
            files[to] = into
        return files[to]

    return export_once


@pytest.mark.parametrize("to", FORMATS)
def test_an_exported_disk_comes_back_bit_for_bit_and_sparse(
    disk: Disk, to: Format, written: Written, tmp_path: Path, task: Task
) -> None:
    path = written(to)
    back = raw.inspect(foreign.convert(path, tmp_path / "back.raw", task))
    assert (back.size, back.sha256) == (disk.size, disk.sha256)
    assert back.path.stat().st_blocks * 512 < disk.size / 2
    assert path.stat().st_blocks * 512 < disk.size
    assert os.listdir(path.parent) == [path.name], "something was left beside it"


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_disk_gives_the_same_file(
    disk: Disk, to: Format, written: Written, write: Exporter
) -> None:
    assert write(disk, to, f"web{SUFFIXES[to]}").read_bytes() == written(to).read_bytes()


@pytest.mark.parametrize(
    ("to", "driver"),
    [("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vhd", "vpc"), ("vhdx", "vhdx"), ("vdi", "vdi")],
)
def test_qemu_img_finds_each_file_sound_and_equal(
    disk: Disk, to: Format, driver: str, written: Written
) -> None:
    path = written(to)
    checked = subprocess.run(["qemu-img", "check", "-f", driver, path], capture_output=True)
    assert checked.returncode in (0, 63), checked.stderr
    subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", driver, disk.path, path],
        check=True,
        capture_output=True,
    )
    assert foreign.describe(path)["virtual-size"] == disk.size


def test_other_disks_have_other_identities(disk: Disk, write: Exporter, tmp_path: Path) -> None:
    other = make_disk(tmp_path / "other.raw", ODD, seed=2)
    uuids = [write(d, "vdi", f"{d.sha256}.vdi").read_bytes()[392:408] for d in (disk, other)]
    assert uuids[0] != uuids[1]
    ids = [identity.content_id(d.sha256) for d in (disk, other)]
    assert ids[0] != ids[1]


def test_a_vmdk_is_stream_optimized_and_names_itself(
    written: Written,
) -> None:
    descriptor = written("vmdk").read_bytes()[512:1536].decode(errors="replace")
    assert 'createType="streamOptimized"' in descriptor
    assert 'SPARSE "web.vmdk"' in descriptor
    assert "parentCID=ffffffff" in descriptor


@pytest.mark.parametrize("cid", ["f", "123456"])
def test_a_vmdk_is_the_same_whatever_id_qemu_img_drew(
    cid: str, disk: Disk, written: Written, tmp_path: Path
) -> None:
    """qemu's vmdk_write_cid puts a new random id, without leading zeros, into the text
    that it wrote first, and leaves the end of that behind the end of a shorter one."""
    exported = written("vmdk").read_bytes()
    path = tmp_path / "web.vmdk"
    text = exported[512 : exported.index(b"\0", 512)]
    drawn = re.sub(rb"(?<=\nCID=)[0-9a-f]{8}(?=\n)", cid.encode(), text) + b"\0"
    assert drawn != text + b"\0"
    path.write_bytes(exported[:512] + drawn + exported[512 + len(drawn) :])
    identity.settle(path, "vmdk", disk.sha256)
    assert path.read_bytes() == exported


@pytest.mark.parametrize("last", [random.Random(1).randbytes(65536), b"text".ljust(65536, b"x")])
def test_a_vmdk_can_be_read_in_one_pass_to_its_end(
    last: bytes, tmp_path: Path, write: Exporter
) -> None:
    """VMware, "Virtual Disk Format 5.0", stream-optimized: compressed grains in order,
    each behind its number and length, and a marker where they end. A disk that ends
    in a hole needs the marker: no grain tells the reader that it is through."""
    plain = (bytes(65536) + b"first".ljust(65536) + bytes(2 * MIB) + last).ljust(ODD, b"\0")
    source = tmp_path / "hole.raw"
    source.write_bytes(plain)
    data = write(raw.inspect(source), "vmdk", "web.vmdk").read_bytes()
    magic, version, flags, capacity, grain = struct.unpack_from("<4sIIQQ", data)
    assert (magic, version) == (b"KDMV", 3), "ESXi refuses older ones"
    assert flags & 0x30000 == 0x30000, "compressed, with markers"
    assert (grain, struct.unpack_from("<H", data, 77)) == (128, (1,)), "64 KiB by deflate"
    read = bytearray(capacity * 512)
    (start,) = struct.unpack_from("<Q", data, 64)
    at, before = start * 512, -1
    while True:
        sector, size = struct.unpack_from("<QI", data, at)
        if size == 0:
            break
        assert sector > before
        assert sector % grain == 0
        before = sector
        content = zlib.decompress(data[at + 12 : at + 12 + size])
        held = min(len(content), len(read) - sector * 512)
        read[sector * 512 : sector * 512 + held] = content[:held]
        at += -(-(12 + size) // 512) * 512
    assert not any(data[at:]), "a marker of kind 0 is the end of the stream"
    assert len(data) >= at + 512
    assert len(data) % 512 == 0
    assert read == plain


def test_a_vhd_has_one_footer_at_both_ends_and_no_time(disk: Disk, written: Written) -> None:
    dynamic = written("vhd").read_bytes()
    assert dynamic[:512] == dynamic[-512:]
    assert dynamic[:8] == b"conectix"
    assert dynamic[24:28] == bytes(4)
    assert struct.unpack(">Q", dynamic[48:56]) == (disk.size,)
    fixed = written("vhd-fixed").read_bytes()
    assert len(fixed) == disk.size + 512
    assert fixed[:-512] == disk.path.read_bytes()


def test_an_existing_file_is_replaced_only_by_a_whole_one(
    disk: Disk, write: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "web.qcow2"
    path.write_text("the old one")

    def differs(*_: object) -> None:
        raise PublishError("differs")

    monkeypatch.setattr(qemu_img, "verify", differs)
    with pytest.raises(PublishError):
        write(disk, "qcow2", "web.qcow2")
    assert path.read_text() == "the old one"
    monkeypatch.undo()
    write(disk, "qcow2", "web.qcow2")
    assert path.read_bytes()[:4] == b"QFI\xfb"


@pytest.mark.parametrize("to", ["qcow2", "raw", "ova"])
def test_a_disk_that_changed_meanwhile_is_noticed(
    to: Format, write: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make_disk(tmp_path / "disk.raw", ODD)
    settle = identity.settle

    def meanwhile(path: Path, kind: str, digest: str) -> None:
        settle(path, kind, digest)
        damage()

    def damage() -> None:
        with disk.path.open("r+b") as file:
            file.seek(8192)
            file.write(b"other")

    if to == "raw":
        damage()
    monkeypatch.setattr(identity, "settle", meanwhile)
    with pytest.raises(PublishError, match="differs"):
        write(disk, to, f"out/web{SUFFIXES[to]}")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("to", ["qcow2", "vhd-fixed", "ova"])
def test_a_cancelled_export_leaves_nothing(disk: Disk, to: Format, tmp_path: Path) -> None:
    cancellation = Cancellation()
    seen: list[Event] = []

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, StepProgress):
            cancellation.cancel()

    task = Task("export", Memory(tmp_path / "m"), sink=sink, cancellation=cancellation)
    with pytest.raises(Cancelled):
        export(disk, to, tmp_path / "out" / "web", task, name="w", arch="x86_64", firmware="uefi")
    assert os.listdir(tmp_path / "out") == []
    assert any(isinstance(event, StepProgress) for event in seen)


def test_a_directory_that_cannot_be_written_says_so(disk: Disk, write: Exporter) -> None:
    with pytest.raises(HostError, match="cannot write") as caught:
        write(disk, "raw", "/proc/none/web.raw")
    assert caught.value.hint
    with pytest.raises(UsageError, match="is a directory"):
        write(disk, "raw", "/tmp")


def test_an_unknown_format_names_the_known_ones(disk: Disk, write: Exporter) -> None:
    with pytest.raises(UsageError) as caught:
        write(disk, "qed", "web.qed")  # type: ignore[arg-type]
    assert "qcow2" in caught.value.hint


def test_without_qemu_img_the_package_is_named(
    disk: Disk, write: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError) as caught:
        write(disk, "vdi", "web.vdi")
    assert "qemu-utils" in caught.value.hint
    write(disk, "raw", "web.raw")


def test_a_vmdk_that_names_a_stranger_is_refused(tmp_path: Path, task: Task) -> None:
    """A text VMDK can name any file of this machine as its bytes."""
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(bytes(MIB))
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\nRW 2048 FLAT "{}" 0\n'
        'ddb.adapterType = "ide"\n'
    )
    (tmp_path / "own-flat.vmdk").write_bytes(bytes(MIB))
    own = tmp_path / "own.vmdk"
    own.write_text(text.format("own-flat.vmdk"))
    assert foreign.convert(own, tmp_path / "own.raw", task).stat().st_size == MIB
    trap = tmp_path / "trap.vmdk"
    trap.write_text(text.format(secret))
    with pytest.raises(PublishError, match="needs another file"):
        foreign.convert(trap, tmp_path / "trap.raw", task)
    (tmp_path / "link.vmdk").symlink_to(secret)
    trap.write_text(text.format("link.vmdk"))
    with pytest.raises(PublishError, match="needs another file"):
        foreign.convert(trap, tmp_path / "trap.raw", task)


def test_the_source_disk_is_not_touched(disk: Disk, write: Exporter) -> None:
    before = disk.path.stat()
    write(disk, "ova", "web.ova")
    assert disk.path.stat().st_mtime_ns == before.st_mtime_ns
    assert dataclasses.asdict(raw.inspect(disk.path))["sha256"] == disk.sha256
