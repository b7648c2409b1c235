"""Digests of local files: read once, but never believed of a file that may have changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
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


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory; `another_process` forgets what only this one knows."""
    monkeypatch.setattr("publisher.digests.LARGE", 3)
    later(monkeypatch, 10)
    (tmp_path / "state").mkdir()
    digests.keep(tmp_path / "state")
    yield tmp_path / "state"
    monkeypatch.setattr("publisher.digests._kept", None)


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.digests._known", {})


def test_a_large_file_is_not_read_again_by_the_next_process(
    state: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = tmp_path / "disk", tmp_path / "script"
    large.write_text("one")
    small.write_text("1")
    for _ in range(2):
        another_process(monkeypatch)
        assert digests.sha256(large) == sha256("one")
        assert digests.sha256(small) == sha256("1")
    assert reads == [str(large), str(small), str(small)]
    time.sleep(0.05)
    large.write_text("two")
    another_process(monkeypatch)
    assert digests.sha256(large) == sha256("two")
    assert not list(state.glob("*.partial"))


@pytest.mark.parametrize("found", ["", "[]", '{"a": 1}', '{"a": "00"}', '{"a": "no digest"}'])
def test_what_it_remembers_may_be_damaged(
    found: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "digests.json").write_text(found)
    file = tmp_path / "disk"
    file.write_text("one")
    for _ in range(2):
        another_process(monkeypatch)
        assert digests.sha256(file) == sha256("one")


def test_it_remembers_so_many_and_the_last_ones(
    state: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.digests.MOST", 2)
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text(file.name * 3)
        digests.sha256(file)
    another_process(monkeypatch)
    reads.clear()
    for file in reversed(files):
        assert digests.sha256(file) == sha256(file.name * 3)
    assert reads == [str(files[0])]
    assert len(json.loads((state / "digests.json").read_text())) == 2
