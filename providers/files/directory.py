"""A directory of this machine as a place: renames are atomic, files are synced."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from providers.files.api import CHUNK, NAME, Place
from publisher.errors import ConflictError
from publisher.task import Task

SCRATCH = ".publish/tmp"


class Directory(Place):
    """`url` is its name in references, `root` where it is."""

    def __init__(self, url: str, root: Path, task: Task) -> None:
        super().__init__(url, task)
        self.local = self._root = root

    def _read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def _range(self, path: str, start: int, end: int) -> bytes:
        with (self._root / path).open("rb") as file:
            return os.pread(file.fileno(), end - start, start)

    def _size(self, path: str) -> int:
        return (self._root / path).stat().st_size

    def _names(self, directory: str) -> list[str]:
        return [n for n in os.listdir(self._root / directory) if not n.endswith(".partial")]

    def _write(self, path: str, data: bytes) -> None:
        with self._replacing(path) as file:
            file.write(data)

    def _put(self, source: Path, path: str) -> None:
        with source.open("rb") as content, self._replacing(path) as file:
            while piece := content.read(CHUNK):
                self.task.check()
                file.write(piece)

    @contextlib.contextmanager
    def _replacing(self, path: str) -> Iterator[IO[bytes]]:
        """A file that takes the place of another when it is whole. Until then it
        stands in .publish, where nobody fetches it."""
        target = self.prepare(path)
        partial = self.prepare(f"{SCRATCH}/{os.getpid()}-{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        _sync(target.parent)

    def sweep(self) -> None:
        """Remove what killed processes left behind more than a day ago."""
        yesterday = self.task.clock.now() - 86400
        with contextlib.suppress(OSError):
            for path in (self._root / SCRATCH).iterdir():
                if path.stat().st_mtime < yesterday:
                    path.unlink()

    def _move(self, source: str, target: str) -> None:
        """One rename: the release is there whole or not at all."""
        old, new = self._root / source, self.prepare(target)
        if not old.is_dir():
            return
        try:
            os.rename(old, new)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise ConflictError(
                f"{new} is already there and holds something else",
                provider=NAME,
                hint="move it away, or choose another name",
            ) from error
        _sync(new.parent)
        _sync(old.parent)

    def _remove(self, path: str) -> None:
        target = self._root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()

    def _remove_directory(self, directory: str) -> None:
        shutil.rmtree(self._root / directory)

    def prepare(self, path: str) -> Path:
        """Make the directories above a file; .publish is closed to others."""
        target = self._root / path
        hidden = self._root / path.partition("/")[0]
        if hidden.name.startswith(".") and not hidden.is_dir():
            hidden.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
