"""A sandbox of Azure with what the unit tests do to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.azure.api import Api
from providers.azure.options import AzureOptions
from providers.azure.provider import Azure
from providers.azure.sandbox import AzureSandbox
from providers.azure.sandbox.resources import SUBSCRIPTION
from publisher.conformance import HastyClock
from publisher.disks import raw
from publisher.events import Event
from publisher.memory import Memory
from publisher.model import MIB, Disk, Image, Spec
from publisher.task import Cancellation, Task

GROUP = "images"
SIZE = 20 * MIB


def small_disk(path: Path, seed: bytes = b"seed") -> Disk:
    """A sparse disk with data at both ends, in the middle, and in some scattered pages."""
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset in (0, MIB, 5 * MIB, SIZE // 2, SIZE - 65536):
            file.seek(offset)
            file.write(hashlib.sha256(seed + b"%d" % offset).digest() * 2048)
    return raw.inspect(path)


class AzureWorld:
    """The sandbox, one disk, and a target that publishes it."""

    def __init__(self, sandbox: AzureSandbox, where: Path) -> None:
        self.sandbox = sandbox
        self.where = where
        self.disk = small_disk(where / "disk.raw")
        self.events: list[Event] = []
        self.api = Api(SUBSCRIPTION)

    def task(self, memory: str = "memory", cancellation: Cancellation | None = None) -> Task:
        return Task(
            "azure.test",
            Memory(self.where / memory),
            sink=self.events.append,
            cancellation=cancellation,
            clock=HastyClock(),
            run="run1",
        )

    def options(self, **more: Any) -> AzureOptions:
        return AzureOptions(
            **{"regions": ("westeurope", "northeurope"), **Azure.sandbox_options(), **more}
        )

    def provider(self, **more: Any) -> Azure:
        return Azure(self.options(**more))

    def spec(self, version: str = "1.0.0", disk: Disk | None = None, **more: Any) -> Spec:
        disk = disk or self.disk
        return Spec(
            name="web", version=version, size=disk.size, digest=disk.sha256, run="run1", **more
        )

    def publish(self, version: str = "1.0.0", **options: Any) -> Image:
        provider, spec = self.provider(**options), self.spec(version)
        upload = provider.upload(self.disk, spec, self.task())
        return provider.register(upload, spec, self.task())

    def gallery(self) -> dict[str, Any]:
        found = self.api.get(
            lambda c: c.galleries.get(
                GROUP, "images", select="Permissions", expand="SharingProfile/Groups",
                api_version="2025-12-03",
            )
        )  # fmt: skip
        assert found is not None
        profile: dict[str, Any] = found["properties"]["sharingProfile"]
        return profile


@contextlib.contextmanager
def azure_world(where: Path) -> Iterator[AzureWorld]:
    sandbox = AzureSandbox(where / "sandbox")
    sandbox.start()
    before = dict(os.environ)
    os.environ.update(sandbox.environment)
    try:
        yield AzureWorld(sandbox, where)
    finally:
        os.environ.clear()
        os.environ.update(before)
        sandbox.stop()
