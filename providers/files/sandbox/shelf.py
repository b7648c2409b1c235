"""`shelf://`: objects in a directory, seen through fsspec as a bucket's are.

An object appears when its writer closes it; there is no rename, only copies;
directories are nothing but prefixes. Wrong keys are refused, a shelf that is
not open does not answer.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.spec import AbstractFileSystem

from publisher.emulation import Faults

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Service:
    root: Path
    key: str
    faults: Faults

    def request(self, method: str, path: str, key: str, act: Callable[[], T]) -> T:
        """Carry out one request, unless a fault is due. Errors as fsspec's file
        systems raise them."""
        if key != self.key:
            raise PermissionError(errno.EACCES, "the key is not known", path)
        fault = self.faults.due(f"{method} /{path}")
        if fault is None:
            return act()
        if fault.fired is not None:
            fault.fired()
        if fault.kind == "stall":
            time.sleep(fault.seconds)
            return act()
        if fault.kind == "throttle":
            raise BlockingIOError(errno.EAGAIN, "slow down", path)
        if fault.kind == "fail":
            raise OSError(errno.EIO, "internal error", path)
        if fault.kind == "lose":
            act()
        raise ConnectionResetError(errno.ECONNRESET, "connection reset", path)


_SERVICES: dict[Path, _Service] = {}
_LOCK = threading.Lock()


def serve(root: Path, key: str, faults: Faults) -> None:
    """Answer in this process with faults, in others without."""
    with _LOCK:
        _SERVICES[root] = _Service(root, key, faults)
        _sign(root).write_text(key)


def close(root: Path) -> None:
    with _LOCK:
        _SERVICES.pop(root, None)
        _sign(root).unlink(missing_ok=True)


def _sign(root: Path) -> Path:
    """There while a shelf is open, with the key in it."""
    return root.with_suffix(".open")


def _service(root: Path) -> _Service:
    with _LOCK:
        if root in _SERVICES:
            return _SERVICES[root]
    try:
        return _Service(root, _sign(root).read_text(), Faults())
    except FileNotFoundError:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens", str(root)) from None


class Shelf(AbstractFileSystem):  # type: ignore[misc]
    """Made by fsspec with the values of FSSPEC_SHELF_ROOT and FSSPEC_SHELF_KEY."""

    protocol = "shelf"
    cachable = False

    def __init__(self, root: str = "", key: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._base = Path(root)
        self._key = key

    def _request(self, method: str, path: str, act: Callable[[Path], T]) -> T:
        path = self._strip_protocol(path).strip("/")
        if ".." in path.split("/"):
            raise ValueError(f"{path} leaves the shelf")
        target = self._base / path
        return _service(self._base).request(method, path, self._key, lambda: act(target))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        def act(target: Path) -> dict[str, Any]:
            status = target.stat()
            kind = "directory" if target.is_dir() else "file"
            size = 0 if kind == "directory" else status.st_size
            return {"name": path, "size": size, "type": kind}

        return self._request("HEAD", path, act)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        def act(target: Path) -> list[Any]:
            if not target.is_dir() or not any(target.iterdir()):
                raise FileNotFoundError(errno.ENOENT, "no such prefix", path)
            names = [f"{path.rstrip('/')}/{name}" for name in sorted(os.listdir(target))]
            if not detail:
                return names
            return [{"name": n, "size": 0, "type": "file"} for n in names]

        return self._request("LIST", path, act)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        def act(target: Path) -> bytes:
            with target.open("rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - (start or 0))

        return self._request("GET", path, act)

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self._request("PUT", path, lambda target: _store(target, [value]))

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        def act(target: Path) -> None:
            source = self._base / self._strip_protocol(path1).strip("/")
            with source.open("rb") as file:
                _store(target, iter(lambda: file.read(1024 * 1024), b""))

        self._request("COPY", path2, act)

    def rm_file(self, path: str) -> None:
        def act(target: Path) -> None:
            target.unlink()
            for parent in target.parents:
                if parent == self._base or any(parent.iterdir()):
                    return
                parent.rmdir()

        self._request("DELETE", path, act)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        return _Writer(self, path)


class _Writer(io.FileIO):
    """Collects an object in a file of its own; closing sends it."""

    def __init__(self, shelf: Shelf, path: str) -> None:
        self._shelf = shelf
        self._path = path
        self._scratch = shelf._base.parent / f"incoming-{os.getpid()}-{id(self)}"
        self._kept = True
        super().__init__(self._scratch, "wb")

    def discard(self) -> None:
        self._kept = False
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            if self._kept:
                self._shelf._request("PUT", self._path, self._commit)
        finally:
            self._scratch.unlink(missing_ok=True)

    def _commit(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._scratch, target)


def _store(target: Path, pieces: Any) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.incoming")
    with scratch.open("wb") as file:
        for piece in pieces:
            if any(piece):
                file.write(piece)
            else:
                file.seek(len(piece), os.SEEK_CUR)
        file.truncate(file.tell())
    os.replace(scratch, target)
