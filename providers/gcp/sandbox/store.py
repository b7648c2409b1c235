"""The stand-in's state: one JSON document a resource, in memory and on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]


class Documents:
    """Resources of one kind by name. Written through; a reader sees a whole document."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
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
        path = self._path(name)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([name, document]))
        os.replace(partial, path)

    def remove(self, name: str) -> None:
        self._documents.pop(name, None)
        self._path(name).unlink(missing_ok=True)

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
        self.lock = threading.RLock()
        self.buckets = Documents(directory / "buckets")
        self.objects = Documents(directory / "objects")
        self.sessions = Documents(directory / "sessions")
        self.images = Documents(directory / "images")
        self.disks = Documents(directory / "disks")
        self.instances = Documents(directory / "instances")
        self.operations = Documents(directory / "operations")
        self._ids = itertools.count(time.time_ns())

    def id(self) -> str:
        """A number that never comes again, as generations and resource ids are."""
        return str(next(self._ids))

    def bytes(self, name: str) -> Path:
        """The file for an object's or disk's bytes."""
        directory = self.directory / "bytes"
        directory.mkdir(exist_ok=True)
        return directory / name
