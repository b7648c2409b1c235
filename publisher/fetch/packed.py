"""Packed disks, unpacked as streams into sparse files of bounded size."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from publisher.disks.raw import is_zero
from publisher.errors import BuildError, HostError
from publisher.fetch.decode import Headed, Readable, damage, decoded, kind
from publisher.fetch.download import RESERVE
from publisher.model import GIB, MIB
from publisher.task import Task

_DISKS = re.compile(r".*\.(vmdk|qcow2|vhdx?|vdi|raw|img)", re.IGNORECASE)
_LAYERS = 3
_MEMBERS = 1000
_CHUNK = 1 * MIB
_HOLE = 64 * 1024


def unpack(path: Path, into: Path, limit: int, task: Task) -> Path:
    """The disk file inside `path`: `path` itself when it is not packed, else `into`.

    Takes .xz, .gz, .zst, .bz2, and tar with exactly one disk, also one in the
    other; an OVA counts as a disk file, because it is read in place. `limit` is
    the most bytes that the disk file may have.
    Raises BuildError for what is damaged, too large or holds no single disk.
    """
    with path.open("rb") as file:
        if kind(file.read(512)) in ("", "ova"):
            return path
    task.phase(f"unpacking {path.name}")
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(into.name + ".partial")
    try:
        with path.open("rb") as file, damage(path.name):
            size = os.fstat(file.fileno()).st_size
            sink = _Sink(partial, limit, task, lambda: task.progress(file.tell(), size))
            _peel(file, sink, path.name, _LAYERS)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, into)
    return into


def _peel(source: Readable, sink: _Sink, name: str, layers: int) -> None:
    stream = Headed(source)
    packing = kind(stream.head())
    if packing == "tar":
        _from_tar(stream, sink, name)
    elif packing in ("", "ova"):
        sink.take(stream)
    elif not layers:
        raise BuildError(f"{name} is packed in more than {_LAYERS} layers")
    else:
        with decoded(stream, packing) as inner:
            _peel(inner, sink, name, layers - 1)


class _Sink:
    """The file that a disk is unpacked to: sparse, and never larger than it may be."""

    def __init__(self, path: Path, limit: int, task: Task, progress: Callable[[], None]) -> None:
        self.path = path
        self.task = task
        self._limit = limit
        self._progress = progress

    def refuse_beyond(self, size: int) -> None:
        if size > self._limit:
            raise BuildError(
                f"the unpacked disk has more than the {self._limit / GIB:.2f} GiB "
                "that fit the image",
                hint="raise build.size, if the file is what it should be",
            )

    def take(self, source: Readable) -> None:
        position = 0
        checked = 0
        with self.path.open("wb") as file:
            try:
                while data := source.read(_CHUNK):
                    self.task.check()
                    self.refuse_beyond(position + len(data))
                    _write_sparse(file.fileno(), position, data)
                    position += len(data)
                    self._progress()
                    if position >= checked:
                        self._require_space()
                        checked = position + RESERVE // 2
                file.truncate(position)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise self._no_space() from error
                raise

    def _require_space(self) -> None:
        if shutil.disk_usage(self.path.parent).free < RESERVE:
            raise self._no_space()

    def _no_space(self) -> HostError:
        return HostError(
            f"no space is left in {self.path.parent} to unpack the disk",
            hint="free some space, then run the same command again",
        )


def _write_sparse(handle: int, position: int, data: bytes) -> None:
    """Write at `position`; runs of zeros between multiples of 64 KiB stay holes."""
    at = 0
    while at < len(data):
        end = min(len(data), at + _HOLE - (position + at) % _HOLE)
        piece = data[at:end]
        if not is_zero(piece):
            while piece:
                written = os.pwrite(handle, piece, position + at)
                piece = piece[written:]
                at += written
        at = end


def _from_tar(stream: Readable, sink: _Sink, name: str) -> None:
    """The one disk in a tar archive, as Google Cloud exports it ("disk.raw", sparse)."""
    disk = ""
    others: list[str] = []
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
        for count, member in enumerate(archive):
            if count >= _MEMBERS:
                raise BuildError(f"{name} holds too many files for an archive of a disk")
            if not member.isfile():
                continue
            if not _DISKS.fullmatch(member.name):
                others.append(member.name)
                continue
            if disk:
                raise BuildError(
                    f"{name} holds several disks ({disk}, {member.name})",
                    hint="take out the one that boots, and name it instead",
                )
            disk = member.name
            sink.refuse_beyond(member.size)
            content = archive.extractfile(member)
            assert content is not None
            sink.take(content)
    if not disk:
        held = ", ".join(others[:5]) or "nothing"
        raise BuildError(f"{name} holds no disk", hint=f"it holds {held}")
