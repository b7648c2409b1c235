"""State on disk: resources as one JSON file, bytes as sparse files with their page ranges."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from publisher.disks import extents as ext
from publisher.disks import raw
from publisher.emulation import write_whole
from publisher.model import SECTOR, Extent


@dataclass(slots=True)
class Entry:
    """One resource. `then` are properties that its running operation will set, and
    "regions" there becomes `regions`, where a version is replicated; `leaving` says
    that the operation removes it."""

    id: str
    body: dict[str, Any]
    blob: str = ""
    born: float = 0.0
    then: dict[str, Any] = field(default_factory=dict)
    leaving: bool = False
    regions: list[str] = field(default_factory=list)

    @property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["properties"]
        return found

    @property
    def tags(self) -> dict[str, str]:
        found: dict[str, str] = self.body.get("tags") or {}
        return found


class State:
    """All resources, keyed by their id in lower case. Guard with `lock`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.resources: dict[str, Entry] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.grants: dict[str, dict[str, Any]] = {}
        self.key = secrets.token_hex(32)
        self.blobs = Blobs(directory / "bytes")
        self._path = directory / "state.json"
        self._load()

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            data = json.loads(self._path.read_text())
            self.key = data["key"]
            self.groups = data["groups"]
            self.grants = data["grants"]
            for item in data["resources"]:
                entry = Entry(**item)
                self.resources[entry.id.lower()] = entry
            for entry in list(self.resources.values()):
                self.settle(entry)

    def save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        data = {
            "key": self.key,
            "groups": self.groups,
            "grants": self.grants,
            "resources": [asdict(entry) for entry in self.resources.values()],
        }
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(data, indent=1))
        os.chmod(partial, 0o600)
        os.replace(partial, self._path)

    def put(self, entry: Entry) -> None:
        entry.born = entry.born or time.time()
        self.resources[entry.id.lower()] = entry
        self.save()

    def get(self, id_: str) -> Entry | None:
        return self.resources.get(id_.lower())

    def under(self, prefix: str) -> list[Entry]:
        """The direct children of a collection such as …/galleries/x/images."""
        start = prefix.lower().rstrip("/") + "/"
        return [
            entry
            for key, entry in sorted(self.resources.items())
            if key.startswith(start) and "/" not in key[len(start) :]
        ]

    def settle(self, entry: Entry) -> None:
        """End the operation on a resource."""
        if entry.leaving:
            self.resources.pop(entry.id.lower(), None)
            if entry.blob:
                self.blobs.remove(entry.blob)
        else:
            entry.regions = entry.then.pop("regions", entry.regions)
            entry.properties.update(entry.then)
            entry.then = {}
        self.save()


class Blobs:
    """Bytes by id: NAME.raw is sparse, NAME.pages lists what was written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Blob] = {}
        self._lock = threading.Lock()

    def create(self, size: int) -> str:
        name = secrets.token_hex(12)
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / f"{name}.raw").open("xb") as file:
            file.truncate(size)
        (self._directory / f"{name}.pages").touch()
        return name

    def copy(self, name: str) -> str:
        """The same bytes under another id. Whole images do not change, so they share
        one file."""
        again = secrets.token_hex(12)
        os.link(self._directory / f"{name}.raw", self._directory / f"{again}.raw")
        shutil.copyfile(self._directory / f"{name}.pages", self._directory / f"{again}.pages")
        return again

    def open(self, name: str) -> Blob:
        with self._lock:
            if name not in self._open:
                self._open[name] = Blob(self._directory / name)
            return self._open[name]

    def remove(self, name: str) -> None:
        with self._lock:
            blob = self._open.pop(name, None)
        if blob is not None:
            blob.close()
        for suffix in (".raw", ".pages"):
            (self._directory / f"{name}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            for blob in self._open.values():
                blob.close()
            self._open.clear()


class Blob:
    """One open blob; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._data = os.open(path.with_suffix(".raw"), os.O_RDWR | os.O_CLOEXEC)
        self._log = os.open(path.with_suffix(".pages"), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self.size = os.fstat(self._data).st_size
        self._lock = threading.Lock()
        self._ranges: list[Extent] = []
        for line in path.with_suffix(".pages").read_text().splitlines():
            sign, offset, length = line.split()
            self._note(sign == "+", Extent(int(offset), int(length)))

    def ranges(self) -> list[Extent]:
        with self._lock:
            return list(self._ranges)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._data, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        write_whole(self._data, data, offset)
        with self._lock:
            write_whole(self._log, b"+ %d %d\n" % (offset, len(data)))
            self._note(True, Extent(offset, len(data)))

    def clear(self, offset: int, length: int) -> None:
        position = offset
        for piece in raw.zeros(length):
            write_whole(self._data, piece, position)
            position += len(piece)
        with self._lock:
            write_whole(self._log, b"- %d %d\n" % (offset, length))
            self._note(False, Extent(offset, length))

    def flip(self, offset: int) -> None:
        """Flip one bit, for tests of what notices it."""
        byte = self.read(offset, 1)[0] ^ 1
        os.pwrite(self._data, bytes([byte]), offset)
        page = Extent(offset // SECTOR * SECTOR, SECTOR)
        with self._lock:
            os.write(self._log, b"+ %d %d\n" % (page.offset, page.length))
            self._note(True, page)

    def stream(self, size: int) -> Iterator[bytes]:
        """The first `size` bytes; what was not written comes as zeros, unread."""
        position = 0
        for extent in self.ranges():
            end = min(extent.end, size)
            yield from raw.zeros(extent.offset - position)
            for at in range(extent.offset, end, 4 * 1024**2):
                yield self.read(at, min(4 * 1024**2, end - at))
            position = max(position, end)
        yield from raw.zeros(size - position)

    def _note(self, present: bool, page: Extent) -> None:
        """Add or remove a range, keeping the list merged."""
        key = page.offset if present else page.offset + 1
        low = bisect.bisect_left(self._ranges, key, key=lambda e: e.end)
        stop = page.end + 1 if present else page.end
        high = bisect.bisect_left(self._ranges, stop, key=lambda e: e.offset)
        touched = self._ranges[low:high]
        if present:
            self._ranges[low:high] = ext.merge([*touched, page])
        else:
            before = [Extent(e.offset, page.offset - e.offset) for e in touched]
            after = [Extent(page.end, e.end - page.end) for e in touched]
            self._ranges[low:high] = [e for e in (*before, *after) if e.length > 0]

    def close(self) -> None:
        os.close(self._data)
        os.close(self._log)
