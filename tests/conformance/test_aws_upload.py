"""An upload goes on where it was cut off, and never doubles or trusts too much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.aws.upload import blocks_to_send
from publisher.errors import ProviderError
from publisher.model import Image
from tests.unit.aws_cloud import DATA, Cloud, cloud


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path) as found:
        yield found


def written(aws: Cloud, snapshot: str) -> list[int]:
    return aws.sandbox.store.blocks(snapshot).listed()


def puts(aws: Cloud) -> int:
    return sum(line.startswith("PUT") for line in aws.sandbox.faults.requests)


def cut_off(aws: Cloud, after: int) -> str:
    """An upload that dies after some blocks, one worker; returns its snapshot."""
    disk = aws.disk(0, 1, 2, 3)
    aws.sandbox.faults.add("fail", pattern="PUT", skip=after, times=99)
    task = aws.task()
    with pytest.raises(ProviderError):
        aws.aws(workers=1).upload(disk, aws.spec(disk), task)
    task.memory.close()
    aws.sandbox.faults.clear()
    (snapshot,) = aws.sandbox.store.snapshots
    return snapshot


def test_zero_blocks_are_sent_as_asked(aws: Cloud) -> None:
    disk = aws.disk(0, 9, holes=(4, 5))
    assert blocks_to_send("send", disk) == list(range(2048))
    for policy, blocks in (("skip-holes", [0, 4, 5, 9]), ("skip-zeros", [0, 9])):
        spec = aws.spec(disk, version=policy)
        upload = aws.aws(zero_blocks=policy, workers=4).upload(disk, spec, aws.task(policy))
        assert written(aws, upload.ref) == blocks, policy


def test_only_what_is_missing_is_sent_again(aws: Cloud) -> None:
    snapshot = cut_off(aws, after=2)
    disk = aws.disk(0, 1, 2, 3)
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert upload.ref == snapshot
    assert puts(aws) == 2
    assert written(aws, snapshot) == [0, 1, 2, 3]


def test_without_memory_the_pending_snapshot_is_found_and_written_anew(aws: Cloud) -> None:
    snapshot = cut_off(aws, after=2)
    disk = aws.disk(0, 1, 2, 3)
    upload = aws.aws().upload(disk, aws.spec(disk, run="run2"), aws.task("elsewhere"))
    assert upload.ref == snapshot
    assert puts(aws) == 4


def test_a_snapshot_that_holds_unknown_blocks_is_begun_again(aws: Cloud) -> None:
    snapshot = cut_off(aws, after=2)
    aws.put(snapshot, 77)
    disk = aws.disk(0, 1, 2, 3)
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert upload.ref != snapshot
    assert written(aws, upload.ref) == [0, 1, 2, 3]
    assert aws.sandbox.resources() == [f"snapshot/us-east-1/{upload.ref}"]


def test_a_completed_snapshot_is_adopted_unless_its_content_is_another(aws: Cloud) -> None:
    disk = aws.disk(0, 1)
    first = aws.aws().upload(disk, aws.spec(disk), aws.task())
    before = puts(aws)
    assert aws.aws().upload(disk, aws.spec(disk), aws.task("elsewhere")).ref == first.ref
    assert puts(aws) == before
    assert aws.aws().upload(disk, aws.spec(disk, version="2"), aws.task("2")).ref != first.ref


def test_a_lost_answer_to_completion_does_no_harm(aws: Cloud) -> None:
    disk = aws.disk(0, 1)
    aws.sandbox.faults.add("lose", pattern="completion")
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert aws.sandbox.resources() == [f"snapshot/us-east-1/{upload.ref}"]


def test_deleting_and_publishing_again_gets_a_new_snapshot(aws: Cloud) -> None:
    """The client token of the deleted one would answer with the dead id."""
    disk = aws.disk(0, 1)
    first = aws.aws().upload(disk, aws.spec(disk), aws.task())
    image = Image("aws", "us-east-1", "us-east-1/ami-00000000", "web", "1", disk.sha256)
    for memory in ("memory", "elsewhere"):
        aws.aws().delete(image, aws.task("delete"))
        assert aws.sandbox.resources() == []
        upload = aws.aws().upload(disk, aws.spec(disk), aws.task(memory))
        assert upload.ref != first.ref
        assert written(aws, upload.ref) == [0, 1]


def test_leftovers_of_the_same_content_are_swept_and_others_stay(aws: Cloud) -> None:
    disk = aws.disk(0)
    spec = aws.spec(disk)
    tags = [
        {"Key": f"publisher:{key}", "Value": value}
        for key, value in (("name", "web"), ("version", "1"), ("digest", disk.sha256))
    ]
    for _ in range(2):
        aws.start(Tags=tags)
    stranger = aws.start(Tags=[{"Key": "publisher:name", "Value": "web"}])
    upload = aws.aws().upload(disk, spec, aws.task())
    assert set(aws.sandbox.store.snapshots) == {upload.ref, stranger}


def test_a_snapshot_that_timed_out_is_replaced(aws: Cloud) -> None:
    snapshot = cut_off(aws, after=1)
    aws.sandbox.store.snapshots[snapshot].expires = 1.0
    disk = aws.disk(0, 1, 2, 3)
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert aws.sandbox.resources() == [f"snapshot/us-east-1/{upload.ref}"]
    assert upload.ref != snapshot


def test_every_snapshot_is_tagged_at_birth(aws: Cloud) -> None:
    snapshot = aws.sandbox.store.snapshots[cut_off(aws, after=0)]
    disk = aws.disk(0, 1, 2, 3)
    assert snapshot.tags == {
        "Name": "web-1",
        "publisher:name": "web",
        "publisher:version": "1",
        "publisher:digest": disk.sha256,
        "publisher:run": "run1",
    }
    assert snapshot.expires - snapshot.started >= 720 * 60


def test_an_encrypted_upload_uses_the_key_of_the_region(aws: Cloud) -> None:
    keys = {}
    for region in ("us-east-1", "eu-west-1"):
        kms = aws.client("kms", region)
        keys[region] = kms.create_key()["KeyMetadata"]["Arn"]
        kms.create_alias(AliasName="alias/images", TargetKeyId=keys[region])
    provider = aws.aws(encrypted=True, kms_key="alias/images")
    disk = aws.disk(0)
    upload = provider.upload(disk, aws.spec(disk), aws.task())
    snapshots = aws.sandbox.store.snapshots
    assert (snapshots[upload.ref].encrypted, snapshots[upload.ref].kms_key) == (
        True,
        keys["us-east-1"],
    )
    image = provider.register(upload, aws.spec(disk), aws.task("register"))
    (copy,) = provider.copy(image, ["eu-west-1"], aws.task("copy"))
    assert snapshots[copy.details["snapshot"]].kms_key == keys["eu-west-1"]
    provider.verify(copy, disk, aws.task("verify"))


def test_the_disk_s_last_block_is_padded(aws: Cloud) -> None:
    disk = aws.disk(2047)
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert aws.sandbox.store.blocks(upload.ref).get(2047) == DATA
