"""Reading Google Cloud's images back with a machine of the stand-in, and what comes between."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.gcp.options import GcpOptions
from providers.gcp.provider import Gcp
from publisher.conformance import HastyClock
from publisher.disks import raw
from publisher.errors import Cancelled, ProviderError, VerifyError
from publisher.memory import Memory
from publisher.model import GIB, MIB, Audience, Disk, Extent, Image, Spec
from publisher.task import Cancellation, Task
from tests.unit.gcp_cloud import Cloud, cloud


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    path = tmp_path_factory.mktemp("source") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(GIB)
        file.write(random.Random(7).randbytes(MIB))
    return Disk(path, GIB, "ef" * 32, (Extent(0, MIB),))


@pytest.fixture
def gce(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path / "cloud") as running:
        yield running


def provider(**given: object) -> Gcp:
    return Gcp(GcpOptions(**{**Gcp.sandbox_options(), **given}))


def task(where: Path, cancellation: Cancellation | None = None) -> Task:
    return Task("gcp.test", Memory(where), clock=HastyClock(), cancellation=cancellation, run="r")


def publish(disk: Disk, where: Path, **given: object) -> Image:
    spec = Spec("web", "1", size=disk.size, digest=disk.sha256, run="r")
    gcp = provider(**given)
    return gcp.register(gcp.upload(disk, spec, task(where)), spec, task(where))


def test_nothing_stays_when_the_bytes_differ(gce: Cloud, source: Disk, tmp_path: Path) -> None:
    image = publish(source, tmp_path)
    gce.sandbox.corrupt(image.ref, 77)
    with pytest.raises(VerifyError, match="byte 77"):
        provider().verify(image, source, task(tmp_path / "verify"))
    assert list(gce.sandbox.resources()) == ["image/web-1"]


def test_zeros_where_the_disk_has_data_are_a_difference(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    image = publish(source, tmp_path)
    other = tmp_path / "other.raw"
    with raw.Reader(source) as reader, other.open("wb") as file:
        file.write(reader.read(0, MIB))
        file.truncate(GIB)
        file.seek(9 * MIB)
        file.write(b"x")
    disk = Disk(other, GIB, source.sha256, (Extent(0, MIB), Extent(9 * MIB, 4096)))
    with pytest.raises(VerifyError, match=f"byte {9 * MIB}"):
        provider().verify(image, disk, task(tmp_path / "verify"))


def test_verify_may_be_told_not_to_read(gce: Cloud, source: Disk, tmp_path: Path) -> None:
    image = publish(source, tmp_path)
    gce.sandbox.faults.requests.clear()
    gce.sandbox.corrupt(image.ref, 77)
    provider(verify="attributes").verify(image, source, task(tmp_path / "verify"))
    assert not [line for line in gce.sandbox.faults.requests if "instances" in line]


@pytest.mark.parametrize(
    "details", [{"architecture": "ARM64"}, {"family": "x"}, {"guest_os_features": "IDPF"}]
)
def test_attributes_are_compared(
    gce: Cloud, source: Disk, tmp_path: Path, details: dict[str, str]
) -> None:
    image = publish(source, tmp_path)
    wrong = dataclasses.replace(image, details={**image.details, **details})
    with pytest.raises(VerifyError, match=next(iter(details))):
        provider(verify="attributes").verify(wrong, source, task(tmp_path / "verify"))
    bigger = Disk(source.path, 2 * GIB, source.sha256, source.extents)
    with pytest.raises(VerifyError, match="1 GiB instead of 2"):
        provider().verify(image, bigger, task(tmp_path / "verify"))


def test_a_worker_that_fails_says_why_and_leaves_nothing(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    image = publish(source, tmp_path)
    path = next((tmp_path / "cloud" / "bytes").glob("image-*"))
    with path.open("r+b") as file:
        file.truncate(GIB - 4096)
    with pytest.raises(ProviderError, match="has 1073737728 bytes instead of 1073741824"):
        provider().verify(image, source, task(tmp_path / "verify"))
    assert list(gce.sandbox.resources()) == ["image/web-1"]


def test_a_cancelled_reading_asks_for_the_removal_of_its_machine(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    image = publish(source, tmp_path)
    cancellation = Cancellation()
    gce.sandbox.faults.add("stall", r"POST .*/attachDisk", fired=cancellation.cancel)
    with pytest.raises(Cancelled):
        provider().verify(image, source, task(tmp_path / "verify", cancellation))
    while any(r.startswith(("instance/", "disk/")) for r in gce.sandbox.resources()):
        time.sleep(0.02)
    provider().verify(image, source, task(tmp_path / "verify"))
    assert list(gce.sandbox.resources()) == ["image/web-1"]


def test_an_image_that_is_not_ours_can_be_described_and_read(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    publish(source, tmp_path)
    document = gce.images("GET", "/web-1").json()
    body = {"labels": {}, "labelFingerprint": document["labelFingerprint"]}
    gce.finish(gce.images("POST", "/web-1/setLabels", json=body))
    gcp = provider()
    spec = gcp.describe("sandbox-project/web-1", task(tmp_path))
    assert (spec.name, spec.version, spec.size, spec.digest) == ("web-1", "", GIB, "")
    disk = gcp.download("sandbox-project/web-1", tmp_path / "back.raw", task(tmp_path / "d"))
    with raw.Reader(disk) as back, raw.Reader(source) as sent:
        assert back.read(0, 2 * MIB) == sent.read(0, 2 * MIB)
    with pytest.raises(ProviderError, match="no image"):
        gcp.describe("sandbox-project/none", task(tmp_path))
    for wrong in ("web-1", "a/b/c", "/x"):
        with pytest.raises(ProviderError, match="no reference"):
            gcp.describe(wrong, task(tmp_path))


def test_accounts_are_principals(gce: Cloud, source: Disk, tmp_path: Path) -> None:
    image = publish(source, tmp_path)
    with pytest.raises(ProviderError, match="no principal") as caught:
        provider().release(image, Audience("shared", ("alice@example.com",)), task(tmp_path))
    assert caught.value.key == "release.accounts"


def test_other_roles_in_the_policy_stay(gce: Cloud, source: Disk, tmp_path: Path) -> None:
    image = publish(source, tmp_path)
    other = {"role": "roles/compute.viewer", "members": ["user:bob@example.com"]}
    gce.images("POST", "/web-1/setIamPolicy", json={"policy": {"bindings": [other]}})
    gcp = provider()
    gcp.release(image, Audience("public"), task(tmp_path))
    gcp.withdraw(image, task(tmp_path))
    policy = gce.images("GET", "/web-1/getIamPolicy").json()
    assert policy["bindings"] == [other]


def test_an_image_made_again_after_its_deletion_gets_a_new_request(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    """The first requestId belongs to an operation that is over."""
    first = publish(source, tmp_path / "one")
    provider().delete(first, task(tmp_path))
    assert list(gce.sandbox.resources()) == []
    second = publish(source, tmp_path / "two")
    assert second.details["id"] != first.details["id"]


def test_no_session_address_is_kept(gce: Cloud, source: Disk, tmp_path: Path) -> None:
    image = publish(source, tmp_path / "memory")
    provider().verify(image, source, task(tmp_path / "memory"))
    for file in (tmp_path / "memory").rglob("*"):
        if file.is_file():
            assert "upload" not in file.read_text()
    assert json.dumps(image.to_json()).find("upload_id") < 0


def test_a_download_cut_off_while_removing_its_machine_removes_it_later(
    gce: Cloud, source: Disk, tmp_path: Path
) -> None:
    """Every segment is written by then, so nothing but the removal is left to do."""
    image = publish(source, tmp_path)
    cancellation = Cancellation()
    where, into = tmp_path / "memory", tmp_path / "back.raw"
    pattern = r"DELETE .*segment-"
    gce.sandbox.faults.add("drop", pattern, times=10**6, fired=cancellation.cancel)
    gce.sandbox.faults.add("drop", r"DELETE .*/instances/", skip=1, times=10**6)
    first = task(where, cancellation)
    with pytest.raises(Cancelled):
        provider().download(image.ref, into, first)
    first.memory.close()
    gce.sandbox.faults.clear()
    assert any(r.startswith("instance/") for r in gce.sandbox.resources())
    gce.sandbox.faults.requests.clear()
    disk = provider().download(image.ref, into, task(where))
    assert not [line for line in gce.sandbox.faults.requests if "POST" in line]
    assert list(gce.sandbox.resources()) == ["image/web-1"]
    with raw.Reader(disk) as back, raw.Reader(source) as sent:
        assert back.read(0, 2 * MIB) == sent.read(0, 2 * MIB)
