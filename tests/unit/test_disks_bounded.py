"""What qemu-img may take while it looks at a file that somebody else has made."""

from __future__ import annotations

import os
import shutil
import struct
import time
from pathlib import Path

import pytest

from publisher.disks import bounded, foreign
from publisher.errors import Cancelled, PublishError
from publisher.model import MIB


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qemu-img whose script the test writes."""
    path = tmp_path / "bin" / "qemu-img"
    path.parent.mkdir()
    path.touch(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def nothing() -> None:
    pass


def test_it_may_take_so_much_memory_and_processor_time(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nulimit -v\nulimit -t\n")
    assert bounded.qemu_img(check=nothing).out.split() == ["2097152", "120"]
    assert bounded.qemu_img(check=nothing, endless=True).out.split() == ["2097152", "unlimited"]


def test_what_it_says_is_not_kept_without_end(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nyes damaged >&2\n")
    answer = bounded.qemu_img("check", check=nothing)
    assert len(answer.err) < 2 * MIB
    assert answer.complaint == "qemu-img said more than 1 MiB about it"


def test_it_may_not_take_for_ever(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_SECONDS", 0.1)
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    answer = bounded.qemu_img("info", check=nothing)
    assert time.monotonic() - started < 10
    assert "took longer than" in answer.complaint


def test_a_cancelled_task_ends_it(fake: Path) -> None:
    def cancelled() -> None:
        raise Cancelled()

    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    with pytest.raises(Cancelled):
        bounded.qemu_img("info", check=cancelled)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (r"printf '\n  first \377\nsecond\n' >&2; exit 1", "first �"),
        ("kill -ABRT $$", "qemu-img was ended by signal 6"),
        ("echo ' '; exit 1", "no details"),
    ],
)
def test_a_failure_has_one_line(fake: Path, tmp_path: Path, script: str, complaint: str) -> None:
    fake.write_text(f"#!/bin/sh\n{script}\n")
    assert bounded.qemu_img("info", check=nothing).complaint.rstrip() == complaint
    (tmp_path / "disk").write_bytes(b"x")
    with pytest.raises(PublishError, match=r"cannot read .*disk: "):
        foreign.describe(tmp_path / "disk")


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")
def test_a_qcow2_whose_tables_are_one_is_damaged(tmp_path: Path) -> None:
    path, cluster, entries = tmp_path / "a.qcow2", 65536, 4096
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, entries << 29, 0, entries,
        3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    counts = struct.pack(">H", 1) * 6
    first = struct.pack(">Q", 1 << 63 | 4 * cluster) * entries
    second = struct.pack(">Q", 1 << 63 | 5 * cluster) * (cluster // 8)
    clusters = [head, struct.pack(">Q", 2 * cluster), counts, first, second, b""]
    path.write_bytes(b"".join(piece.ljust(cluster, b"\0") for piece in clusters))
    started = time.monotonic()
    with pytest.raises(PublishError, match="damaged or cut short: qemu-img said more than"):
        foreign.describe(path)
    assert time.monotonic() - started < 20
