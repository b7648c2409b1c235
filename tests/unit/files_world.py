"""A directory to publish to, and what tests of the provider `files` need of it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from providers.files.options import FilesOptions
from providers.files.provider import Files
from publisher.disks import raw
from publisher.memory import Memory
from publisher.model import MIB, Audience, Disk, Image, Spec
from publisher.task import Cancellation, Clock, Task


class Stopped(Clock):
    """The same moment for ever, so that equal states are equal bytes."""

    def now(self) -> float:
        return 1_700_000_000.0

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        cancellation.check()


def small_disk(path: Path, seed: int = 1, size: int = MIB) -> Disk:
    with path.open("wb") as file:
        file.write(random.Random(seed).randbytes(70_000))
        file.truncate(size)
    return raw.inspect(path)


class World:
    def __init__(self, url: str, scratch: Path, **options: Any) -> None:
        self.scratch = scratch
        self.options = FilesOptions(url=url, **options)
        self.root = Path(url)

    def task(self, memory: str = "memory") -> Task:
        return Task("files", Memory(self.scratch / memory), clock=Stopped(), run="run1")

    def provider(self) -> Files:
        return Files(self.options)

    @staticmethod
    def spec(disk: Disk, name: str = "web", version: str = "1.0.0") -> Spec:
        return Spec(name, version, size=disk.size, digest=disk.sha256, run="run1")

    def register(self, disk: Disk, name: str = "web", version: str = "1.0.0") -> Image:
        spec = self.spec(disk, name, version)
        upload = self.provider().upload(disk, spec, self.task())
        return self.provider().register(upload, spec, self.task())

    def release(self, image: Image) -> None:
        self.provider().release(image, Audience("public"), self.task())

    def listed(self) -> dict[str, Any]:
        """The products in the index."""
        document = json.loads((self.root / "streams/v1/images.json").read_text())
        products: dict[str, Any] = document["products"]
        return products

    def tree(self) -> dict[str, str]:
        """Digest by path of all that stands there, scratch files aside."""
        return {
            path.relative_to(self.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and ".publish/tmp" not in path.as_posix()
        }
