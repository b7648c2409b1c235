"""Signatures: made with gpg, checked by gpg, and read back by verify."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.errors import CredentialsError, HostError, VerifyError
from publisher.model import Disk, Severity
from tests.unit.files_world import World, small_disk

KEY = "images@example.org"


@pytest.fixture(scope="module")
def keyring() -> Iterator[Path]:
    """A short path: gpg-agent's socket has room for 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    for name in (KEY, "other@example.org"):
        subprocess.run(
            [*gpg, "--quick-generate-key", name, "ed25519", "sign"],
            check=True,
            capture_output=True,
        )
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return small_disk(tmp_path / "disk.raw")


@pytest.fixture
def world(tmp_path: Path, keyring: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GNUPGHOME", str(keyring))
    return World(str(tmp_path / "images"), tmp_path, formats=("raw",), signing_key=KEY)


def test_sums_and_index_are_signed_as_distributions_do(world: World, disk: Disk) -> None:
    image = world.register(disk)
    world.provider().verify(image, disk, world.task())
    world.release(image)
    home = world.root / "web-1.0.0-x86_64"
    subprocess.run(
        ["gpg", "--batch", "--verify", "SHA256SUMS.gpg", "SHA256SUMS"],
        cwd=home,
        check=True,
        capture_output=True,
    )
    for name in ("index", "images"):
        signed = world.root / "streams/v1" / f"{name}.sjson"
        text = subprocess.run(
            ["gpg", "--batch", "--quiet", "--decrypt", str(signed)],
            check=True,
            capture_output=True,
        ).stdout
        assert text == (world.root / "streams/v1" / f"{name}.json").read_bytes()


def test_verify_demands_the_signature_of_the_key(world: World, disk: Disk, keyring: Path) -> None:
    image = world.register(disk)
    home = next((world.root / ".publish/private").iterdir())
    signature = home / "SHA256SUMS.gpg"
    subprocess.run(
        [
            *("gpg", "--batch", "--yes", "--armor", "--local-user", "other@example.org"),
            *("--detach-sign", "--output", str(signature), str(home / "SHA256SUMS")),
        ],
        check=True,
        capture_output=True,
    )
    with pytest.raises(VerifyError, match="signature"):
        world.provider().verify(image, disk, world.task())
    signature.unlink()
    with pytest.raises(VerifyError, match="not signed"):
        world.provider().verify(image, disk, world.task())


@pytest.mark.parametrize("key", ["nobody@example.org", "example.org"])
def test_a_key_that_is_missing_or_ambiguous_is_found_before_the_build(
    world: World, disk: Disk, key: str
) -> None:
    options = world.options.model_copy(update={"signing_key": key})
    provider = type(world.provider())(options)
    (finding,) = provider.check(world.spec(disk), options.locations(), world.task())
    assert (finding.severity, finding.key) == (Severity.ERROR, "signing_key")
    upload = provider.upload(disk, world.spec(disk), world.task())
    with pytest.raises(CredentialsError):
        provider.register(upload, world.spec(disk), world.task())


def test_without_gpg_the_package_is_named(
    world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError) as caught:
        world.provider().check(world.spec(disk), world.options.locations(), world.task())
    assert caught.value.hint == "apt install gpg"


def test_an_index_signed_before_loses_no_signature(world: World, disk: Disk) -> None:
    world.release(world.register(disk))
    signed = world.root / "streams/v1/images.sjson"
    before = signed.read_bytes()
    unsigned = World(str(world.root), world.scratch, formats=("raw",))
    unsigned.release(unsigned.register(disk))
    assert signed.read_bytes() == before, "nothing changed, so the signature still holds"
    unsigned.release(unsigned.register(disk, name="db"))
    assert not signed.exists(), "a signature of an old text would mislead"
