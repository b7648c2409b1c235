"""Lists of digests and the OpenPGP signatures that vouch for them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.build import sources
from publisher.errors import BuildError, HostError
from publisher.fetch import Digest, SignedSums, fetch
from publisher.fetch.openpgp import dearmor
from publisher.fetch.sums import lookup
from publisher.recipe import Recipe
from publisher.task import detached
from publisher.vm import host
from tests.unit.file_server import Files, serve

DISK = b"a disk" * 1000
SHA256 = hashlib.sha256(DISK).hexdigest()
SHA512 = hashlib.sha512(DISK).hexdigest()

needs_gpg = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("gpgv")), reason="gpg or gpgv is missing"
)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"{SHA256}  disk.img", SHA256),
        (f"{SHA256} *disk.img", SHA256),
        (f"{SHA256.upper()}  ./images/disk.img", SHA256),
        (f"{SHA512}  disk.img\r", SHA512),
        (f"SHA256 (disk.img) = {SHA256}", SHA256),
        (f"SHA512 (disk.img) = {SHA512}", SHA512),
        (f"{SHA256}  disk.img\n{SHA512}  disk.img", SHA512),
    ],
)
def test_lists_of_every_style_are_read(line: str, value: str) -> None:
    text = f"# disk.img: 6000 bytes\n{'0' * 64}  other.img\n{line}\n"
    assert lookup(text, "disk.img", "SUMS").value == value


def test_a_list_must_name_the_file_once() -> None:
    with pytest.raises(BuildError, match=r"no sha256 or sha512 digest for disk\.img") as caught:
        lookup(f"{SHA256}  xdisk.img\n{'0' * 32}  disk.img\n", "disk.img", "SUMS")
    assert "it lists xdisk.img" in caught.value.hint
    with pytest.raises(BuildError, match="several sha256 digests"):
        lookup(f"{SHA256}  a/disk.img\n{'0' * 64}  b/disk.img\n", "disk.img", "SUMS")


def test_a_digest_tells_its_algorithm() -> None:
    assert Digest.parse(SHA512.upper()) == Digest("sha512", SHA512)
    with pytest.raises(ValueError, match="neither"):
        Digest.parse("abc")


Gpg = Callable[..., bytes]


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    """gpg with the keys good@x, other@x and old@x (expired) in a home of its own."""
    # not tmp_path: the agent's socket needs a short path
    home = tempfile.mkdtemp(prefix="gpg-")

    def run(*arguments: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", home, "--batch", "--quiet", "--no-tty", *arguments]
        return subprocess.run(argv, input=data, check=True, capture_output=True).stdout

    unlocked = ("--passphrase", "", "--pinentry-mode", "loopback", "--quick-gen-key")
    for name in ("good@x", "other@x"):
        run(*unlocked, name, "ed25519", "sign", "never")
    run("--faked-system-time", "20200101T000000", *unlocked, "old@x", "ed25519", "sign", "1d")
    try:
        yield run
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)


class Mirror:
    def __init__(self, files: Files, directory: Path, gpg: Gpg) -> None:
        self.files = files
        self.directory = directory
        self.gpg = gpg
        self.sums = f"{'0' * 64}  other.img\n{SHA256}  disk.img\n".encode()
        files.contents["/disk.img"] = DISK

    def sign(self, user: str, *how: str, data: bytes | None = None) -> bytes:
        return self.gpg("-u", user, *how, data=self.sums if data is None else data)

    def key(self, *users: str, armor: bool = True) -> Path:
        path = self.directory / "key"
        path.write_bytes(self.gpg("--export", *(["--armor"] if armor else []), *users))
        return path

    def fetch(self, sums: bytes, signature: bytes | None, key: Path) -> bytes:
        self.files.contents["/SHA256SUMS"] = sums
        if signature is not None:
            self.files.contents["/SHA256SUMS.sig"] = signature
        trust = SignedSums(
            f"{self.files.url}/SHA256SUMS",
            f"{self.files.url}/SHA256SUMS.sig" if signature is not None else None,
            key,
        )
        fetched = fetch(
            f"{self.files.url}/disk.img",
            trust=trust,
            directory=self.directory,
            cache=self.directory / "cache",
            task=detached(self.directory / "memory"),
            key="build.source.disk",
        )
        return fetched.path.read_bytes()


@pytest.fixture
def mirror(tmp_path: Path, gpg: Gpg) -> Iterator[Mirror]:
    with serve(Files()) as files:
        yield Mirror(files, tmp_path, gpg)


@needs_gpg
@pytest.mark.parametrize("armor", [True, False])
def test_a_detached_signature_vouches_for_the_list(mirror: Mirror, armor: bool) -> None:
    how = ["--detach-sign", *(["--armor"] if armor else [])]
    key = mirror.key("good@x", armor=armor)
    assert mirror.fetch(mirror.sums, mirror.sign("good@x", *how), key) == DISK


@needs_gpg
@pytest.mark.parametrize("how", ["--clear-sign", "--sign"])
def test_a_list_may_carry_its_signature_inside(mirror: Mirror, how: str) -> None:
    assert mirror.fetch(mirror.sign("good@x", how), None, mirror.key("good@x")) == DISK


@needs_gpg
def test_what_stands_outside_of_a_clear_signed_text_is_not_believed(mirror: Mirror) -> None:
    signed = mirror.sign("good@x", "--clear-sign", data=b"nothing here\n")
    with pytest.raises(BuildError):
        mirror.fetch(mirror.sums + signed + mirror.sums, None, mirror.key("good@x"))


@needs_gpg
def test_a_changed_list_is_refused(mirror: Mirror) -> None:
    signature = mirror.sign("good@x", "--detach-sign")
    changed = mirror.sums.replace(b"other", b"0ther")
    with pytest.raises(BuildError, match="does not belong to these bytes") as caught:
        mirror.fetch(changed, signature, mirror.key("good@x"))
    assert caught.value.key == "build.source.disk"
    assert not any(path == "/disk.img" for path, _ in mirror.files.requests)


@needs_gpg
def test_the_signature_of_another_key_is_refused(mirror: Mirror) -> None:
    signature = mirror.sign("other@x", "--detach-sign")
    with pytest.raises(BuildError, match="made with another key"):
        mirror.fetch(mirror.sums, signature, mirror.key("good@x"))


@needs_gpg
def test_one_good_signature_among_unknown_ones_is_enough(mirror: Mirror) -> None:
    both = mirror.sign("other@x", "-u", "good@x", "--detach-sign")
    assert mirror.fetch(mirror.sums, both, mirror.key("good@x")) == DISK


@needs_gpg
def test_an_expired_key_is_refused(mirror: Mirror) -> None:
    signature = mirror.sign("old@x", "--faked-system-time", "20200101T010000", "--detach-sign")
    with pytest.raises(BuildError, match="the key has expired"):
        mirror.fetch(mirror.sums, signature, mirror.key("old@x"))


@needs_gpg
def test_a_list_without_any_signature_is_refused(mirror: Mirror) -> None:
    for signature in (None, b"", b"<html>not found</html>"):
        with pytest.raises(BuildError, match="is not good: there is no OpenPGP signature in it"):
            mirror.fetch(mirror.sums, signature, mirror.key("good@x"))


@needs_gpg
def test_a_key_file_holds_public_keys(mirror: Mirror, tmp_path: Path) -> None:
    signature = mirror.sign("good@x", "--detach-sign")
    wrong = tmp_path / "wrong"
    wrong.write_text("good@x")
    with pytest.raises(BuildError, match="it holds no OpenPGP public key"):
        mirror.fetch(mirror.sums, signature, wrong)
    wrong.write_bytes(mirror.gpg("--armor", "--export-secret-keys", "good@x"))
    with pytest.raises(BuildError, match="export the public one"):
        mirror.fetch(mirror.sums, signature, wrong)
    with pytest.raises(BuildError, match="No such file"):
        mirror.fetch(mirror.sums, signature, tmp_path / "none")


@needs_gpg
def test_armored_keys_one_after_the_other_are_all_read(gpg: Gpg) -> None:
    users = ("good@x", "other@x")
    joined = b"".join(gpg("--export", "--armor", user) for user in users)
    assert dearmor(joined) == b"".join(gpg("--export", user) for user in users)


def test_a_missing_gpgv_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "which", lambda command: None)
    (tmp_path / "SUMS").write_text("x")
    with pytest.raises(HostError, match="gpgv is not installed"):
        fetch(
            "disk.img",
            trust=SignedSums("SUMS", "SUMS", tmp_path / "key"),
            directory=tmp_path,
            cache=tmp_path,
            task=detached(tmp_path / "memory"),
        )


@needs_gpg
def test_a_build_is_keyed_by_what_the_list_says_now_without_a_download(mirror: Mirror) -> None:
    mirror.key("good@x")
    task = detached(mirror.directory / "memory")
    source = {
        "file": f"{mirror.files.url}/disk.img",
        "sums": f"{mirror.files.url}/SHA256SUMS",
        "key": "key",
    }
    disk = Recipe.model_validate({"source": {"disk": source}, "size": "2GiB"})
    iso = {"source": {"installer": {"iso": source}}, "size": "2GiB"}
    for digest in (SHA256, "f" * 64):
        listed = f"{digest}  disk.img\n".encode()
        mirror.files.contents["/SHA256SUMS"] = mirror.sign("good@x", "--clear-sign", data=listed)
        told = Digest("sha256", digest)
        assert sources.resolve(disk, mirror.directory, task) == {"file": told}
        found = sources.resolve(Recipe.model_validate(iso), mirror.directory, task)
        assert found == {"iso": told}
    assert all(path == "/SHA256SUMS" for path, _ in mirror.files.requests)
    mirror.files.contents["/SHA256SUMS"] = mirror.sign("other@x", "--clear-sign")
    with pytest.raises(BuildError, match="SHA256SUMS") as caught:
        sources.resolve(disk, mirror.directory, task)
    assert caught.value.key == "build.source.disk.sums"
