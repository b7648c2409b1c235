"""Releases in a plain directory: what is there before, during and after."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from providers.files.api import Place
from providers.files.releases import UNLISTED
from publisher.disks import foreign, raw
from publisher.errors import ConflictError, CredentialsError, ProviderError, VerifyError
from publisher.model import Audience, Disk, Query, Severity
from tests.unit.files_world import World, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return small_disk(tmp_path / "disk.raw")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path / "images"), tmp_path, formats=("raw",))


def test_a_plain_directory_needs_no_fsspec(
    world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    world.release(world.register(disk))
    assert world.listed()


def test_a_private_image_stands_where_no_other_user_reads(world: World, disk: Disk) -> None:
    image = world.register(disk)
    assert image.ref == f"{world.root}/web-1.0.0-x86_64"
    assert [path.name for path in world.root.iterdir()] == [".publish"]
    assert stat.S_IMODE((world.root / ".publish").stat().st_mode) == 0o700


def test_a_release_can_be_checked_with_sha256sum(tmp_path: Path, disk: Disk) -> None:
    world = World(str(tmp_path / "images"), tmp_path, formats=("qcow2", "ova", "vhd-fixed"))
    world.release(world.register(disk))
    home = world.root / "web-1.0.0-x86_64"
    names = sorted(path.name for path in home.iterdir())
    stem = "web-1.0.0-x86_64"
    assert names == ["SHA256SUMS", f"{stem}.fixed.vhd", f"{stem}.ova", f"{stem}.qcow2"]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=home, check=True)
    for name in names[1:]:
        back = foreign.convert(home / name, tmp_path / "back.raw", world.task())
        assert raw.inspect(back).sha256 == disk.sha256
        assert stat.S_IMODE((home / name).stat().st_mode) & 0o044 == 0o044


def test_the_index_is_simplestreams(world: World, disk: Disk) -> None:
    world.release(world.register(disk))
    index = json.loads((world.root / "streams/v1/index.json").read_text())
    assert index["format"] == "index:1.0"
    (entry,) = index["index"].values()
    assert entry["datatype"] == "image-downloads"
    products = json.loads((world.root / entry["path"]).read_text())
    assert products["format"] == entry["format"] == "products:1.0"
    assert {products["content_id"]} == set(index["index"])
    assert sorted(products["products"]) == entry["products"] == ["local:web:amd64"]
    product = products["products"]["local:web:amd64"]
    assert product["arch"] == "amd64"
    item = product["versions"]["1.0.0"]["items"]["raw"]
    file = world.root / item["path"]
    assert file.stat().st_size == item["size"]
    assert item["sha256"] == disk.sha256
    assert item["ftype"] == "disk.raw"


def test_releases_of_one_directory_do_not_disturb_each_other(
    world: World, disk: Disk, tmp_path: Path
) -> None:
    other = small_disk(tmp_path / "other.raw", seed=2)
    first, second = world.register(disk), world.register(other, version="1.1.0")
    third = world.register(other, name="db")
    for image in (first, second, third):
        world.release(image)
    assert set(world.listed()["local:web:amd64"]["versions"]) == {"1.0.0", "1.1.0"}
    world.provider().withdraw(second, world.task())
    assert set(world.listed()["local:web:amd64"]["versions"]) == {"1.0.0"}
    world.provider().delete(first, world.task())
    assert list(world.listed()) == ["local:db:amd64"]
    found = world.provider().find(Query(), world.task())
    assert {(i.name, i.version, i.audience.kind) for i in found} == {
        ("db", "1.0.0", "public"),
        ("web", "1.1.0", "private"),
    }


def test_withdrawing_gives_the_state_before_the_release(world: World, disk: Disk) -> None:
    image = world.register(disk)
    before = world.tree()
    world.release(image)
    world.provider().withdraw(image, world.task())
    after = {k: v for k, v in world.tree().items() if not k.startswith("streams/")}
    assert after == before
    assert world.listed() == {}


def test_an_index_that_says_so_already_is_not_written_again(world: World, disk: Disk) -> None:
    image = world.register(disk)
    world.release(image)
    file = world.root / "streams/v1/images.json"
    before = file.stat().st_ino
    world.release(image)
    assert file.stat().st_ino == before


def test_an_image_that_is_half_open_is_neither_private_nor_public(world: World, disk: Disk) -> None:
    image = world.register(disk)
    world.release(image)
    (world.root / "streams/v1/images.json").unlink()
    (found,) = world.provider().find(Query(), world.task())
    assert found.audience == UNLISTED
    world.release(image)
    (found,) = world.provider().find(Query(), world.task())
    assert found.audience == Audience("public")


def test_two_publishers_at_once_are_both_listed(
    world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine marks and lists its image between our look and our write."""
    from providers.files import streams

    first, second = world.register(disk), world.register(disk, name="db")
    look = streams.__dict__["marked"]
    once = [lambda: world.release(second)]

    def marked(place: Place) -> frozenset[str]:
        seen: frozenset[str] = look(place)
        if once:
            once.pop()()
        return seen

    monkeypatch.setattr(streams, "marked", marked)
    world.release(first)
    assert set(world.listed()) == {"local:web:amd64", "local:db:amd64"}


