"""AWS on loopback: strict for what images need, moto for the rest, bytes on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from providers.aws.sandbox.application import Application, Labelled, refuse
from providers.aws.sandbox.signature import OWNER, Account
from providers.aws.sandbox.store import BLOCK, Store
from publisher.disks.raw import zeros
from publisher.emulation import Faults, FaultyApplication, Server

GIB = 1024**3


class AwsSandbox:
    def __init__(self, state: Path, port: int = 0) -> None:
        self.faults = Faults()
        self._state = state
        self._port = port
        self._server: Server | None = None
        self._store: Store | None = None
        self._application: Application | None = None

    def start(self) -> None:
        self._store = Store(self._state)
        self._application = Application(self._store, self.faults)
        self._server = Server(
            Labelled(FaultyApplication(self._application, self.faults, refuse)), self._port
        )
        self._server.start()
        self._port = self._server.port

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> Store:
        assert self._store is not None, "not started"
        return self._store

    @property
    def url(self) -> str:
        assert self._server is not None, "not started"
        return self._server.url

    @property
    def environment(self) -> Mapping[str, str]:
        return self.environment_of(OWNER)

    def environment_of(self, account: Account) -> Mapping[str, str]:
        """The variables for one of the two accounts that the sandbox knows."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": account.key,
            "AWS_SECRET_ACCESS_KEY": account.secret,
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def limit_pages(self, entries: int) -> None:
        """Let no page of a block list have more entries, whatever is asked for."""
        assert self._application is not None, "not started"
        self._application.ebs.page_limit = entries

    def content(self, image_ref: str) -> Iterator[bytes]:
        snapshot = self._snapshot(image_ref)
        blocks = self.store.blocks(snapshot)
        position = 0
        for index in blocks.listed():
            yield from zeros(index * BLOCK - position)
            yield blocks.get(index)
            position = (index + 1) * BLOCK
        yield from zeros(self.store.snapshots[snapshot].size * GIB - position)

    def corrupt(self, image_ref: str, offset: int) -> None:
        self.store.blocks(self._snapshot(image_ref)).flip(offset // BLOCK, offset % BLOCK)

    def _snapshot(self, ref: str) -> str:
        """The root snapshot of "REGION/ami-…", or the one of "REGION/snap-…"."""
        id_ = re.sub(r"^.*/", "", ref)
        if id_ in self.store.snapshots:
            return id_
        return self.store.images[id_].snapshots[0]

    def resources(self) -> Sequence[str]:
        with self.store.lock:
            return [
                *(f"image/{i.region}/{i.id}" for i in self.store.images.values()),
                *(f"snapshot/{s.region}/{s.id}" for s in self.store.snapshots.values()),
            ]
