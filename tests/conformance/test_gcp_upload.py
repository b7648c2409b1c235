"""Uploading: one deterministic gzip member in verified parts, continued after anything."""

from __future__ import annotations

import io
import random
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.gcp import upload
from providers.gcp.api import Api
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions
from publisher.conformance import HastyClock
from publisher.disks import raw
from publisher.errors import ProviderError, VerifyError
from publisher.memory import Memory
from publisher.model import GIB, MIB, Disk, Extent, Spec, Upload
from publisher.task import Task
from tests.unit.gcp_cloud import BUCKET, PROJECT, Cloud, cloud, crc32c


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """6 MiB of data that does not compress in 1 GiB."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    data = random.Random(1).randbytes(6 * MIB)
    with path.open("wb") as file:
        file.truncate(GIB)
        file.write(data)
    return Disk(path, GIB, "cd" * 32, (Extent(0, 6 * MIB),))


@pytest.fixture
def gcs(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path / "cloud") as running:
        yield running


OPTIONS = GcpOptions(project=PROJECT, bucket=BUCKET)


def spec(disk: Disk) -> Spec:
    return Spec("web", "1", size=disk.size, digest=disk.sha256, run="r")


def run(disk: Disk, where: Path, bucket: Bucket | None = None) -> Upload:
    task = Task("gcp.upload", Memory(where), clock=HastyClock())
    return upload.upload(bucket or Bucket(Api(), BUCKET), OPTIONS, disk, spec(disk), task)


def test_the_same_disk_gives_the_same_parts(disk: Disk) -> None:
    one, two = upload.Archive(disk), upload.Archive(disk)
    parts = list(one.parts())
    assert [(p.crc32c, p.data) for p in parts] == [(p.crc32c, p.data) for p in two.parts()]
    assert len(parts) > 4
    assert {len(part.data) for part in parts[:-1]} == {one.part_size}
    assert (one.crc32c, one.size) == (crc32c(b"".join(p.data for p in parts)), one.size)


def test_the_parts_are_one_gzip_member_of_a_tar_with_disk_raw(disk: Disk) -> None:
    packed = b"".join(part.data for part in upload.Archive(disk).parts())
    unpack = zlib.decompressobj(31)
    tar = unpack.decompress(packed)
    assert unpack.eof
    assert unpack.unused_data == b""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        (member,) = archive.getmembers()
    assert (member.name, member.size) == ("disk.raw", GIB)


def test_parts_grow_with_the_disk_and_stay_small() -> None:
    def size(data: int) -> int:
        return upload.Archive(Disk(Path(), 64 * GIB, "", (Extent(0, data),))).part_size

    assert size(MIB) == MIB
    assert size(512 * MIB) == 8 * MIB
    assert size(64 * GIB) == 16 * MIB
    assert all(size(n * MIB) % (256 * 1024) == 0 for n in range(1, 999, 7))


def test_one_object_stays_and_is_not_sent_twice(gcs: Cloud, disk: Disk, tmp_path: Path) -> None:
    first = run(disk, tmp_path / "one")
    assert list(gcs.sandbox.resources()) == [f"object/{first.ref}"]
    gcs.sandbox.faults.requests.clear()
    assert run(disk, tmp_path / "two") == first
    assert not [line for line in gcs.sandbox.faults.requests if line.startswith("PUT")]


def test_more_parts_than_compose_takes_are_joined_in_steps(
    gcs: Cloud, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "COMPOSE_MOST", 2)
    run(disk, tmp_path)
    composed = [line for line in gcs.sandbox.faults.requests if "/compose" in line]
    assert len(composed) > 3
    assert len(gcs.sandbox.resources()) == 1


def test_parts_of_another_compressor_are_replaced(gcs: Cloud, disk: Disk, tmp_path: Path) -> None:
    part = f"{upload.part_prefix('web-1', disk.sha256)}part-000001"
    gcs.put(part, b"made by an older version")
    assert run(disk, tmp_path).details["crc32c"]


def test_a_damaged_object_is_found_and_removed(gcs: Cloud, disk: Disk, tmp_path: Path) -> None:
    name = upload.object_name("web-1", disk.sha256)
    gcs.put(name, b"something else")
    with pytest.raises(VerifyError, match="checksum"):
        run(disk, tmp_path)
    assert list(gcs.sandbox.resources()) == []


def test_a_part_that_changes_on_its_way_is_refused(
    gcs: Cloud, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(Bucket):
        def put(self, session: str, data: bytes, offset: int, task: Task) -> object:  # type: ignore[override]
            return super().put(session, bytes([data[0] ^ 1]) + data[1:], offset, task)

    with pytest.raises(ProviderError, match="CRC32C"):
        run(disk, tmp_path, Bad(Api(), BUCKET))
    assert list(gcs.sandbox.resources()) == []


def test_a_broken_connection_continues_where_the_service_stands(
    gcs: Cloud, disk: Disk, tmp_path: Path
) -> None:
    data = random.Random(2).randbytes(MIB)
    bucket = Bucket(Api(), BUCKET)
    half = 512 * 1024
    sent: list[int] = []

    class Cut(Bucket):
        def put(self, session: str, data: bytes, offset: int, task: Task) -> object:  # type: ignore[override]
            sent.append(offset)
            if len(sent) == 1:
                headers = {"Content-Range": f"bytes 0-{half - 1}/{len(data)}"}
                gcs.request("PUT", session, data=data[:half], headers=headers)
                raise ProviderError("cut", transient=True)
            return super().put(session, data, offset, task)

    task = Task("t", Memory(tmp_path), clock=HastyClock())
    resource = {"name": "x", "crc32c": crc32c(data)}
    made = upload.send(Cut(bucket._api, BUCKET), resource, data, "0", task)
    assert made["crc32c"] == crc32c(data)
    assert sent == [0, half]


def test_a_lost_session_is_begun_again(gcs: Cloud, tmp_path: Path) -> None:
    sessions: list[str] = []

    class Lost(Bucket):
        def begin(self, *args: object, **given: object) -> str:
            sessions.append(super().begin(*args, **given))  # type: ignore[arg-type]
            broken = sessions[-1].partition("upload_id=")[0] + "upload_id=gone"
            return broken if len(sessions) == 1 else sessions[-1]

    task = Task("t", Memory(tmp_path), clock=HastyClock())
    resource = {"name": "x", "crc32c": crc32c(b"data")}
    made = upload.send(Lost(Api(), BUCKET), resource, b"data", "0", task)
    assert made["size"] == "4"
    assert len(sessions) == 2


def test_holes_are_not_read(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    original = raw.Reader.read

    def counting(self: raw.Reader, offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return original(self, offset, length)

    monkeypatch.setattr(raw.Reader, "read", counting)
    for _ in upload.Archive(disk).parts():
        pass
    assert read == 6 * MIB