def test_somebody_elses_directory_is_not_replaced(world: World, disk: Disk) -> None:
    image = world.register(disk)
    theirs = world.root / "web-1.0.0-x86_64"
    theirs.mkdir()
    (theirs / "precious").write_text("mine")
    with pytest.raises(ConflictError):
        world.release(image)
    assert (theirs / "precious").read_text() == "mine"
    assert not (world.root / "streams").exists()


def test_check_tells_of_another_disk_under_the_name(
    world: World, disk: Disk, tmp_path: Path
) -> None:
    world.register(disk)
    other = small_disk(tmp_path / "other.raw", seed=2)
    findings = world.provider().check(world.spec(other), world.options.locations(), world.task())
    (finding,) = findings
    assert (finding.severity, finding.key) == (Severity.ERROR, "name")
    assert not world.provider().check(world.spec(disk), world.options.locations(), world.task()), (
        "the same disk is no conflict"
    )


def test_a_directory_that_may_not_be_written_says_so(tmp_path: Path, disk: Disk) -> None:
    world = World("/proc/images", tmp_path)
    with pytest.raises((CredentialsError, ProviderError)) as caught:
        world.provider().check(world.spec(disk), world.options.locations(), world.task())
    assert "/proc/images" in caught.value.message


@pytest.mark.parametrize("what", ["disk", "SHA256SUMS", "record"])
def test_verify_reads_everything_back(world: World, disk: Disk, what: str) -> None:
    image = world.register(disk)
    world.provider().verify(image, disk, world.task())
    home = next((world.root / ".publish/private").iterdir())
    record = next((world.root / ".publish/images").iterdir())
    file = {"disk": home / "web-1.0.0-x86_64.raw", "SHA256SUMS": home / "SHA256SUMS"}.get(
        what, record
    )
    data = file.read_bytes()
    old = disk.sha256.encode() if what != "disk" else data[:8]
    assert old in data
    file.write_bytes(data.replace(old, old[:-1] + bytes([old[-1] ^ 1]), 1))
    with pytest.raises((VerifyError, ProviderError)):
        world.provider().verify(image, disk, world.task())


def test_verify_compares_converted_files_with_the_disk(tmp_path: Path, disk: Disk) -> None:
    """Digests alone would agree with a file that was wrong from the start."""
    world = World(str(tmp_path / "images"), tmp_path, formats=("qcow2",))
    image = world.register(disk)
    with disk.path.open("r+b") as file:
        file.write(b"other")
    with pytest.raises(VerifyError, match="differs"):
        world.provider().verify(image, disk, world.task())


def test_any_disk_file_of_a_directory_can_be_migrated(
    world: World, disk: Disk, tmp_path: Path
) -> None:
    subprocess.run(
        ["qemu-img", "convert", "-O", "vmdk", disk.path, tmp_path / "theirs.vmdk"], check=True
    )
    reference = str(tmp_path / "theirs.vmdk")
    assert world.options.from_reference(reference, {}) == {"url": str(tmp_path)}
    theirs = World(str(tmp_path / "elsewhere"), tmp_path)
    spec = theirs.provider().describe(reference, theirs.task())
    assert (spec.name, spec.size) == ("theirs", 0)
    back = theirs.provider().download(reference, tmp_path / "back.raw", theirs.task())
    assert back.sha256 == disk.sha256
    with pytest.raises(ProviderError, match="is not there"):
        theirs.provider().describe(str(tmp_path / "none.vmdk"), theirs.task())


def test_our_own_images_are_described_as_they_were_published(world: World, disk: Disk) -> None:
    image = world.register(disk)
    spec = world.provider().describe(image.ref, world.task())
    assert (spec.name, spec.version, spec.size, spec.digest) == (
        "web",
        "1.0.0",
        disk.size,
        disk.sha256,
    )


def test_old_scratch_files_are_swept_by_check(world: World, disk: Disk) -> None:
    scratch = world.root / ".publish/tmp"
    scratch.mkdir(parents=True)
    old, young = scratch / "1-old", scratch / "2-young"
    for file, age in ((old, 2 * 86400), (young, 60)):
        file.touch()
        os.utime(file, (1_700_000_000 - age,) * 2)
    world.provider().check(world.spec(disk), world.options.locations(), world.task())
    assert (old.exists(), young.exists()) == (False, True)
