"""Memory of one step that survives a crash: small values, and ledgers of finished parts."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from publisher.errors import HostError


def boot_id() -> str:
    """Of this boot of the host: what was written in another one may be lost in part."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def append_line(handle: int, payload: str) -> None:
    """Append one line with its CRC-32 in front, in a single write.

    Raises HostError when the state directory is full."""
    body = payload.encode()
    line = b"%08x %s\n" % (zlib.crc32(body), body)
    written = 0
    try:
        written = os.write(handle, line)
        if written != len(line):
            raise OSError("the line was written in part")
    except OSError as error:
        if written:
            # or nothing that is appended later would be believed
            os.ftruncate(handle, os.fstat(handle).st_size - written)
        raise HostError(
            f"cannot write the state directory: {error.strerror or error}",
            hint="free some space, then run the same command again: it continues",
        ) from error


def read_lines(path: Path) -> Iterator[str]:
    """The payloads of all whole lines; a torn or damaged line ends the reading,
    because whatever follows it was written by nobody we can trust."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n")[:-1]:
        crc, _, body = line.partition(b" ")
        if crc != b"%08x" % zlib.crc32(body):
            return
        yield body.decode()


def open_appending(path: Path) -> int:
    """Open a line file for `append_line`, cutting off a torn tail first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = sum(len(line.encode()) + 10 for line in read_lines(path))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(handle).st_size != whole:
        os.ftruncate(handle, whole)
    return handle


class Ledger:
    """An append-only list of finished parts (a block with its digest, a page range).

    Appending is thread-safe and survives the death of the process; it is synced
    on close only. After a loss of power the tail may be missing, so parts are
    sent again, never skipped wrongly: a part is noted once the cloud confirmed it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open_appending(path)
        self._lock = threading.Lock()

    def entries(self) -> list[str]:
        with self._lock:
            return list(read_lines(self._path))

    def add(self, entry: str) -> None:
        """Note a finished part. `entry` has no line break."""
        with self._lock:
            append_line(self._handle, entry)

    def clear(self) -> None:
        with self._lock:
            os.ftruncate(self._handle, 0)

    def close(self) -> None:
        with self._lock:
            if self._handle >= 0:
                os.fsync(self._handle)
                os.close(self._handle)
                self._handle = -1


class Memory:
    """What one step remembers between runs, in a directory of its own.

    Never put a secret (a SAS, a signed URL, a token) here.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._values: dict[str, Any] | None = None
        self._ledgers: dict[str, Ledger] = {}
        self._handle = -1
        self._lock = threading.RLock()

    def _load(self) -> dict[str, Any]:
        if self._values is None:
            self._values = {}
            for line in read_lines(self._directory / "values"):
                key, value = json.loads(line)
                self._values[key] = value
        return self._values

    def get(self, key: str, default: Any = None) -> Any:
        with self._lock:
            return self._load().get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Remember a JSON value; it is on disk when this returns."""
        with self._lock:
            self._load()[key] = value
            if self._handle < 0:
                self._handle = open_appending(self._directory / "values")
            append_line(self._handle, json.dumps([key, value], sort_keys=True))
            os.fsync(self._handle)

    def forget(self, *keys: str) -> None:
        for key in keys:
            if self.get(key) is not None:
                self.set(key, None)

    def ledger(self, name: str) -> Ledger:
        with self._lock:
            if name not in self._ledgers:
                self._ledgers[name] = Ledger(self._directory / f"{name}.ledger")
            return self._ledgers[name]

    def close(self) -> None:
        with self._lock:
            for ledger in self._ledgers.values():
                ledger.close()
            self._ledgers.clear()
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
            self._values = None
