"""A stand-in of an object store: a file system of fsspec over a directory, with faults.

fsspec knows `shelf://` by the entry point `fsspec.specs`; any process may use it
while the stand-in runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from publisher.emulation import Faults

_ROOT = "objects"
_BUCKET = "bucket"
_KEY = "shelf-key"


class FilesSandbox:
    """`port` is not used: the production code reaches it through fsspec, not HTTP."""

    def __init__(self, state: Path, port: int = 0) -> None:  # noqa: ARG002
        self.faults = Faults()
        self.key = _KEY
        self._root = state / _ROOT

    def start(self) -> None:
        """Raises HostError where fsspec is not installed."""
        from publisher.provider import require

        require("fsspec", "files")
        from providers.files.sandbox import shelf

        self._root.mkdir(parents=True, exist_ok=True)
        shelf.serve(self._root, self.key, self.faults)

    def stop(self) -> None:
        from providers.files.sandbox import shelf

        shelf.close(self._root)

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "PUBLISH_FILES_ENDPOINT": f"shelf://{_BUCKET}",
            "FSSPEC_SHELF_ROOT": str(self._root),
            "FSSPEC_SHELF_KEY": self.key,
        }

    def content(self, image_ref: str) -> Iterator[bytes]:
        with self._raw(image_ref).open("rb") as file:
            while piece := file.read(1024 * 1024):
                yield piece

    def corrupt(self, image_ref: str, offset: int) -> None:
        with self._raw(image_ref).open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    def _raw(self, image_ref: str) -> Path:
        """The stored raw disk of an image, which must have that format."""
        place, _, key = image_ref.rpartition("/")
        base = self._root / _BUCKET / place.replace("://", "/").strip("/")
        record = json.loads((base / ".publish" / "images" / f"{key}.json").read_text())
        name: str = next(f["name"] for f in record["files"] if f["format"] == "raw")
        homes: tuple[Path, ...] = (
            base / ".publish/private" / f"{key}@{record['digest'][:16]}",
            base / key,
        )
        return next(home / name for home in homes if (home / name).is_file())

    def resources(self) -> Sequence[str]:
        """Every object; records count as images. The index is left out: it
        belongs to the place and stays when it is empty."""
        found = []
        for path in sorted(self._root.rglob("*")):
            name = path.relative_to(self._root).as_posix()
            if path.is_file() and "/streams/v1/" not in f"/{name}":
                kind = "image" if "/.publish/images/" in f"/{name}" else "file"
                found.append(f"{kind}/{name}")
        return found
