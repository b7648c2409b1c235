"""Reading a snapshot by the EBS direct APIs: its list of blocks, and one block."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from providers.aws.api import Api
from providers.aws.options import BLOCK
from publisher.errors import ProviderError, VerifyError
from publisher.task import Task

PAGE = 1000
"""Blocks a page: few enough to be read before the next page's token expires (an hour)."""


def listing(api: Api, region: str, snapshot: str, task: Task) -> Iterator[tuple[int, str, int]]:
    """(index, token, volume size in GiB) of every block that the snapshot has, ascending.
    Pages may be empty and still have a successor."""
    parameters = {"SnapshotId": snapshot, "MaxResults": PAGE}
    for page in api.pages(task, "ebs", region, "list_snapshot_blocks", **parameters):
        if page["BlockSize"] != BLOCK:
            raise ProviderError(f"AWS has blocks of {page['BlockSize']} bytes", provider="aws")
        for block in page.get("Blocks", ()):
            yield block["BlockIndex"], block["BlockToken"], page["VolumeSize"]


def size(api: Api, region: str, snapshot: str, task: Task) -> int:
    """GiB of the volume; needs the same permission as reading."""
    answer = api.call(
        task, "ebs", region, "list_snapshot_blocks", SnapshotId=snapshot, MaxResults=100
    )
    gib: int = answer["VolumeSize"]
    return gib


def read(api: Api, region: str, snapshot: str, index: int, token: str, task: Task) -> bytes:
    """One block, its checksum verified; a wrong one is read again before it is believed."""

    def once() -> bytes:
        answer = api.once(
            "ebs",
            region,
            "get_snapshot_block",
            SnapshotId=snapshot,
            BlockIndex=index,
            BlockToken=token,
        )
        data: bytes = answer["BlockData"]
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if len(data) != BLOCK or answer["DataLength"] != BLOCK or answer["Checksum"] != digest:
            raise VerifyError(
                f"block {index} of {snapshot} in {region} does not match its checksum",
                provider="aws",
                transient=True,
            )
        return data

    return task.retry(once)
