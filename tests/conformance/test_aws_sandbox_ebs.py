"""The sandbox's EBS direct APIs refuse what AWS refuses: asked with plain boto3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.aws.options import BLOCK
from providers.aws.sandbox import AwsSandbox, ebs
from providers.aws.sandbox.signature import OWNER, STRANGER, Account
from tests.unit.aws_cloud import DATA, Cloud, checksum, cloud, refused


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path) as found:
        yield found


def test_blocks_are_half_mebibytes(aws: Cloud) -> None:
    assert aws.client("ebs").start_snapshot(VolumeSize=1)["BlockSize"] == BLOCK
    snapshot = aws.start()
    with refused("ValidationException"):
        aws.put(snapshot, 0, b"abc")
    with refused("ValidationException"):
        aws.put(snapshot, 2048)  # the first one beyond a GiB
    with refused("ValidationException"):
        aws.put(snapshot, 0, DataLength=512)


def test_a_wrong_checksum_is_refused(aws: Cloud) -> None:
    snapshot = aws.start()
    with refused("ValidationException"):
        aws.put(snapshot, 0, Checksum=checksum(b"other"))
    answer = aws.put(snapshot, 0)
    assert answer["Checksum"] == checksum(DATA)


def test_a_client_token_gives_the_first_answer_again(aws: Cloud) -> None:
    first = aws.start(ClientToken="t", Tags=[{"Key": "a", "Value": "b"}])
    assert aws.start(ClientToken="t", Tags=[{"Key": "a", "Value": "b"}]) == first
    with refused("ConflictException"):
        aws.start(ClientToken="t", Tags=[{"Key": "a", "Value": "c"}])
    assert aws.start(ClientToken="u") != first
    with refused("ValidationException"):
        aws.start(ClientToken="x" * 65)
    aws.client("ec2").delete_snapshot(SnapshotId=first)  # the token outlives its snapshot
    assert aws.start(ClientToken="t", Tags=[{"Key": "a", "Value": "b"}]) == first
    with refused("ResourceNotFoundException"):
        aws.put(first, 0)


def test_limits_of_start_snapshot(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        {"VolumeSize": 65_537},
        {"Timeout": 5},
        {"Timeout": 4321},
        {"KmsKeyArn": "arn:aws:kms:us-east-1:111122223333:key/x"},
        {"Tags": [{"Key": "aws:x", "Value": ""}]},
        {"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]},
    ):
        with refused("ValidationException"):
            aws.start(**wrong)
    with refused("ValidationException"):
        aws.start(ParentSnapshotId=aws.completed(0), Encrypted=True)
    monkeypatch.setattr(ebs, "PENDING_QUOTA", 2)
    aws.start()
    aws.start()
    with refused("ServiceQuotaExceededException"):
        aws.start()


def test_a_pending_snapshot_can_not_be_read_and_a_completed_one_not_written(aws: Cloud) -> None:
    direct, snapshot = aws.client("ebs"), aws.start()
    aws.put(snapshot, 3)
    with refused("ValidationException"):
        direct.list_snapshot_blocks(SnapshotId=snapshot)
    direct.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    with refused("ValidationException"):
        aws.put(snapshot, 4)
    with refused("ValidationException"):
        direct.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    aws.settled(snapshot)
    assert [
        b["BlockIndex"] for b in direct.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    ] == [3]


def test_completing_needs_the_right_count_and_checksum(aws: Cloud) -> None:
    direct, snapshot = aws.client("ebs"), aws.start()
    other = bytes(BLOCK)
    aws.put(snapshot, 9)
    aws.put(snapshot, 2, other)
    aws.put(snapshot, 9)  # written over: still one block
    with refused("ValidationException"):
        direct.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=3)
    digests = [hashlib.sha256(data).digest() for data in (other, DATA)]  # ascending by index
    total = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    with refused("ValidationException"):
        direct.complete_snapshot(
            SnapshotId=snapshot,
            ChangedBlocksCount=2,
            Checksum=checksum(b"".join(reversed(digests))),
            **total,
        )
    direct.complete_snapshot(
        SnapshotId=snapshot, ChangedBlocksCount=2, Checksum=checksum(b"".join(digests)), **total
    )


def test_lists_are_sorted_and_paged_with_empty_pages_between(aws: Cloud) -> None:
    direct, snapshot = aws.client("ebs"), aws.completed(7, 1, 900, 4, 2)
    with refused("ValidationException"):
        direct.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=99)
    aws.sandbox.limit_pages(2)
    pages, parameters = [], {"SnapshotId": snapshot}
    while True:
        page = direct.list_snapshot_blocks(**parameters)
        pages.append([b["BlockIndex"] for b in page["Blocks"]])
        if "NextToken" not in page:
            break
        parameters["NextToken"] = page["NextToken"]
    assert pages == [[1, 2], [], [4, 7], [], [900]]
    with refused("ValidationException"):
        direct.list_snapshot_blocks(SnapshotId=snapshot, NextToken="AAAA")


def test_a_block_needs_its_own_token(aws: Cloud) -> None:
    direct, snapshot = aws.client("ebs"), aws.completed(0, 1)
    zero, one = (
        b["BlockToken"] for b in direct.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    )
    answer = direct.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=zero)
    assert (answer["BlockData"].read(), answer["Checksum"]) == (DATA, checksum(DATA))
    with refused("ValidationException"):
        direct.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=one)
    with refused("ValidationException"):
        forged = base64.b64encode(b"x" * 40).decode()
        direct.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=forged)


def test_changes_between_any_two_snapshots(aws: Cloud) -> None:
    direct = aws.client("ebs")
    first, second = aws.completed(0, 1), aws.start()
    aws.put(second, 1)
    aws.put(second, 2)
    direct.complete_snapshot(SnapshotId=second, ChangedBlocksCount=2)
    aws.settled(second)
    changed = direct.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)
    assert [
        (b["BlockIndex"], "FirstBlockToken" in b, "SecondBlockToken" in b)
        for b in changed["ChangedBlocks"]
    ] == [(0, True, False), (2, False, True)]


def test_a_child_inherits_and_counts_only_what_it_wrote(aws: Cloud) -> None:
    direct, parent = aws.client("ebs"), aws.completed(0, 1)
    child = aws.start(ParentSnapshotId=parent)
    aws.put(child, 1, bytes(BLOCK))
    with refused("ValidationException"):
        direct.complete_snapshot(SnapshotId=child, ChangedBlocksCount=2)
    direct.complete_snapshot(SnapshotId=child, ChangedBlocksCount=1)
    aws.settled(child)
    tokens = direct.list_snapshot_blocks(SnapshotId=child)["Blocks"]
    data = [
        direct.get_snapshot_block(SnapshotId=child, **token)["BlockData"].read() for token in tokens
    ]
    assert data == [DATA, bytes(BLOCK)]


def test_another_account_reads_what_is_shared_with_it_but_not_what_is_public(aws: Cloud) -> None:
    stranger, snapshot = aws.client("ebs", account=STRANGER), aws.completed(0)
    ec2 = aws.client("ec2")
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"Group": "all"}]}
    )
    with refused("AccessDeniedException"):
        stranger.list_snapshot_blocks(SnapshotId=snapshot)
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": STRANGER.id}]}
    )
    assert stranger.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    with refused("ResourceNotFoundException"):
        aws.client("ebs", "eu-west-1").list_snapshot_blocks(SnapshotId=snapshot)


@pytest.mark.parametrize(
    ("service", "operation", "unknown", "mismatch"),
    [
        ("ec2", "describe_regions", "AuthFailure", "AuthFailure"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("ebs", "list_snapshot_blocks", "UnrecognizedClientException", "InvalidSignatureException"),
    ],
)
def test_requests_are_signed_by_a_known_key(
    aws: Cloud, service: str, operation: str, unknown: str, mismatch: str
) -> None:
    parameters = {"SnapshotId": "snap-0"} if service == "ebs" else {}
    for account, code in (
        (Account(OWNER.id, "AKIAUNKNOWN000000000", OWNER.secret), unknown),
        (Account(OWNER.id, OWNER.key, "wrong"), mismatch),
    ):
        with refused(code):
            getattr(aws.client(service, account=account), operation)(**parameters)


def test_a_region_that_is_not_enabled_knows_nobody(aws: Cloud) -> None:
    with refused("AuthFailure"):
        aws.client("ec2", "af-south-1").describe_images(Owners=["self"])


def test_throttling_speaks_each_service_s_language(aws: Cloud) -> None:
    for service, operation, code in (
        ("ec2", "describe_regions", "RequestLimitExceeded"),
        ("sts", "get_caller_identity", "Throttling"),
    ):
        aws.sandbox.faults.add("throttle")
        with refused(code):
            getattr(aws.client(service), operation)()
    aws.sandbox.faults.add("throttle", pattern="PUT")
    with refused("RequestThrottledException"):
        aws.put(aws.start(), 0)


def test_all_is_kept_between_starts(aws: Cloud) -> None:
    snapshot, pending = aws.completed(5), aws.start(ClientToken="t")
    aws.put(pending, 8)
    aws.sandbox.stop()
    again = AwsSandbox(aws.where / "sandbox")
    again.start()
    try:
        resumed = Cloud(again, aws.where)
        assert resumed.start(ClientToken="t") == pending
        direct = resumed.client("ebs")
        assert direct.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]["BlockIndex"] == 5
        direct.complete_snapshot(SnapshotId=pending, ChangedBlocksCount=1)
    finally:
        again.stop()
