"""The content-addressed store of sealed disks under the state directory.

store/disks/<sha256>.raw    the bytes, sparse, read-only
store/disks/<sha256>.json   size and extents
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from publisher.disks import raw
from publisher.errors import Cancelled
from publisher.model import Disk


def _read(path: Path, check: Callable[[], None], prove: Callable[[], None]) -> Disk:
    """The Disk in a file that is safe from a loss of power now, and proved."""
    refused = threading.Event()

    def go_on() -> None:
        check()
        if refused.is_set():
            raise Cancelled()

    # reading, writing out and proving each leave most of the machine to the others
    with ThreadPoolExecutor(2, thread_name_prefix="store") as pool:
        synced = pool.submit(raw.write_out, path, go_on)
        read = pool.submit(raw.inspect, path, go_on)
        try:
            prove()
            synced.result()
            return read.result()
        finally:
            refused.set()


class Store:
    def __init__(self, state: Path) -> None:
        self.directory = state / "store" / "disks"

    def scratch(self, name: str) -> Path:
        """Where a file may be prepared so that `add` is a rename."""
        directory = self.directory.parent / "scratch"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name

    def add(
        self,
        path: Path,
        check: Callable[[], None] = lambda: None,
        prove: Callable[[], None] = lambda: None,
    ) -> Disk:
        """Take a raw file into the store (it is moved); returns the Disk. `prove` looks
        at it too while it is read; what that raises keeps it out of the store."""
        disk = _read(path, check, prove)
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self.directory / f"{disk.sha256}.raw"
        stored = Disk(target, disk.size, disk.sha256, disk.extents)
        # one that is there already is replaced: it may have been cut short since
        os.chmod(path, 0o444)
        os.replace(path, target)
        description = target.with_suffix(".json")
        partial = description.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
        partial.write_text(json.dumps(stored.to_json()))
        os.replace(partial, description)
        return stored

    def get(self, sha256: str) -> Disk | None:
        """The stored disk of that digest, or None if it is not whole any more."""
        description = self.directory / f"{sha256}.json"
        try:
            disk = Disk.from_json(json.loads(description.read_text()))
            path = self.directory / f"{sha256}.raw"
            if path.stat().st_size != disk.size:
                return None
        except (OSError, ValueError, KeyError):
            return None
        return Disk(path, disk.size, disk.sha256, disk.extents)
