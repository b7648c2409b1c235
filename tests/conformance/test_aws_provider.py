"""What AWS asks of the provider beyond the contract that all providers keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers.aws.sandbox.signature import STRANGER
from publisher.errors import (
    Cancelled,
    ConflictError,
    CredentialsError,
    ProviderError,
    QuotaError,
    VerifyError,
)
from publisher.model import GIB, Audience, Disk, Image, Severity, Spec
from publisher.task import Cancellation, Task
from tests.unit.aws_cloud import DATA, Cloud, Impatient, cloud


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path) as found:
        yield found


def published(
    aws: Cloud, *, abilities: tuple[str, ...] | None = None, **options: Any
) -> tuple[Image, Disk, Spec]:
    disk = aws.disk(0, 5)
    spec = replace(aws.spec(disk, tags={"team": "images"}), abilities=abilities)
    provider = aws.aws(**options)
    upload = provider.upload(disk, spec, aws.task("upload"))
    return provider.register(upload, spec, aws.task("register")), disk, spec


def raw(aws: Cloud, image: Image) -> Any:
    return aws.client("ec2", image.region).describe_images(ImageIds=[image.details["ami"]])[
        "Images"
    ][0]


def findings(aws: Cloud, *regions: str, **changes: Any) -> dict[str, Severity]:
    spec = Spec("web", "1", size=GIB, digest=changes.pop("digest", ""))
    provider = aws.aws(regions=regions or ("us-east-1",), **changes)
    found = provider.check(spec, regions or ("us-east-1",), aws.task("check"))
    return {finding.rule: finding.severity for finding in found}


# -- register and copy


def test_an_image_has_what_the_options_say(aws: Cloud) -> None:
    image, _, _ = published(aws, tpm=True)
    found = raw(aws, image)
    assert found["BootMode"] == "uefi-preferred"
    assert (found["ImdsSupport"], found["TpmSupport"]) == ("v2.0", "v2.0")
    assert (found["EnaSupport"], found["SriovNetSupport"]) == (True, "simple")
    assert found["RootDeviceName"] == "/dev/xvda"
    volume = found["BlockDeviceMappings"][0]["Ebs"]
    assert (volume["VolumeType"], volume["DeleteOnTermination"]) == ("gp3", True)
    assert {t["Key"]: t["Value"] for t in found["Tags"]}["team"] == "images"


def test_an_image_without_the_driver_is_registered_without_ena(aws: Cloud) -> None:
    image, disk, _ = published(aws, abilities=())
    copies = aws.aws().copy(image, ["us-east-1", "eu-west-1"], aws.task("copy"))
    for one in copies:
        assert not raw(aws, one).get("EnaSupport")
        aws.aws().verify(one, disk, aws.task("verify"))
    aws.sandbox.store.images[copies[1].details["ami"]].attributes["EnaSupport"] = True
    with pytest.raises(VerifyError, match="ENA"):
        aws.aws().verify(copies[1], disk, aws.task("verify"))


def test_every_copy_and_its_snapshot_are_tagged(aws: Cloud) -> None:
    image, disk, _ = published(aws)
    (copy,) = aws.aws().copy(image, ["eu-west-1"], aws.task("copy"))
    snapshot = aws.sandbox.store.snapshots[copy.details["snapshot"]]
    tags = {t["Key"]: t["Value"] for t in raw(aws, copy)["Tags"]}
    assert snapshot.tags == tags
    assert tags["publisher:digest"] == disk.sha256
    assert tags["team"] == "images"


def test_an_image_that_someone_else_made_keeps_its_name(aws: Cloud) -> None:
    aws.image(aws.completed(0), "web-1")
    disk = aws.disk(0)
    with pytest.raises(ConflictError, match="did not make"):
        aws.aws().upload(disk, aws.spec(disk), aws.task())
    assert len(aws.sandbox.resources()) == 2, "nothing was uploaded in vain"
    assert findings(aws)["aws.name"] is Severity.ERROR


def test_a_name_that_is_taken_in_the_other_region_stops_the_copy(aws: Cloud) -> None:
    image, _, _ = published(aws)
    foreign = aws.image(aws.completed(0), "foreign")
    aws.client("ec2", "eu-west-1").copy_image(
        Name="web-1", SourceImageId=foreign, SourceRegion="us-east-1"
    )
    with pytest.raises(ConflictError, match="eu-west-1"):
        aws.aws().copy(image, ["eu-west-1"], aws.task("copy"))


def test_a_name_that_is_taken_by_what_aws_does_not_list_says_so(aws: Cloud) -> None:
    """Such as a disabled image, or one in the Recycle Bin."""
    hidden = aws.image(aws.completed(0), "web-1")
    aws.sandbox.store.images[hidden].visible = float("inf")
    disk = aws.disk(0)
    upload = aws.aws().upload(disk, aws.spec(disk), aws.task())
    with pytest.raises(ConflictError, match="already in use"):
        aws.aws().register(upload, aws.spec(disk), aws.task("register"))


# -- verify


@pytest.mark.parametrize(
    ("attribute", "value", "what"),
    [
        ("ImdsSupport", None, "IMDS"),
        ("TpmSupport", "v2.0", "TPM"),
        ("BootMode", "legacy-bios", "boot mode"),
        ("EnaSupport", False, "ENA"),
    ],
)
def test_verify_compares_attributes(aws: Cloud, attribute: str, value: Any, what: str) -> None:
    image, disk, _ = published(aws)
    aws.aws().verify(image, disk, aws.task("verify"))
    aws.sandbox.store.images[image.details["ami"]].attributes[attribute] = value
    with pytest.raises(VerifyError, match=what):
        aws.aws().verify(image, disk, aws.task("verify"))


def test_verify_names_the_byte_and_misses_no_block(aws: Cloud) -> None:
    image, disk, _ = published(aws)
    aws.sandbox.limit_pages(1)  # and empty pages between
    aws.aws().verify(image, disk, aws.task("verify"))
    aws.sandbox.corrupt(image.ref, 5 * len(DATA) + 17)
    with pytest.raises(VerifyError, match=f"byte {5 * len(DATA) + 17} "):
        aws.aws().verify(image, disk, aws.task("verify"))
    blocks = aws.sandbox.store.blocks(image.details["snapshot"])
    del blocks.checksums[5]
    with pytest.raises(VerifyError, match="missing"):
        aws.aws().verify(image, disk, aws.task("verify"))


# -- release


def test_a_blocked_public_release_says_what_to_do(aws: Cloud) -> None:
    image, _, _ = published(aws)
    aws.client("ec2").enable_image_block_public_access(
        ImageBlockPublicAccessState="block-new-sharing"
    )
    with pytest.raises(CredentialsError) as caught:
        aws.aws().release(image, Audience("public"), aws.task("release"))
    assert "disable-image-block-public-access" in caught.value.hint
    assert findings(aws)["aws.block-public-access"] is Severity.NOTE


def test_a_full_quota_of_public_images_is_found_before_and_at_the_release(aws: Cloud) -> None:
    image, _, _ = published(aws)
    snapshot = aws.completed(0)
    for number in range(5):
        aws.client("ec2").modify_image_attribute(
            ImageId=aws.image(snapshot, f"public-{number}"),
            LaunchPermission={"Add": [{"Group": "all"}]},
        )
    assert findings(aws, digest=image.digest)["aws.quota"] is Severity.WARNING
    with pytest.raises(QuotaError):
        aws.aws().release(image, Audience("public"), aws.task("release"))


def test_snapshots_are_shared_only_when_asked_and_closed_again(aws: Cloud) -> None:
    image, _, _ = published(aws)
    snapshot = aws.sandbox.store.snapshots[image.details["snapshot"]]
    shared = Audience("shared", (STRANGER.id,))
    aws.aws().release(image, shared, aws.task("release"))
    assert snapshot.users == []
    aws.aws(share_snapshots=True).release(image, shared, aws.task("release"))
    assert snapshot.users == [STRANGER.id]
    aws.aws().withdraw(image, aws.task("withdraw"))
    assert snapshot.users == []


def test_an_organization_may_be_the_audience_and_nonsense_may_not(aws: Cloud) -> None:
    image, _, _ = published(aws)
    arn = "arn:aws:organizations::111122223333:organization/o-abcdefghij"
    aws.aws().release(image, Audience("shared", (arn,)), aws.task("release"))
    assert aws.sandbox.store.images[image.details["ami"]].organizations == [arn]
    with pytest.raises(ProviderError, match="no AWS account") as caught:
        aws.aws().release(image, Audience("shared", ("me@example.org",)), aws.task("release"))
    assert "12 digits" in caught.value.hint


# -- check


def test_check_knows_regions_that_are_off_or_do_not_exist(aws: Cloud) -> None:
    provider = aws.aws(regions=("us-east-1", "af-south-1", "us-east-9"))
    found = provider.check(
        Spec("web", "1"), ("us-east-1", "af-south-1", "us-east-9"), aws.task("check")
    )
    assert [(f.rule, f.key) for f in found] == [
        ("aws.region", "regions[1]"),
        ("aws.region", "regions[2]"),
    ]


def test_check_warns_of_encryption_by_default(aws: Cloud) -> None:
    assert findings(aws) == {}
    aws.client("ec2").enable_ebs_encryption_by_default()
    assert findings(aws) == {"aws.encryption-by-default": Severity.WARNING}
    assert findings(aws, encrypted=True) == {}


def test_check_misses_a_key_that_a_region_lacks(aws: Cloud) -> None:
    aws.client("kms").create_alias(
        AliasName="alias/only-here",
        TargetKeyId=aws.client("kms").create_key()["KeyMetadata"]["KeyId"],
    )
    options = {"encrypted": True, "kms_key": "alias/only-here"}
    assert findings(aws, "us-east-1", **options) == {}
    assert findings(aws, "us-east-1", "eu-west-1", **options) == {"aws.kms": Severity.ERROR}


# -- download


def test_a_public_snapshot_is_copied_for_reading_and_the_copy_removed(
    aws: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ami = aws.image(aws.completed(0, 3))
    ec2 = aws.client("ec2")
    (snapshot,) = aws.sandbox.store.snapshots
    ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": [{"Group": "all"}]})
    for name, value in aws.sandbox.environment_of(STRANGER).items():
        monkeypatch.setenv(name, value)
    source = aws.aws()
    with pytest.raises(ProviderError, match="does not exist") as caught:
        source.download(f"us-east-1/{ami}", tmp_path / "x.raw", aws.task("download"))
    assert "shared" in caught.value.hint
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"Group": "all"}]}
    )
    before = aws.sandbox.resources()

    cancellation = Cancellation()
    aws.sandbox.faults.add(
        "stall", pattern=r"GET /snapshots/[^/]+/blocks/", fired=cancellation.cancel
    )
    stopped = Task("aws.test", aws.task("download").memory, cancellation=cancellation)
    with pytest.raises(Cancelled):
        source.download(f"us-east-1/{ami}", tmp_path / "x.raw", stopped)
    assert aws.sandbox.resources() == before, "the copy goes also when the run is cancelled"
    stopped.memory.close()

    disk = source.download(f"us-east-1/{ami}", tmp_path / "x.raw", aws.task("download"))
    assert aws.sandbox.resources() == before
    assert disk.size == GIB
    assert [(e.offset, e.length) for e in disk.extents] == [
        (0, len(DATA)),
        (3 * len(DATA), len(DATA)),
    ]


def test_describe_tells_what_a_foreign_image_is(aws: Cloud) -> None:
    snapshot = aws.completed(0)
    for number, (parameters, arch, firmware) in enumerate(
        (
            ({}, "x86_64", "bios"),
            ({"BootMode": "uefi-preferred"}, "x86_64", "bios+uefi"),
            ({"Architecture": "arm64"}, "aarch64", "uefi"),
        )
    ):
        ami = aws.image(snapshot, f"foreign-{number}", **parameters)
        spec = aws.aws().describe(f"us-east-1/{ami}", aws.task("describe"))
        assert (spec.name, spec.arch, spec.firmware, spec.size) == (
            f"foreign-{number}",
            arch,
            firmware,
            GIB,
        )


def test_a_reference_that_names_no_image_says_so(aws: Cloud) -> None:
    for ref in ("ami-0123", "us-east-1/snap-0123", ""):
        with pytest.raises(ProviderError, match="names no AMI"):
            aws.aws().describe(ref, aws.task("describe"))


# -- delete


def test_delete_leaves_what_another_image_stands_on(aws: Cloud) -> None:
    image, _, _ = published(aws)
    aws.image(image.details["snapshot"], "another")
    aws.aws().delete(image, aws.task("delete"))
    assert sorted(name.split("/")[0] for name in aws.sandbox.resources()) == ["image", "snapshot"]


def test_delete_finds_the_snapshots_when_the_image_is_gone(aws: Cloud) -> None:
    image, _, _ = published(aws)
    aws.client("ec2").deregister_image(ImageId=image.details["ami"])
    aws.aws().delete(image, Task("aws.test", aws.task("delete").memory, clock=Impatient()))
    assert aws.sandbox.resources() == []
