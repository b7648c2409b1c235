"""Debian's archives: of a past moment, and further ones with keys of their own."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from publisher.build import archives, debian
from publisher.errors import HostError, PipelineError
from publisher.recipe import Debian
from publisher.task import detached
from publisher.vm.arch import platform_of
from tests.unit.file_server import Files, serve

X86 = platform_of("x86_64")


def source(**options: object) -> Debian:
    return Debian.model_validate(options)


def repository(**options: object) -> Debian:
    given = {"url": "https://apt.example/x/", "suite": "stable", "key": "key", **options}
    return source(repositories=[given])


def test_a_snapshot_is_read_at_its_moment_although_it_is_out_of_date(tmp_path: Path) -> None:
    moment = "20261101T000000Z"
    with serve(Files()) as files:
        for suite in ("bookworm-updates", "bookworm-security"):
            kind = "debian-security" if suite.endswith("security") else "debian"
            files.contents[f"/archive/{kind}/{moment}/dists/{suite}/InRelease"] = b"x"
        wanted = source(snapshot=moment, mirror=files.url)
        base = f"deb [check-valid-until=no] {files.url}/archive"
        assert debian.sources(wanted, detached(tmp_path / "memory")) == [
            f"{base}/debian/{moment} bookworm main",
            f"{base}/debian/{moment} bookworm-updates main",
            f"{base}/debian-security/{moment} bookworm-security main",
        ]
    assert archives.official(source(snapshot=moment)).archive.startswith(archives.SNAPSHOTS)


def test_an_image_made_of_a_snapshot_is_updated_from_today(tmp_path: Path) -> None:
    archives.stage(source(snapshot="20261101T000000Z"), [], tmp_path)
    lines = (tmp_path / archives.SEALED).read_text().splitlines()
    assert lines == archives.live(source())
    assert [line.split()[2] for line in lines] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]
    assert len(archives.live(source(suite="sid"))) == 1


def test_another_moment_or_key_is_another_installation(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x99one")
    seen = set()
    for wanted in (
        source(),
        source(snapshot="20261101T000000Z"),
        repository(),
        repository(suite="testing"),
        repository(components=["main", "extra"]),
    ):
        seen.add(debian.key(wanted, [], X86, archives.digest(archives.further(wanted, tmp_path))))
    (tmp_path / "key").write_bytes(b"\x99two")
    wanted = repository()
    seen.add(debian.key(wanted, [], X86, archives.digest(archives.further(wanted, tmp_path))))
    assert len(seen) == 6


def test_further_archives_do_not_replace_debians_own(tmp_path: Path) -> None:
    assert debian.sources(repository(), detached(tmp_path / "memory")) == archives.live(source())


def test_a_key_that_is_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="key does not exist") as caught:
        archives.further(repository(), tmp_path)
    assert caught.value.key == "build.source.debian.repositories[0].key"
    (tmp_path / "key").write_text("<html>")
    with pytest.raises(PipelineError, match="holds no OpenPGP public key"):
        archives.further(repository(), tmp_path)


def test_the_image_trusts_a_key_for_its_own_archive_only(tmp_path: Path) -> None:
    packet = b"\x99" + bytes(30)
    armored = (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
        + base64.b64encode(packet)
        + b"\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    for data, name in ((packet, "further-0.gpg"), (armored, "further-0.asc")):
        (tmp_path / "key").write_bytes(data)
        ours = tmp_path / name
        found = archives.further(repository(), tmp_path)
        (line,) = archives.stage(repository(), found, ours)
        assert line == (
            f"deb [signed-by={ours}/etc/apt/keyrings/{name}] https://apt.example/x stable main"
        )
        assert (ours / "etc/apt/keyrings" / name).read_bytes() == data
        assert (ours / archives.FURTHER).read_text() == (
            f"deb [signed-by=/etc/apt/keyrings/{name}] https://apt.example/x stable main\n"
        )


def test_a_path_that_apt_would_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x99one")
    found = archives.further(repository(), tmp_path)
    with pytest.raises(HostError, match="a path with spaces"):
        archives.stage(repository(), found, tmp_path / "my state")


@pytest.fixture(scope="module")
def signed() -> Iterator[tuple[dict[str, bytes], bytes, bytes]]:
    """An archive with no packages: its files, its key in both forms."""
    packages = b""
    release = (
        "Suite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64 arm64\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
    )
    for arch in ("amd64", "arm64"):
        release += f" {hashlib.sha256(packages).hexdigest()} 0 main/binary-{arch}/Packages\n"
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        gpg += ["--pinentry-mode", "loopback"]
        subprocess.run([*gpg, "--quick-gen-key", "a@x", "ed25519", "sign", "never"], check=True)

        def run(*arguments: str, data: bytes = b"") -> bytes:
            argv = [*gpg, *arguments]
            return subprocess.run(argv, input=data, check=True, capture_output=True).stdout

        files = {
            "/x/dists/stable/InRelease": run("--clear-sign", data=release.encode()),
            "/x/dists/stable/main/binary-amd64/Packages": packages,
            "/x/dists/stable/main/binary-arm64/Packages": packages,
        }
        yield files, run("--export"), run("--export", "--armor")
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("gpg")), reason="apt-get or gpg is missing"
)
@pytest.mark.parametrize("form", [0, 1])
def test_apt_reads_a_further_archive_with_its_key(
    signed: tuple[dict[str, bytes], bytes, bytes], form: Literal[0, 1], tmp_path: Path
) -> None:
    contents = dict(signed[0])
    directory = tmp_path
    (directory / "key").write_bytes(signed[1:][form])
    with serve(Files(contents)) as files:
        wanted = repository(url=f"{files.url}/x")
        (line,) = archives.stage(wanted, archives.further(wanted, directory), directory / "ours")
        for name in ("lists/partial", "cache", "sources.d"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "sources.list").write_text(line + "\n")
        options = {
            "Dir::Etc::SourceList": tmp_path / "sources.list",
            "Dir::Etc::SourceParts": tmp_path / "sources.d",
            "Dir::Etc::Trusted": "/dev/null",
            "Dir::Etc::TrustedParts": tmp_path / "sources.d",
            "Dir::State::Lists": tmp_path / "lists",
            "Dir::Cache": tmp_path / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::http::Proxy": "DIRECT",
        }
        argv = ["apt-get", "-q", "update", *(f"-o{name}={v}" for name, v in options.items())]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "W:" not in done.stderr
    assert list((tmp_path / "lists").glob("*_InRelease"))
