"""What the sandbox keeps on disk: its resources as one JSON file, a snapshot's
blocks as a sparse file with an index of checksums beside it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from publisher.disks.raw import is_zero
from publisher.emulation import write_whole

BLOCK = 524_288
_RECORD = struct.Struct("<I?32s")


@dataclass(slots=True)
class Snapshot:
    """Times are seconds since the epoch. `settles` 0 while it can still be written."""

    id: str
    region: str
    owner: str
    size: int
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    encrypted: bool = False
    kms_key: str = ""
    started: float = 0.0
    expires: float = 0.0
    visible: float = 0.0
    settles: float = 0.0
    users: list[str] = field(default_factory=list)
    public: bool = False

    @property
    def state(self) -> str:
        now = time.time()
        if self.settles:
            return "completed" if now >= self.settles else "pending"
        return "error" if now >= self.expires else "pending"

    def readable_by(self, account: str) -> bool:
        return self.owner == account or account in self.users


@dataclass(slots=True)
class Image:
    """`mappings` as RegisterImage has them; `attributes` are the optional ones by
    their name in DescribeImages."""

    id: str
    region: str
    owner: str
    name: str
    description: str
    architecture: str
    root_device: str
    virtualization: str
    mappings: list[dict[str, Any]]
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    visible: float = 0.0
    settles: float = 0.0
    users: list[str] = field(default_factory=list)
    organizations: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    public: bool = False

    @property
    def state(self) -> str:
        return "available" if time.time() >= self.settles else "pending"

    @property
    def snapshots(self) -> list[str]:
        return [m["Ebs"]["SnapshotId"] for m in self.mappings if m.get("Ebs")]

    def launchable_by(self, account: str) -> bool:
        return self.public or self.owner == account or account in self.users


class Blocks:
    """The blocks of one snapshot: NAME.blocks holds block n at n · 512 KiB,
    NAME.index one record (index, inherited?, SHA-256) for every one that was put."""

    def __init__(self, path: Path) -> None:
        self._data = path.with_suffix(".blocks")
        self._index = path.with_suffix(".index")
        self._lock = threading.Lock()
        self.checksums: dict[int, bytes] = {}
        self._inherited: set[int] = set()
        with contextlib.suppress(FileNotFoundError):
            raw = self._index.read_bytes()
            for index, inherited, checksum in _RECORD.iter_unpack(
                raw[: len(raw) - len(raw) % _RECORD.size]
            ):
                self._note(index, inherited, checksum)
        self._data_handle = os.open(self._data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._index_handle = os.open(
            self._index, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    def _note(self, index: int, inherited: bool, checksum: bytes) -> None:
        self.checksums[index] = checksum
        (self._inherited.add if inherited else self._inherited.discard)(index)

    def put(self, index: int, data: bytes, checksum: bytes) -> None:
        if index in self.checksums or not is_zero(data):
            write_whole(self._data_handle, data, index * BLOCK)
        with self._lock:
            write_whole(self._index_handle, _RECORD.pack(index, False, checksum))
            self._note(index, False, checksum)

    def get(self, index: int) -> bytes:
        data = os.pread(self._data_handle, BLOCK, index * BLOCK)
        return data + bytes(BLOCK - len(data))

    def written(self) -> list[tuple[int, bytes]]:
        """(index, checksum) ascending, without what a parent gave."""
        with self._lock:
            return sorted(i for i in self.checksums.items() if i[0] not in self._inherited)

    def listed(self) -> list[int]:
        with self._lock:
            return sorted(self.checksums)

    def share(self, path: Path) -> None:
        """Give `path` the same blocks: by hard links, as a sealed snapshot never changes."""
        for ours in (self._data, self._index):
            os.link(ours, path.with_suffix(ours.suffix))

    def bequeath(self, path: Path) -> None:
        """Give a child at `path` its own copy, to be written over."""
        child = Blocks(path)
        for index in self.listed():
            child.put(index, self.get(index), self.checksums[index])
            write_whole(child._index_handle, _RECORD.pack(index, True, self.checksums[index]))
        child.close()

    def flip(self, index: int, offset: int) -> None:
        """Damage one bit of the stored block, of this snapshot only."""
        self._own()
        data = bytearray(self.get(index))
        data[offset] ^= 1
        self.put(index, bytes(data), hashlib.sha256(data).digest())

    def _own(self) -> None:
        for path, flags in ((self._data, os.O_RDWR), (self._index, os.O_WRONLY | os.O_APPEND)):
            if path.stat().st_nlink == 1:
                continue
            copy = path.with_suffix(".copy")
            with path.open("rb") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK)
            os.replace(copy, path)
            handle = os.open(path, flags | os.O_CLOEXEC)
            old = self._data_handle if path == self._data else self._index_handle
            os.dup2(handle, old)
            os.close(handle)

    def close(self) -> None:
        for handle in (self._data_handle, self._index_handle):
            with contextlib.suppress(OSError):
                os.close(handle)


class Store:
    """All resources, guarded by `lock`; `save` makes a change last."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "state.json"
        self._blocks: dict[str, Blocks] = {}
        self.lock = threading.RLock()
        self.snapshots: dict[str, Snapshot] = {}
        self.images: dict[str, Image] = {}
        self.tokens: dict[str, list[Any]] = {}
        """"REGION/OPERATION/TOKEN": [digest of the parameters, the answer]."""
        self.settings: dict[str, str] = {}
        """"ACCOUNT/REGION/SETTING": value."""
        self.departed: list[str] = []
        """Ids of images that were deregistered."""
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            kept = json.loads(self._state.read_text())
            self.snapshots = {s["id"]: Snapshot(**s) for s in kept["snapshots"]}
            self.images = {i["id"]: Image(**i) for i in kept["images"]}
            self.tokens = kept["tokens"]
            self.settings = kept["settings"]
            self.departed = kept["departed"]
            self._secret = base64.b64decode(kept["secret"])
        if not self._state.exists():
            self._secret = secrets.token_bytes(32)
            self.save()

    def save(self) -> None:
        with self.lock:
            state = {
                "snapshots": [asdict(s) for s in self.snapshots.values()],
                "images": [asdict(i) for i in self.images.values()],
                "tokens": self.tokens,
                "settings": self.settings,
                "departed": self.departed,
                "secret": base64.b64encode(self._secret).decode(),
            }
            partial = self._state.with_suffix(".partial")
            partial.write_text(json.dumps(state))
            os.replace(partial, self._state)

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Hold the lock; save when the block ends without an exception."""
        with self.lock:
            yield
            self.save()

    def path(self, snapshot: str) -> Path:
        return self._directory / snapshot

    def blocks(self, snapshot: str) -> Blocks:
        with self.lock:
            if snapshot not in self._blocks:
                self._blocks[snapshot] = Blocks(self.path(snapshot))
            return self._blocks[snapshot]

    def drop(self, snapshot: str) -> None:
        with self.lock:
            del self.snapshots[snapshot]
            blocks = self._blocks.pop(snapshot, None)
            if blocks is not None:
                blocks.close()
            for suffix in (".blocks", ".index"):
                self.path(snapshot).with_suffix(suffix).unlink(missing_ok=True)

    def close(self) -> None:
        with self.lock:
            for blocks in self._blocks.values():
                blocks.close()
            self._blocks.clear()

    def seal(self, text: str) -> str:
        """An opaque token that `open_seal` turns back into `text`."""
        body = text.encode()
        mark = hmac.new(self._secret, body, hashlib.sha256).digest()[:12]
        return base64.b64encode(mark + body).decode()

    def open_seal(self, token: str) -> str:
        """Raises ValueError for a token that was not sealed here."""
        raw = base64.b64decode(token, validate=True)
        mark = hmac.new(self._secret, raw[12:], hashlib.sha256).digest()[:12]
        if not hmac.compare_digest(mark, raw[:12]):
            raise ValueError("no token of ours")
        return raw[12:].decode()


def new_id(prefix: str) -> str:
    return f"{prefix}-0{secrets.token_hex(8)}"
