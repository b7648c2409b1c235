"""Digests of local files: read once, but never believed of a file that may have changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from publisher import digests

real_digest = hashlib.file_digest


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def read(file, name):  # type: ignore[no-untyped-def]
        seen.append(file.name)
        return real_digest(file, name)

    monkeypatch.setattr("publisher.digests.hashlib.file_digest", read)
    return seen


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr("publisher.digests.time.time", lambda: now + seconds)


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def test_a_file_is_read_once_while_nothing_writes_to_it(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "disk"
    file.write_text("one")
    later(monkeypatch, 10)
    assert [digests.sha256(file) for _ in range(3)] == [sha256("one")] * 3
    assert len(reads) == 1
    times = file.stat()
    time.sleep(0.05)  # the kernel's times advance in steps
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests.sha256(file) == sha256("two"), "whatever its mtime says"


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "disk"
    file.write_text("one")
    assert [digests.sha256(file) for _ in range(2)] == [sha256("one")] * 2
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "disk"
    file.write_text("one")
    later(monkeypatch, 10)

    def read(opened, name):  # type: ignore[no-untyped-def]
        digest = real_digest(opened, name)
        file.write_text("two!")
        return digest

    with monkeypatch.context() as patched:
        patched.setattr("publisher.digests.hashlib.file_digest", read)
        digests.sha256(file)
    assert digests.sha256(file) == sha256("two!")
