"""The stand-in's state: one JSON document a resource, in memory and on disk.

What is changed under one hold of the lock is on disk as a whole or not at all,
whenever the process is killed: a disk is not in use by a machine that does not
have it. The changes go into one file first, which the next start carries out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]


def _write(path: Path, content: Any) -> None:
    """A reader sees the file as before or as a whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)


class Lock:
    """Reentrant. What changes while it is held is written out at the last release."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._directory = directory
        self._intent = directory / "changes.json"
        self._changes: dict[str, Any] = {}
        directory.mkdir(parents=True, exist_ok=True)
        if self._intent.exists():  # a process was killed before it had carried them out
            self._carry_out(json.loads(self._intent.read_text()))

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._depth == 1 and self._changes:
                changes, self._changes = self._changes, {}
                if len(changes) > 1:
                    _write(self._intent, changes)
                self._carry_out(changes)
        finally:
            self._depth -= 1
            self._lock.release()

    def change(self, path: Path, content: Any) -> None:
        """Have the file at `path` hold `content`, or be gone if that is None."""
        with self:
            self._changes[str(path.relative_to(self._directory))] = content

    def _carry_out(self, changes: dict[str, Any]) -> None:
        for name, content in changes.items():
            path = self._directory / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _write(path, content)
        self._intent.unlink(missing_ok=True)


class Documents:
    """Resources of one kind by name. Written through, see Lock."""

    def __init__(self, directory: Path, lock: Lock) -> None:
        self._directory = directory
        self._lock = lock
        directory.mkdir(exist_ok=True)
        self._documents: dict[str, Document] = {}
        for path in directory.glob("*.json"):
            name, document = json.loads(path.read_text())
            self._documents[name] = document

    def _path(self, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def get(self, name: str) -> Document | None:
        return self._documents.get(name)

    def put(self, name: str, document: Document) -> None:
        self._documents[name] = document
        self._lock.change(self._path(name), [name, document])

    def remove(self, name: str) -> None:
        self._documents.pop(name, None)
        self._lock.change(self._path(name), None)

    def values(self) -> list[Document]:
        """In the order of names; a snapshot."""
        return [document for _, document in self.items()]

    def items(self) -> Iterator[tuple[str, Document]]:
        """In the order of names; a snapshot."""
        return iter(sorted(self._documents.items()))


class Store:
    """All collections and the directory for bytes. Hold `lock` while changing anything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = Lock(directory)
        self.buckets = Documents(directory / "buckets", self.lock)
        self.objects = Documents(directory / "objects", self.lock)
        self.sessions = Documents(directory / "sessions", self.lock)
        self.images = Documents(directory / "images", self.lock)
        self.disks = Documents(directory / "disks", self.lock)
        self.instances = Documents(directory / "instances", self.lock)
        self.operations = Documents(directory / "operations", self.lock)
        self._ids = itertools.count(time.time_ns())

    def id(self) -> str:
        """A number that never comes again, as generations and resource ids are."""
        return str(next(self._ids))

    def bytes(self, name: str) -> Path:
        """The file for an object's or disk's bytes."""
        directory = self.directory / "bytes"
        directory.mkdir(exist_ok=True)
        return directory / name

    def discard(self, path: Path) -> None:
        """Remove a file for bytes, together with what else changes."""
        self.lock.change(path, None)
