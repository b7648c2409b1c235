"""Options, references, what fsspec is asked for, and what its errors mean."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from providers.files.api import classify, open_place
from providers.files.options import FilesOptions, name_fault, split
from providers.files.provider import Files
from publisher.disks import raw
from publisher.errors import (
    CredentialsError,
    HostError,
    ProviderError,
    QuotaError,
    UnreachableError,
    UsageError,
)
from publisher.model import Audience, Query, Severity, Spec
from tests.unit.files_world import World, small_disk


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("/srv/images/", "/srv/images"),
        ("file:///srv/images", "/srv/images"),
        ("s3://bucket/images/", "s3://bucket/images"),
        ("sftp://user@host/srv", "sftp://user@host/srv"),
    ],
)
def test_places_have_one_spelling(url: str, kept: str) -> None:
    options = FilesOptions(url=url)
    assert options.locations() == (kept,)
    assert FilesOptions.model_validate(FilesOptions.from_target(url)).url == kept


def test_a_relative_directory_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert FilesOptions(url="images").url == str(tmp_path / "images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://user:secret@host/x"}, "must not hold a password"),
        ({"url": ""}, "at least 1 character"),
        ({"url": "/srv", "formats": ["qcow2", "qcow2"]}, "named twice"),
        ({"url": "/srv", "formats": []}, "at least 1 item"),
        ({"url": "/srv", "formats": ["qed"]}, "qcow2"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        FilesOptions(**options)
    assert "secret@" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("reference", "place", "name"),
    [
        ("/srv/images/web-1", "/srv/images", "web-1"),
        ("s3://bucket/a/web-1", "s3://bucket/a", "web-1"),
        ("/web-1", "/", "web-1"),
    ],
)
def test_a_reference_is_a_place_and_a_name(reference: str, place: str, name: str) -> None:
    assert split(reference) == (place, name)


@pytest.mark.parametrize("reference", ["web", "", "s3://bucket"])
def test_a_reference_without_a_place_is_refused(reference: str) -> None:
    with pytest.raises(UsageError) as caught:
        split(reference)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["streams", ".hidden", "a/b", "", "a b", "x" * 129])
def test_names_that_cannot_be_served_are_refused(name: str) -> None:
    assert name_fault(name)
    template = name.replace("{", "").replace("}", "")
    findings = Files(FilesOptions(url="/srv", name=template)).validate(Spec("web", "1.0.0"))
    assert [f.severity for f in findings] == [Severity.ERROR]


def test_a_disk_that_is_too_large_for_a_format_is_found_offline() -> None:
    options = FilesOptions(url="/srv", formats=("qcow2", "vhd"))
    (finding,) = Files(options).validate(Spec("web", "1.0.0", size=3 * 2**40))
    assert (finding.key, finding.severity) == ("formats[1]", Severity.ERROR)


class Status(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (PermissionError(errno.EACCES, "no"), CredentialsError, False),
        (Status(403), CredentialsError, False),
        (OSError(errno.ENOSPC, "full"), QuotaError, False),
        (OSError(errno.EDQUOT, "full"), QuotaError, False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), UnreachableError, True),
        (type("EndpointConnectionError", (Exception,), {})("no"), UnreachableError, True),
        (type("NoCredentialsError", (Exception,), {})("none"), CredentialsError, False),
        (ConnectionResetError(errno.ECONNRESET, "gone"), ProviderError, True),
        (TimeoutError(), ProviderError, True),
        (OSError(errno.EIO, "io"), ProviderError, True),
        (Status(429), ProviderError, True),
        (Status(503), ProviderError, True),
        (Status(400), ProviderError, False),
        (RuntimeError("what"), ProviderError, False),
    ],
)
def test_errors_are_told_apart(
    error: Exception, kind: type[ProviderError], transient: bool
) -> None:
    found = classify(error, "s3://bucket")
    assert type(found) is kind
    assert found.transient is transient
    assert "s3://bucket" in found.message
    assert found.hint


def test_a_protocol_without_its_package_says_so(tmp_path: Path) -> None:
    world = World("nosuch://host/x", tmp_path)
    with pytest.raises(HostError, match="nosuch") as caught:
        world.provider().find(Query(), world.task())
    assert caught.value.hint


def test_the_endpoint_takes_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sandbox no real directory or bucket is touched."""
    monkeypatch.setenv("PUBLISH_FILES_ENDPOINT", str(tmp_path / "end"))
    world = World("s3://bucket/images", tmp_path, formats=("raw",))
    image = world.register(small_disk(tmp_path / "disk.raw"))
    assert image.ref == "s3://bucket/images/web-1.0.0-x86_64"
    assert (tmp_path / "end/s3/bucket/images/.publish/images").is_dir()
    monkeypatch.setenv("PUBLISH_FILES_ENDPOINT", "nonsense")
    with pytest.raises(UsageError, match="nonsense"):
        open_place("/srv", world.task())


def test_a_store_of_fsspecs_own_holds_a_release(tmp_path: Path) -> None:
    """`memory://` is fsspec's, so nothing here knows our stand-in."""
    import fsspec

    world = World("memory://place/images", tmp_path, formats=("qcow2", "raw"))
    disk = small_disk(tmp_path / "disk.raw")
    image = world.register(disk)
    assert not list(tmp_path.glob(".*.export")), "what was converted is not kept"
    world.provider().verify(image, disk, world.task())
    world.release(image)
    memory = fsspec.filesystem("memory")
    names = {Path(name).name for name in memory.ls("/place/images/web-1.0.0-x86_64", detail=False)}
    stem = "web-1.0.0-x86_64"
    assert names == {"SHA256SUMS", f"{stem}.qcow2", f"{stem}.raw"}
    (found,) = world.provider().find(Query(name="web"), world.task())
    assert found.audience == Audience("public")
    back = world.provider().download(image.ref, tmp_path / "back.raw", world.task())
    assert back.sha256 == disk.sha256
    world.provider().delete(image, world.task())
    left = [name for name in memory.find("/place/images") if "/streams/" not in name]
    assert left == []


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    disk = small_disk(tmp_path / "disk.raw", size=9 * 2**20)
    memory.pipe_file("/cut/disk.raw", disk.path.read_bytes())
    world = World("memory://cut", tmp_path)
    into = tmp_path / "back.raw"
    begun = tmp_path / "back.raw.disk.raw.fetched"
    begun.write_bytes(b"!" + disk.path.read_bytes()[1 : 2**20])
    back = world.provider().download("memory://cut/disk.raw", into, world.task())
    content = into.read_bytes()
    assert content[:1] == b"!", "the part that was there is kept"
    assert content[1:] == disk.path.read_bytes()[1:]
    assert back.sha256 == raw.inspect(into).sha256
    assert not begun.exists()
    assert into.stat().st_blocks * 512 < 2**20 * 3
