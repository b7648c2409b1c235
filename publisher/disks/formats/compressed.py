"""Compressed files (gzip, xz, bzip2, zstd), told by their first bytes and unpacked
into sparse ones."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast

from publisher.disks import raw
from publisher.errors import HostError, PublishError
from publisher.model import MIB
from publisher.task import Task

Packing: TypeAlias = Literal["gzip", "xz", "bzip2", "zstd"]

_MAGIC: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_PIECE = 64 * 1024


def kind(path: Path) -> Packing | None:
    """How a file is compressed, or None."""
    with path.open("rb") as file:
        head = file.read(6)
    return next((packing for magic, packing in _MAGIC if head.startswith(magic)), None)


def unpack(path: Path, into: Path, task: Task) -> None:
    """Write the content of a compressed file, runs of zeros as holes.

    Raises PublishError for a damaged file and HostError where there is no room.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file, _open(path, file) as content, into.open("wb") as out:
            position = 0
            while piece := content.read(MIB):
                task.check()
                for at in range(0, len(piece), _PIECE):
                    part = piece[at : at + _PIECE]
                    if not raw.is_zero(part):
                        out.seek(position + at)
                        out.write(part)
                position += len(piece)
                task.progress(min(file.tell(), size), size)
            out.truncate(position)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise PublishError(
            f"{path.name} is damaged or cut short: {error}", hint="fetch it again"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise PublishError(
                f"{path.name} is damaged or cut short: {error}", hint="fetch it again"
            ) from error
        raise HostError(
            f"cannot unpack {path.name}: {error.strerror}", hint="free some space"
        ) from error


@contextlib.contextmanager
def _open(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    packing = kind(path)
    if packing == "zstd":
        with _zstd(path, file) as content:
            yield content
    elif packing == "gzip":
        with gzip.open(file) as unzipped:
            yield cast("IO[bytes]", unzipped)
    elif packing == "bzip2":
        with bz2.open(file) as unzipped2:
            yield cast("IO[bytes]", unzipped2)
    else:
        with lzma.open(file) as unzipped3:
            yield cast("IO[bytes]", unzipped3)


@contextlib.contextmanager
def _zstd(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Through the zstd program: Python has it from 3.14 only."""
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise HostError("zstd is not installed", hint="apt install zstd") from error
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        message = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise PublishError(f"{path.name} is damaged or cut short: {message}", hint="fetch it again")
