"""The sandbox's EC2 refuses what AWS refuses, and hands the rest to moto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.aws.sandbox.signature import OWNER, STRANGER
from tests.unit.aws_cloud import Cloud, cloud, refused


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path) as found:
        yield found


def described(aws: Cloud, ami: str, region: str = "us-east-1") -> Any:
    return aws.client("ec2", region).describe_images(ImageIds=[ami])["Images"][0]


def settled(aws: Cloud, ami: str, region: str) -> Any:
    while described(aws, ami, region)["State"] == "pending":
        pass
    return described(aws, ami, region)


def test_attributes_are_stored_and_described(aws: Cloud) -> None:
    snapshot = aws.completed(0)
    ami = aws.image(
        snapshot,
        BootMode="uefi-preferred",
        TpmSupport="v2.0",
        ImdsSupport="v2.0",
        EnaSupport=True,
        SriovNetSupport="simple",
        Description="a web server",
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}],
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "VolumeSize": 3},
            }
        ],
    )
    image = described(aws, ami)
    assert (image["BootMode"], image["TpmSupport"]) == ("uefi-preferred", "v2.0")
    assert (image["ImdsSupport"], image["EnaSupport"]) == ("v2.0", True)
    assert image["Tags"] == [{"Key": "a", "Value": "b"}]
    assert image["State"] == "available"
    volume = image["BlockDeviceMappings"][0]["Ebs"]
    assert volume == {
        "SnapshotId": snapshot,
        "VolumeSize": 3,
        "VolumeType": "gp3",
        "Iops": 3000,
        "Throughput": 125,
        "DeleteOnTermination": True,
        "Encrypted": False,
    }


def test_register_refuses_what_does_not_fit(aws: Cloud) -> None:
    snapshot = aws.completed(0)
    for code, parameters in (
        ("InvalidAMIName.Malformed", {"name": "web:1"}),
        ("InvalidAMIName.Malformed", {"name": "ab"}),
        ("InvalidParameterCombination", {"TpmSupport": "v2.0", "BootMode": "legacy-bios"}),
        ("InvalidParameterCombination", {"Architecture": "arm64", "BootMode": "legacy-bios"}),
        ("InvalidParameterCombination", {"EnaSupport": True, "VirtualizationType": "paravirtual"}),
        ("InvalidParameterValue", {"BootMode": "both"}),
        ("InvalidBlockDeviceMapping", {"RootDeviceName": "/dev/sda1"}),
        (
            "InvalidParameterValue",
            {
                "TagSpecifications": [
                    {"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}
                ]
            },
        ),
        (
            "InvalidParameterDependency",
            {
                "BlockDeviceMappings": [
                    {
                        "DeviceName": "/dev/xvda",
                        "Ebs": {"SnapshotId": snapshot, "Encrypted": True},
                    }
                ]
            },
        ),
    ):
        with refused(code):
            aws.image(snapshot, **parameters)
    with refused("IncorrectState"):
        aws.image(aws.start())
    with refused("InvalidSnapshot.NotFound"):
        aws.image("snap-00000000000000000")
    aws.image(snapshot)
    with refused("InvalidAMIName.Duplicate"):
        aws.image(snapshot)
    assert len(aws.sandbox.resources()) == 3


def test_unknown_parameters_and_filters_are_refused(aws: Cloud) -> None:
    ec2 = aws.client("ec2")
    with refused("InvalidParameterValue"):
        ec2.describe_images(Filters=[{"Name": "nmae", "Values": ["x"]}])
    with refused("DryRunOperation"):
        ec2.register_image(Name="x", DryRun=True)
    with refused("MissingParameter"):
        ec2.register_image(Description="no name")


def test_filters_know_wildcards_and_escapes(aws: Cloud) -> None:
    snapshot = aws.completed(0, Tags=[{"Key": "k", "Value": "a*b"}])
    aws.image(snapshot, "web-1")
    aws.image(snapshot, "web-2")
    ec2 = aws.client("ec2")

    def names(value: str) -> list[str]:
        found = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [value]}])
        return sorted(image["Name"] for image in found["Images"])

    assert names("web-?") == ["web-1", "web-2"]
    assert names("w*2") == ["web-2"]
    assert names("web") == []
    for value, count in ((r"a\*b", 1), (r"a\*c", 0), ("a*", 1)):
        filters = [{"Name": "tag:k", "Values": [value]}]
        assert len(ec2.describe_snapshots(Filters=filters)["Snapshots"]) == count
    page = ec2.describe_images(Owners=["self"], MaxResults=1)
    rest = ec2.describe_images(Owners=["self"], MaxResults=1, NextToken=page["NextToken"])
    assert len(page["Images"]) == len(rest["Images"]) == 1
    assert "NextToken" not in rest


def test_a_copy_carries_blocks_and_attributes_but_no_permissions(aws: Cloud) -> None:
    snapshot = aws.completed(0, 7)
    ami = aws.image(
        snapshot,
        BootMode="uefi",
        ImdsSupport="v2.0",
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    aws.client("ec2").modify_image_attribute(
        ImageId=ami, LaunchPermission={"Add": [{"UserId": STRANGER.id}]}
    )
    there = aws.client("ec2", "eu-west-1")
    request: dict[str, Any] = {
        "Name": "web-1",
        "SourceImageId": ami,
        "SourceRegion": "us-east-1",
        "CopyImageTags": True,
        "ClientToken": "t",
        "TagSpecifications": [{"ResourceType": "snapshot", "Tags": [{"Key": "c", "Value": "d"}]}],
    }
    copy = there.copy_image(**request)["ImageId"]
    assert described(aws, copy, "eu-west-1")["State"] == "pending"
    assert there.copy_image(**request)["ImageId"] == copy
    with refused("IdempotentParameterMismatch"):
        there.copy_image(**{**request, "Name": "web-2"})
    with refused("InvalidAMIName.Duplicate"):
        there.copy_image(**{**request, "ClientToken": "u"})
    with refused("InvalidAMIID.NotFound"):
        there.copy_image(**{**request, "ClientToken": "v", "SourceRegion": "us-west-2"})
    image = settled(aws, copy, "eu-west-1")
    assert (image["BootMode"], image["ImdsSupport"], image["Public"]) == ("uefi", "v2.0", False)
    assert image["SourceImageId"] == ami
    assert image["Tags"] == [{"Key": "a", "Value": "b"}]
    id_ = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert id_ != snapshot
    assert there.describe_snapshots(SnapshotIds=[id_])["Snapshots"][0]["Tags"] == [
        {"Key": "c", "Value": "d"}
    ]
    blocks = aws.client("ebs", "eu-west-1").list_snapshot_blocks(SnapshotId=id_)["Blocks"]
    assert [block["BlockIndex"] for block in blocks] == [0, 7]
    permissions = there.describe_image_attribute(ImageId=copy, Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == []


def test_a_copy_is_damaged_alone(aws: Cloud) -> None:
    ami = aws.image(aws.completed(0))
    there = aws.client("ec2", "eu-west-1")
    copy = there.copy_image(Name="c01", SourceImageId=ami, SourceRegion="us-east-1")["ImageId"]
    aws.sandbox.corrupt(f"eu-west-1/{copy}", 100)
    whole, damaged = (
        next(aws.sandbox.content(ref)) for ref in (f"us-east-1/{ami}", f"eu-west-1/{copy}")
    )
    assert whole[100] ^ damaged[100] == 1
    assert whole[:100] + whole[101:] == damaged[:100] + damaged[101:]


def test_a_snapshot_in_use_stays(aws: Cloud) -> None:
    ec2, snapshot = aws.client("ec2"), aws.completed(0)
    first, second = aws.image(snapshot, "one"), aws.image(snapshot, "two")
    with refused("InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot)
    answer = ec2.deregister_image(ImageId=first, DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "skipped"}]
    answer = ec2.deregister_image(ImageId=second, DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "success"}]
    assert aws.sandbox.resources() == []
    with refused("InvalidAMIID.Unavailable"):
        ec2.deregister_image(ImageId=first)
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[first])
    with refused("InvalidSnapshot.NotFound"):
        ec2.delete_snapshot(SnapshotId=snapshot)


def test_public_images_are_limited_and_may_be_blocked(aws: Cloud) -> None:
    ec2, snapshot = aws.client("ec2"), aws.completed(0)

    def publish(ami: str) -> None:
        ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": [{"Group": "all"}]})

    images = [aws.image(snapshot, f"web-{n}") for n in range(6)]
    ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    with refused("OperationNotPermitted"):
        publish(images[0])
    ec2.disable_image_block_public_access()
    for ami in images[:5]:
        publish(ami)
    with refused("ResourceLimitExceeded"):
        publish(images[5])
    assert described(aws, images[0])["Public"]
    quotas = aws.client("service-quotas")
    quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-0E3CBAB9")["Quota"]
    assert quota["Value"] == 5


def test_permissions_are_for_accounts_and_organizations(aws: Cloud) -> None:
    ec2, ami = aws.client("ec2"), aws.image(aws.completed(0))
    unit = "arn:aws:organizations::111122223333:ou/o-abcdefghij/ou-ab12-cd34"
    for wrong in ({"UserId": "42"}, {"OrganizationArn": "arn:aws:iam::1:user/x"}):
        with pytest.raises(Exception, match="Invalid"):
            ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": [wrong]})
    stranger = aws.client("ec2", account=STRANGER)
    with refused("InvalidAMIID.NotFound"):
        stranger.describe_images(ImageIds=[ami])
    ec2.modify_image_attribute(
        ImageId=ami,
        LaunchPermission={"Add": [{"UserId": STRANGER.id}, {"OrganizationalUnitArn": unit}]},
    )
    (seen,) = stranger.describe_images(ImageIds=[ami])["Images"]
    assert seen["OwnerId"] == OWNER.id
    with refused("AuthFailure"):
        stranger.deregister_image(ImageId=ami)
    with refused("InvalidRequest"):  # may launch, but not read the storage
        stranger.copy_image(Name="mine", SourceImageId=ami, SourceRegion="us-east-1")


def test_encrypted_images_are_not_shared_carelessly(aws: Cloud) -> None:
    ec2 = aws.client("ec2")
    ec2.enable_ebs_encryption_by_default()
    ami = aws.image(aws.completed(0))
    assert described(aws, ami)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    with refused("InvalidParameter"):
        ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": [{"UserId": STRANGER.id}]})
    with refused("InvalidParameter"):
        ec2.modify_snapshot_attribute(
            SnapshotId=described(aws, ami)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"],
            CreateVolumePermission={"Add": [{"Group": "all"}]},
        )


def test_what_is_new_shows_late_when_asked_to(aws: Cloud) -> None:
    snapshot = aws.completed(0)
    aws.sandbox.faults.visibility_delay = 30.0
    ami = aws.image(snapshot)
    with refused("InvalidAMIID.NotFound"):
        aws.client("ec2").describe_images(ImageIds=[ami])
    with refused("InvalidAMIName.Duplicate"):  # the name is taken all the same
        aws.image(snapshot)
    with refused("ResourceNotFoundException"):
        aws.put(aws.start(), 0)


def test_tags_come_and_go_and_regions_are_told(aws: Cloud) -> None:
    ec2, ami = aws.client("ec2"), aws.image(aws.completed(0))
    ec2.create_tags(Resources=[ami], Tags=[{"Key": "a", "Value": "1"}])
    ec2.create_tags(Resources=[ami], Tags=[{"Key": "b", "Value": "2"}])
    ec2.delete_tags(Resources=[ami], Tags=[{"Key": "a"}])
    assert described(aws, ami)["Tags"] == [{"Key": "b", "Value": "2"}]
    regions = {
        r["RegionName"]: r["OptInStatus"] for r in ec2.describe_regions(AllRegions=True)["Regions"]
    }
    assert regions["af-south-1"] == "not-opted-in"
