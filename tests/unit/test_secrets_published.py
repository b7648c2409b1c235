"""The secret gate: what Debian publishes is no secret, what a package brings may be one."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher.errors import ProofError
from publisher.model import Severity
from publisher.proof.secrets import published, refuse
from publisher.proof.secrets.rules import RULES
from tests.unit.ext_disk import ext_disk
from tests.unit.secret_samples import checksummed, drawn, found, hashed, secrets, written

ROOT = Path(__file__).parents[2]
KEY = written(rsa.generate_private_key(65537, 1024))


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def packaged(content: bytes, installed: bytes) -> dict[str, str | bytes]:
    """A file that a package brought as `installed`, and a copy that it did not."""
    return {
        "/usr/lib/demo/test.pem": content,
        "/var/lib/dpkg/info/demo.md5sums": f"{md5(installed)}  usr/lib/demo/test.pem\n",
        "/usr/lib/demo/__pycache__/test.pyc": b"\0\0" + content,
    }


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """KEY and an account's hash are what Debian publishes, as the tool finds it in a package."""
    tree = tmp_path / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: d\n"
    )
    (tree / "DEBIAN/postinst").write_text(f"#!/bin/sh\necho '{ACCOUNT}'\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "test.pem").write_bytes(KEY)
    deb = tmp_path / "demo_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    monkeypatch.setattr(published, "FILE", tmp_path / "published.txt")
    tool = runpy.run_path(str(ROOT / "tools/published.py"))
    tool["main"](["--made-from", "a test", str(deb)])
    published._published.cache_clear()
    yield
    published._published.cache_clear()


ACCOUNT = f"joe:{hashed('6', 86)}:19000:0:99999:7:::"


@pytest.mark.usefixtures("listed")
def test_a_published_test_key_is_a_note_wherever_it_stands(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"/opt/copy.pem": KEY, "/opt/copy.pyc": b"\0\0" + KEY}
    [finding] = found(ext_disk(tmp_path, files), tmp_path)
    assert finding.severity is Severity.NOTE
    assert "private key (2 of them): published with Debian's package demo" in finding.evidence


@pytest.mark.usefixtures("listed")
def test_a_published_hash_is_no_excuse_for_an_account_that_has_it(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"/usr/share/doc/example": ACCOUNT, "/etc/shadow": ACCOUNT}
    findings = found(ext_disk(tmp_path, files), tmp_path)
    assert [(finding.severity, finding.path) for finding in findings] == [
        (Severity.ERROR, "/etc/shadow"),
        (Severity.NOTE, ""),
    ]


def test_a_password_is_published_with_its_login_alone() -> None:
    values = set()
    for host in ("a.example.org", "b.example.org"):
        window = f"https://me:qR7xYz9wKe@{host}/".encode()
        rule = next(rule for rule in RULES if rule.id == "url-password")
        verdict = rule.judge(b" " * 236 + window)
        assert verdict is not None
        values.add(verdict[2])
    assert len(values) == 2


def test_a_package_of_ones_own_excuses_nothing(tmp_path: Path) -> None:
    token = f"token={checksummed('ghp')}\n".encode()
    shadow = f"me:$2b$10${drawn(53)}\n".encode()
    files = {
        **packaged(KEY, KEY),
        "/etc/acme/agent.conf": token,
        "/opt/acme/htpasswd": shadow,
        "/root/copy": token,
        "/var/lib/dpkg/info/acme.md5sums": f"{md5(shadow)}  opt/acme/htpasswd\n",
        "/var/lib/dpkg/status": "Package: acme\nStatus: install ok installed\nConffiles:\n"
        f" /etc/acme/agent.conf {md5(token)}\n",
    }
    findings = found(ext_disk(tmp_path, files), tmp_path)
    by_path = {finding.path: finding for finding in findings}
    assert {finding.severity for finding in findings} == {Severity.ERROR}
    packages = {
        path: f.evidence.partition("; installed by package ")[2] for path, f in by_path.items()
    }
    assert packages == {
        "/usr/lib/demo/test.pem": "demo",
        "/usr/lib/demo/__pycache__/test.pyc": "",
        "/etc/acme/agent.conf": "acme",
        "/opt/acme/htpasswd": "acme",
        "/root/copy": "",
    }
    way_out = (
        'ignore = [{ rule = "secrets.private-key", path = "/usr/lib/demo/test.pem", reason = "…" }]'
    )
    assert way_out in by_path["/usr/lib/demo/test.pem"].fix
    with pytest.raises(ProofError):
        refuse(findings, public=True)


def test_a_changed_file_is_not_said_to_be_the_packages(tmp_path: Path) -> None:
    findings = secrets(found(ext_disk(tmp_path, packaged(KEY, b"what it was")), tmp_path))
    assert len(findings) == 2
    assert not any("installed by" in finding.evidence for finding in findings)


def test_what_debian_publishes_is_listed_and_most_of_it_once() -> None:
    lines = published.FILE.read_text().splitlines()
    values = [line for line in lines if line.startswith(" ")]
    assert len(set(values)) == len(values) > 500
    assert {"openssl", "cloud-init", "openssh-server"} < set(lines)
    assert any("tools/published.py" in line for line in lines if line.startswith("#"))
    assert published.FILE.stat().st_size < 200_000
