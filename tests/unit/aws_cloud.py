"""What the AWS tests share: a sandbox with plain boto3 clients, and a small disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from providers.aws.options import BLOCK
from providers.aws.provider import Aws
from providers.aws.sandbox import AwsSandbox
from providers.aws.sandbox.signature import OWNER, Account
from publisher.memory import Memory
from publisher.model import GIB, Disk, Extent, Spec
from publisher.task import Cancellation, Clock, Task

DATA = bytes(range(256)) * (BLOCK // 256)


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


_clients: dict[tuple[str, str, str, Account], Any] = {}
_ports: list[int] = []
"""Of the last sandbox: the next one takes it again, because making boto3's clients
for another endpoint costs more than most of these tests."""


class Impatient(Clock):
    """Waits little; time passes as asked."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return time.time() + self._skipped

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        self._skipped += seconds
        super().sleep(min(seconds, 0.01), cancellation)


class Cloud:
    def __init__(self, sandbox: AwsSandbox, where: Path) -> None:
        self.sandbox = sandbox
        self.where = where

    def client(self, service: str, region: str = "us-east-1", account: Account = OWNER) -> Any:
        """A boto3 client that neither retries nor checks what it is given."""
        import boto3
        from botocore.config import Config

        key = (self.sandbox.url, service, region, account)
        if key not in _clients:
            make: Any = boto3.client
            _clients[key] = make(
                service,
                region_name=region,
                endpoint_url=self.sandbox.url,
                aws_access_key_id=account.key,
                aws_secret_access_key=account.secret,
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            )
        return _clients[key]

    def task(self, memory: str = "memory") -> Task:
        return Task("aws.test", Memory(self.where / memory), clock=Impatient(), run="run1")

    def aws(self, **options: object) -> Aws:
        return Aws(Aws.options(**{"regions": ("us-east-1", "eu-west-1"), **options}))

    def disk(self, *blocks: int, holes: tuple[int, ...] = (), gib: int = 1) -> Disk:
        """A sparse disk with data in `blocks`, and allocated zeros in `holes`."""
        path = self.where / "disk.raw"
        with path.open("wb") as file:
            file.truncate(gib * GIB)
            for index in (*blocks, *holes):
                file.seek(index * BLOCK)
                file.write(DATA if index in blocks else bytes(BLOCK))
        digest = hashlib.sha256(repr((blocks, gib)).encode()).hexdigest()
        extents = tuple(Extent(index * BLOCK, BLOCK) for index in sorted(blocks))
        return Disk(path, gib * GIB, digest, extents)

    def spec(self, disk: Disk, **changes: Any) -> Spec:
        given: dict[str, Any] = {
            "name": "web",
            "version": "1",
            "size": disk.size,
            "digest": disk.sha256,
            "run": "run1",
        }
        return Spec(**{**given, **changes})

    # -- by hand, with boto3

    def start(self, **parameters: Any) -> str:
        answer = self.client("ebs").start_snapshot(**{"VolumeSize": 1, **parameters})
        id_: str = answer["SnapshotId"]
        return id_

    def put(self, snapshot: str, index: int, data: bytes = DATA, **changes: Any) -> Any:
        parameters = {
            "SnapshotId": snapshot,
            "BlockIndex": index,
            "BlockData": data,
            "DataLength": len(data),
            "Checksum": checksum(data),
            "ChecksumAlgorithm": "SHA256",
            **changes,
        }
        return self.client("ebs").put_snapshot_block(**parameters)

    def completed(self, *blocks: int, **parameters: Any) -> str:
        snapshot = self.start(**parameters)
        for index in blocks:
            self.put(snapshot, index)
        self.client("ebs").complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(blocks))
        self.settled(snapshot)
        return snapshot

    def settled(self, snapshot: str, region: str = "us-east-1") -> None:
        while self.sandbox.store.snapshots[snapshot].state == "pending":
            time.sleep(0.005)

    def image(self, snapshot: str, name: str = "web-1", **parameters: Any) -> str:
        given = {
            "Name": name,
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
            **parameters,
        }
        id_: str = self.client("ec2").register_image(**given)["ImageId"]
        return id_


@contextlib.contextmanager
def cloud(where: Path) -> Iterator[Cloud]:
    """A running sandbox that the environment points to."""
    sandbox = AwsSandbox(where / "sandbox", _ports.pop() if _ports else 0)
    try:
        sandbox.start()
    except OSError:
        sandbox = AwsSandbox(where / "sandbox")
        sandbox.start()
    port = urlsplit(sandbox.url).port or 0
    before = dict(os.environ)
    os.environ.update(sandbox.environment)
    try:
        yield Cloud(sandbox, where)
    finally:
        os.environ.clear()
        os.environ.update(before)
        sandbox.stop()
        _ports.append(port)


@contextlib.contextmanager
def refused(code: str) -> Iterator[Any]:
    """The block's request is answered with that error code."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        yield caught
    assert caught.value.response["Error"]["Code"] == code
