"""Whatever fsspec writes to as a place: buckets, SFTP, WebDAV and so on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from providers.files.api import CHUNK, Place
from publisher.errors import HostError
from publisher.provider import require
from publisher.task import Task

# A file that is being written can be seen there, so it is renamed when whole.
# Elsewhere (object stores) it appears when it is closed.
_GROWING = {"sftp", "ssh", "ftp", "smb", "webdav", "webhdfs", "hdfs"}


class Remote(Place):
    """`url` is its name in references, `actual` where fsspec is to look."""

    def __init__(self, url: str, actual: str, task: Task) -> None:
        super().__init__(url, task)
        self._actual = actual
        self._system: Any = None
        self._root = ""

    def _connected(self) -> Any:
        """The file system, opened on first use. Its listings are never cached:
        other machines write there too."""
        if self._system is None:
            require("fsspec", "files")
            import fsspec
            import fsspec.config

            fsspec.config.set_conf_env(fsspec.config.conf)
            try:
                self._system, self._root = fsspec.core.url_to_fs(
                    self._actual, skip_instance_cache=True, use_listings_cache=False
                )
            except (ImportError, ValueError) as error:
                raise HostError(
                    f"fsspec cannot open {self.url}: {error}",
                    hint="install the package that brings this protocol, such as s3fs or paramiko",
                ) from error
        return self._system

    def _at(self, path: str) -> str:
        self._connected()
        return f"{self._root.rstrip('/')}/{path}"

    def _grows(self) -> bool:
        protocol = self._connected().protocol
        return bool(_GROWING & ({protocol} if isinstance(protocol, str) else set(protocol)))

    def _read(self, path: str) -> bytes:
        data: bytes = self._connected().cat_file(self._at(path))
        return data

    def _range(self, path: str, start: int, end: int) -> bytes:
        data: bytes = self._connected().cat_file(self._at(path), start=start, end=end)
        return data

    def _size(self, path: str) -> int:
        found = self._connected().info(self._at(path))
        if found.get("type") == "directory":
            raise FileNotFoundError(path)
        return int(found["size"] or 0)

    def _names(self, directory: str) -> list[str]:
        at = self._at(directory).rstrip("/")
        self._connected().invalidate_cache(at)
        listed = self._connected().ls(at, detail=False)
        names = (str(name).rstrip("/") for name in listed)
        own = at.lstrip("/")
        return [
            name.rpartition("/")[2]
            for name in names
            if name.lstrip("/") != own and not name.endswith(".partial")
        ]

    def _write(self, path: str, data: bytes) -> None:
        self._make_parent(path)
        if not self._grows():
            self._connected().pipe_file(self._at(path), data)
            return
        partial = f"{self._at(path)}.partial"
        self._connected().pipe_file(partial, data)
        self._rename(partial, self._at(path))

    def _put(self, source: Path, path: str) -> None:
        self._make_parent(path)
        target = self._at(path)
        partial = f"{target}.partial" if self._grows() else target
        size, done = source.stat().st_size, 0
        with source.open("rb") as content, self._connected().open(partial, "wb") as out:
            try:
                while piece := content.read(CHUNK):
                    self.task.check()
                    out.write(piece)
                    done += len(piece)
                    self.task.progress(done, size)
            except BaseException:
                # Closing would finish the object with a part of its content.
                with contextlib.suppress(Exception):
                    out.discard()
                out.closed = True
                raise
        if partial != target:
            self._rename(partial, target)

    def _move(self, source: str, target: str) -> None:
        names = self._names_or_none(source)
        self._make_parent(f"{target}/x")
        for name in sorted(names, key=lambda name: (name.startswith("SHA256SUMS"), name)):
            self.task.check()
            self._rename(self._at(f"{source}/{name}"), self._at(f"{target}/{name}"))
        self._remove_directory(source)

    def _names_or_none(self, directory: str) -> list[str]:
        try:
            return self._names(directory)
        except FileNotFoundError:
            return []

    def _rename(self, old: str, new: str) -> None:
        """A rename where there is one; a copy and a removal on an object store."""
        system = self._connected()
        if self._grows():
            with contextlib.suppress(FileNotFoundError):
                system.rm_file(new)
            system.mv(old, new)
            return
        system.cp_file(old, new)
        system.rm_file(old)

    def _remove(self, path: str) -> None:
        self._connected().rm_file(self._at(path))

    def _remove_directory(self, directory: str) -> None:
        if self._has_directories():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._connected().rmdir(self._at(directory))

    def _make_parent(self, path: str) -> None:
        if self._has_directories():
            with contextlib.suppress(FileExistsError):
                self._connected().makedirs(self._at(path).rpartition("/")[0], exist_ok=True)

    def _has_directories(self) -> bool:
        """Object stores have none: to make or remove one may touch the bucket."""
        return self._grows()
