"""A stand-in on a full disk keeps whole what it holds, and says that it took nothing."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from providers.aws.sandbox.store import Blocks
from providers.azure.sandbox.store import Blob
from publisher.emulation import write_whole

DATA = b"d" * 524_288


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on, the disk takes half of what is written."""
    write, pwrite = os.write, os.pwrite

    def fill() -> None:
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
        monkeypatch.setattr(
            os, "pwrite", lambda handle, data, at: pwrite(handle, data[: len(data) // 2], at)
        )

    return fill


def test_nothing_is_appended_by_halves(tmp_path: Path, fill: Callable[[], None]) -> None:
    file = tmp_path / "log"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write_whole(handle, b"first\n")
    fill()
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(handle, b"second\n")
    os.close(handle)
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == b"first\n"


def test_a_block_that_did_not_fit_is_not_in_the_snapshot(
    tmp_path: Path, fill: Callable[[], None]
) -> None:
    blocks = Blocks(tmp_path / "snap")
    checksum = hashlib.sha256(DATA).digest()
    blocks.put(0, DATA, checksum)
    fill()
    with pytest.raises(OSError, match="No space left"):
        blocks.put(1, DATA, checksum)
    assert blocks.listed() == [0]
    blocks.close()


def test_a_page_that_did_not_fit_is_not_in_the_blob(
    tmp_path: Path, fill: Callable[[], None]
) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(4096))
    (tmp_path / "disk.pages").touch()
    blob = Blob(tmp_path / "disk")
    fill()
    with pytest.raises(OSError, match="No space left"):
        blob.write(512, DATA[:512])
    assert blob.ranges() == []
    blob.close()
