"""What the worker sends of a disk, and how it is unpacked."""

from __future__ import annotations

import io
import os
import random
import zlib
from pathlib import Path

import pytest

from providers.gcp import worker
from providers.gcp.segments import records
from publisher.errors import ProviderError
from publisher.model import MIB


def collected(monkeypatch: pytest.MonkeyPatch, path: Path, start: int, stop: int) -> bytes:
    """What the worker would send of [start, stop) of a disk."""
    out = io.BytesIO()

    class Recorder:
        def __init__(self, url: str) -> None:
            assert url == "u"

        def write(self, data: bytes) -> None:
            out.write(data)

        def close(self) -> None:
            pass

    monkeypatch.setattr(worker, "Session", Recorder)
    worker.send_segment(str(path), {"url": "u", "offset": start, "stop": stop})
    return out.getvalue()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    noise = random.Random(5)
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        for offset, length in ((0, 100), (3 * MIB + 5, MIB), (8 * MIB - 9, 9)):
            file.seek(offset)
            file.write(noise.randbytes(length))
        file.seek(6 * MIB)
        file.write(bytes(MIB))
    return path


@pytest.mark.parametrize("sparse", [True, False], ids=["file", "block device"])
def test_a_segment_holds_the_bytes_without_the_zeros(
    monkeypatch: pytest.MonkeyPatch, disk: Path, sparse: bool
) -> None:
    if not sparse:
        monkeypatch.setattr(os, "SEEK_DATA", 99)
    whole = disk.read_bytes()
    back = bytearray(8 * MIB)
    stored = 0
    for start in range(0, 8 * MIB, 2 * MIB):
        sent = collected(monkeypatch, disk, start, start + 2 * MIB)
        for offset, data in records([sent[:1000], sent[1000:]]):
            assert start <= offset < start + 2 * MIB
            back[offset : offset + len(data)] = data
            stored += len(data)
    assert bytes(back) == whole
    assert stored < 2 * MIB


def test_a_damaged_segment_is_noticed(monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
    sent = collected(monkeypatch, disk, 0, 8 * MIB)
    plain = bytearray(zlib.decompress(sent, 31))
    plain[50] ^= 1
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    flipped = packer.compress(bytes(plain)) + packer.flush()
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    short = packer.compress(bytes(plain[:-44])) + packer.flush()
    for bad in (flipped, short, sent[: len(sent) // 2], b"", b"no gzip"):
        with pytest.raises(ProviderError, match="damaged") as caught:
            list(records([bad]))
        assert caught.value.transient


def test_the_worker_needs_old_python_and_its_library_only() -> None:
    import ast
    import sys

    text = Path(worker.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 9))
    used = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in used} <= set(sys.stdlib_module_names)
    assert text.startswith("#!/usr/bin/env python3\n")
    assert len(text) < 64 * 1024
