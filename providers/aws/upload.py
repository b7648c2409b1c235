"""A disk into a new EBS snapshot: StartSnapshot, PutSnapshotBlock, CompleteSnapshot.

The task's memory holds the snapshot's id and a ledger of the blocks that AWS
confirmed. Without it the pending snapshot is found by its tags and written anew.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from providers.aws.api import GRACE, Answer, Api, key_arn, tag_list, token
from providers.aws.options import (
    BLOCK,
    AwsOptions,
    ZeroBlocks,
    identity,
    tag_filters,
    tags_of,
    volume_size,
)
from publisher.disks import extents as ext
from publisher.disks.raw import Reader, is_zero
from publisher.errors import ProviderError
from publisher.model import GIB, Disk, Spec, Upload
from publisher.task import Task

T = TypeVar("T")

ATTEMPTS = 8
WAIT = 6 * 3600.0
SEALED_WAIT = 1800.0


class _Lost(Exception):
    """The snapshot is gone, failed or holds what we don't know: begin another one."""


class _Sealed(Exception):
    """The snapshot takes no blocks any more: an earlier run completed it."""


def blocks_to_send(policy: ZeroBlocks, disk: Disk) -> list[int]:
    """Indices of the blocks to look at, ascending."""
    if policy == "send":
        return list(range(volume_size(disk.size) * GIB // BLOCK))
    extents = list(disk.extents)
    if policy == "skip-holes":  # the disk's extents leave out zeros that were written
        handle = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            extents += ext.of_file(handle, disk.size)
        finally:
            os.close(handle)
    return list(ext.blocks(ext.merge(extents), BLOCK, disk.size))


def upload(api: Api, options: AwsOptions, disk: Disk, spec: Spec, task: Task) -> Upload:
    region = options.regions[0]
    work = _Work(api, options, region, disk, spec, task)
    for _ in range(ATTEMPTS):
        mine = work.found()
        done = [s for s in mine if s["State"] == "completed"]
        pending = [s for s in mine if s["State"] == "pending"]
        try:
            if done:
                snapshot = min(done, key=lambda s: (s["StartTime"], s["SnapshotId"]))["SnapshotId"]
            else:
                snapshot = work.run(pending)
        except _Lost:
            work.begin_again()
            continue
        work.finish(snapshot)
        details = {"size": f"{volume_size(disk.size)} GiB"}
        return Upload("aws", region, snapshot, disk.sha256, details)
    raise ProviderError(
        f"{ATTEMPTS} snapshots in {region} came to nothing",
        provider="aws",
        hint="look at the pending snapshots in the EC2 console and delete them",
    )


class _Work:
    def __init__(
        self, api: Api, options: AwsOptions, region: str, disk: Disk, spec: Spec, task: Task
    ) -> None:
        self.api = api
        self.options = options
        self.region = region
        self.disk = disk
        self.spec = spec
        self.task = task
        self.snapshot = ""
        self.started = 0.0
        self.digests: dict[int, bytes] = {}

    # -- which snapshot

    def found(self) -> list[Answer]:
        """Our snapshots of this very content, whoever began them."""
        pages = self.api.pages(
            self.task,
            "ec2",
            self.region,
            "describe_snapshots",
            OwnerIds=["self"],
            Filters=tag_filters(identity(self.spec)),
        )
        return [s for page in pages for s in page["Snapshots"]]

    def run(self, pending: list[Answer]) -> str:
        """Write one snapshot to its end; returns its id. Raises _Lost."""
        self._choose(pending)
        try:
            self._send()
            self._complete()
        except _Sealed as sealed:
            self._wait(SEALED_WAIT, sealed.__cause__)
        else:
            self._wait(WAIT)
        return self.snapshot

    def _choose(self, pending: list[Answer]) -> None:
        known = self.task.memory.get("snapshot") or {}
        ours = known.get("digest") == self.disk.sha256
        young = self.task.clock.now() - known.get("started", 0.0) < GRACE
        if ours and (young or known["id"] in [s["SnapshotId"] for s in pending]):
            self.snapshot, self.started = known["id"], known["started"]
            self.digests = dict(self._ledger())
        elif pending:
            self._adopt(pending[0]["SnapshotId"], pending[0]["StartTime"].timestamp())
        else:
            self._start()

    def _start(self) -> None:
        self.task.phase(f"starting a snapshot in {self.region}")
        attempt = self.task.memory.get("attempt") or 0
        name = self.options.fill(self.spec)
        arn = key_arn(self.api, self.region, self.options.kms_key, self.task)
        encryption = {"Encrypted": True} if self.options.encrypted else {}
        answer = self.api.call(
            self.task,
            "ebs",
            self.region,
            "start_snapshot",
            VolumeSize=volume_size(self.disk.size),
            Description=f"{name} {self.disk.sha256[:12]}",
            Tags=tag_list(tags_of(self.spec, name)),
            Timeout=self.options.snapshot_timeout,
            # the run is among the tags, so another run needs another token
            ClientToken=token(
                "snapshot",
                *tags_of(self.spec, name).items(),
                self.disk.size,
                attempt,
                self.options.encrypted,
                arn,
                self.options.snapshot_timeout,
            ),
            **encryption,
            **({"KmsKeyArn": arn} if arn else {}),
        )
        if answer["BlockSize"] != BLOCK:
            raise ProviderError(f"AWS wants blocks of {answer['BlockSize']} bytes", provider="aws")
        self._adopt(answer["SnapshotId"], answer["StartTime"].timestamp())

    def _adopt(self, snapshot: str, started: float) -> None:
        self.task.memory.ledger("blocks").clear()
        self.task.memory.set(
            "snapshot", {"id": snapshot, "started": started, "digest": self.disk.sha256}
        )
        self.snapshot, self.started, self.digests = snapshot, started, {}

    def begin_again(self) -> None:
        """Remove what is left of the snapshot, so that the next turn starts afresh."""
        if self.snapshot:
            self._delete(self.snapshot)
        self._forget()

    def finish(self, keep: str) -> None:
        """Remove unfinished snapshots of the same content that earlier runs left."""
        for snapshot in self.found():
            if snapshot["SnapshotId"] != keep and snapshot["State"] in ("pending", "error"):
                self._delete(snapshot["SnapshotId"])
        self._forget()

    def _forget(self) -> None:
        # a token that was used answers with its old snapshot, even when that is gone
        self.task.memory.set("attempt", (self.task.memory.get("attempt") or 0) + 1)
        self.task.memory.forget("snapshot")
        self.snapshot = ""

    def _delete(self, snapshot: str) -> None:
        try:
            self.api.call(self.task, "ec2", self.region, "delete_snapshot", SnapshotId=snapshot)
        except ProviderError as error:
            if error.code not in ("InvalidSnapshot.NotFound", "InvalidSnapshot.InUse"):
                raise

    # -- its blocks

    def _ledger(self) -> Iterator[tuple[int, bytes]]:
        for entry in self.task.memory.ledger("blocks").entries():
            index, digest = entry.split()
            yield int(index), bytes.fromhex(digest)

    def _send(self) -> None:
        wanted = blocks_to_send(self.options.zero_blocks, self.disk)
        rest = [index for index in wanted if index not in self.digests]
        done = (len(wanted) - len(rest)) * BLOCK
        total = len(wanted) * BLOCK
        self.task.phase(f"writing snapshot {self.snapshot}")
        self.task.progress(done, total)
        ledger = self.task.memory.ledger("blocks")
        with Reader(self.disk) as reader:

            def send(index: int) -> tuple[int, bytes | None]:
                data = reader.read(index * BLOCK, BLOCK)
                if self.options.zero_blocks == "skip-zeros" and is_zero(data):
                    return index, None
                digest = hashlib.sha256(data).digest()
                self._put(index, data, digest)
                ledger.add(f"{index} {digest.hex()}")
                return index, digest

            # the first one alone: it tells whether the snapshot is there yet and open
            for group in (rest[:1], rest[1:]):
                for index, digest in self.task.map(send, group, workers=self.options.workers):
                    if digest is not None:
                        self.digests[index] = digest
                    done += BLOCK
                    self.task.progress(done, total)

    def _put(self, index: int, data: bytes, digest: bytes) -> None:
        self._tolerant(
            lambda: self.api.call(
                self.task,
                "ebs",
                self.region,
                "put_snapshot_block",
                SnapshotId=self.snapshot,
                BlockIndex=index,
                BlockData=data,
                DataLength=BLOCK,
                Checksum=base64.b64encode(digest).decode(),
                ChecksumAlgorithm="SHA256",
            )
        )

    def _tolerant(self, call: Callable[[], T]) -> T:
        """For some minutes after StartSnapshot a snapshot may seem not to exist."""
        while True:
            try:
                return call()
            except ProviderError as error:
                if error.code == "ResourceNotFoundException":
                    if self.task.clock.now() - self.started > GRACE:
                        raise _Lost from error
                    self.task.sleep(2.0)
                elif error.code == "ValidationException":
                    raise _Sealed from error
                else:
                    raise

    # -- its end

    def _complete(self) -> None:
        self.task.phase(f"completing snapshot {self.snapshot}")
        ordered = sorted(self.digests)
        total = hashlib.sha256(b"".join(self.digests[i] for i in ordered)).digest()
        try:
            self._tolerant(
                lambda: self.api.call(
                    self.task,
                    "ebs",
                    self.region,
                    "complete_snapshot",
                    SnapshotId=self.snapshot,
                    ChangedBlocksCount=len(ordered),
                    Checksum=base64.b64encode(total).decode(),
                    ChecksumAlgorithm="SHA256",
                    ChecksumAggregationMethod="LINEAR",
                )
            )
        except _Sealed as sealed:
            # Completed already (the answer was lost), or it holds blocks that we don't
            # know of. Whether it still takes a block tells.
            with Reader(self.disk) as reader:
                for index in ordered[:1]:
                    data = reader.read(index * BLOCK, BLOCK)
                    self._put(index, data, self.digests[index])
            raise _Lost from sealed

    def _wait(self, timeout: float, refusal: BaseException | None = None) -> None:
        asked = self.task.clock.monotonic()

        def state() -> str | None:
            try:
                answer = self.api.once(
                    "ec2", self.region, "describe_snapshots", SnapshotIds=[self.snapshot]
                )
            except ProviderError as error:
                if error.code != "InvalidSnapshot.NotFound":
                    raise
                return "lost" if self.task.clock.monotonic() - asked > GRACE else None
            found: str = answer["Snapshots"][0]["State"]
            return found if found != "pending" else None

        what = f"waiting for snapshot {self.snapshot}"
        try:
            end = self.task.poll(state, interval=1.0, timeout=timeout, what=what, provider="aws")
        except ProviderError:
            if refusal is not None:  # it was not sealed: AWS refused for another reason
                raise refusal from None
            raise
        if end != "completed":
            raise _Lost
