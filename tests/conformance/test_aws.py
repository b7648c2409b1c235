"""AWS keeps the provider contract, against its sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from providers.aws.provider import Aws
from publisher.conformance import ProviderContract
from tests.unit.aws_cloud import cloud


class TestAws(ProviderContract):
    provider = Aws
    options: ClassVar[Mapping[str, object]] = {"regions": ("us-east-1", "eu-west-1")}
    accounts = ("444455556666", "777788889999")

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN000000000"}


def test_what_is_no_image_or_snapshot_is_moto_s(tmp_path: Path) -> None:
    with cloud(tmp_path) as aws:
        ec2 = aws.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        ec2.create_tags(Resources=[vpc], Tags=[{"Key": "a", "Value": "1"}])
        (found,) = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        assert found["Tags"] == [{"Key": "a", "Value": "1"}]
