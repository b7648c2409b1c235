"""The names in an initramfs, however it is packed and whoever made it."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import shutil
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from publisher.model import MIB
from publisher.proof.inspect import initramfs
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted
from tests.unit.lint_world import cpio

NAMES = ["usr", "usr/lib/modules/6.1/nvme.ko", "init"]


def tool(*argv: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        return subprocess.run(argv, input=data, capture_output=True, check=True).stdout

    return pack


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": tool("zstd", "-q", "-c"),
    "lz4": tool("lz4", "-q", "-l", "-c"),
}


def names(data: bytes, budget: Budget | None = None) -> list[str]:
    pieces = (data[at : at + 1000] for at in range(0, len(data), 1000))
    return list(initramfs.names(pieces, budget or Budget()))


@pytest.mark.parametrize("packing", PACKERS)
def test_an_initramfs_is_read_behind_early_microcode(packing: str) -> None:
    if packing in ("zstd", "lz4") and shutil.which(packing) is None:
        pytest.skip(f"{packing} is not installed")
    early = cpio(["kernel/x86/microcode/AuthenticAMD.bin"])
    data = early + bytes(512) + PACKERS[packing](cpio(NAMES) + bytes(256))
    assert names(data) == ["kernel/x86/microcode/AuthenticAMD.bin", *NAMES]


def test_one_that_is_cut_short_is_damaged() -> None:
    for pack in (bytes, gzip.compress, lzma.compress):
        data = pack(cpio(NAMES))
        with pytest.raises(Damaged, match="cut short"):
            names(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    "data",
    [b"#!/bin/sh\n", cpio(NAMES)[:54] + b"zzzzzzzz" + cpio(NAMES)[62:], b"070701" + b"f" * 200],
    ids=["no archive", "size", "length of a name"],
)
def test_what_is_no_initramfs_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        names(data)


def _bomb() -> Iterator[bytes]:
    """A gzip stream of endless zeros behind one name."""
    packer = zlib.compressobj(9, wbits=31)
    head = bytearray(cpio(["big"]))
    head[54:62] = b"ffffffff"
    yield packer.compress(bytes(head[:116]))
    zeros = bytes(MIB)
    while True:
        yield packer.compress(zeros)


def test_a_bomb_ends_in_bounded_time_and_memory() -> None:
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(Exhausted, match="more bytes"):
        list(initramfs.names(_bomb(), Budget(size=32 * MIB)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB
    assert time.monotonic() - started < 20


def test_too_many_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "NAMES_MOST", 10)
    with pytest.raises(Damaged, match="more than 10 names"):
        names(cpio([str(number) for number in range(20)]))


def test_too_many_names_in_many_archives_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "NAMES_MOST", 10)
    with pytest.raises(Damaged, match="more than 10 names"):
        names(cpio(["a", "b", "c"]) * 4)


def test_long_names_are_refused_together_and_alone() -> None:
    with pytest.raises(Damaged, match="names have more than 32 MiB"):
        for _ in initramfs.names(_names_of(4095), Budget()):
            pass
    (name,) = names(cpio(["n" * 4095]))
    assert len(name) == 4095
    with pytest.raises(Damaged, match="a name in its cpio archive has 4097 bytes"):
        names(cpio(["n" * 4096]))


def _names_of(length: int) -> Iterator[bytes]:
    entry = cpio(["n" * length])[: 110 + length + 3 & ~3]
    return itertools.repeat(entry, 9_000)


def test_compression_within_compression_is_refused() -> None:
    with pytest.raises(Damaged, match="more than once"):
        names(gzip.compress(gzip.compress(cpio(NAMES))))
