"""Rules of AWS that are known without asking it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from providers.aws.options import (
    AwsOptions,
    boot_mode,
    name_fault,
    tag_faults,
    tag_filters,
    tags_of,
    volume_size,
)
from providers.aws.provider import Aws
from publisher.model import GIB, Query, Severity, Spec


def spec(**changes: Any) -> Spec:
    return Spec(**{"name": "web", "version": "1", "size": 2 * GIB, **changes})


def rules(found: Spec, **options: Any) -> set[str]:
    aws = Aws(AwsOptions(**{"regions": ("us-east-1",), **options}))
    return {f.rule for f in aws.validate(found) if f.severity is Severity.ERROR}


@pytest.mark.parametrize("name", ["web-1.2", "a/b (c) [d] 'e'@f_g", "x" * 128, "abc"])
def test_names_that_aws_takes(name: str) -> None:
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "part"),
    [("ab", "3 to 128"), ("x" * 129, "3 to 128"), ("web:1", "':'"), ("wéb-1", "'é'")],
)
def test_names_that_aws_refuses(name: str, part: str) -> None:
    assert part in name_fault(name)


def test_a_name_is_checked_after_the_template_is_filled() -> None:
    assert rules(spec(version="1~rc1")) == {"aws.name"}
    assert rules(spec(version="1~rc1"), name="{name}") == set()


@pytest.mark.parametrize(
    ("firmware", "arch", "mode"),
    [
        ("bios", "x86_64", "legacy-bios"),
        ("uefi", "x86_64", "uefi"),
        ("bios+uefi", "x86_64", "uefi-preferred"),
        ("bios+uefi", "aarch64", "uefi"),
    ],
)
def test_the_boot_mode_follows_firmware_and_architecture(
    firmware: Any, arch: Any, mode: str
) -> None:
    assert boot_mode(spec(firmware=firmware, arch=arch)) == mode


def test_what_does_not_fit_together_is_found_before_anything_runs() -> None:
    assert rules(spec()) == set()
    assert rules(spec(firmware="bios"), tpm=True) == {"aws.tpm"}
    assert rules(spec(firmware="uefi"), tpm=True) == set()
    assert rules(spec(arch="aarch64", firmware="bios")) == {"aws.firmware"}
    assert rules(spec(size=GIB + 512)) == {"aws.size"}
    assert rules(spec(size=65_537 * GIB)) == {"aws.size"}
    assert rules(spec(), kms_key="alias/images") == {"aws.kms"}
    assert rules(spec(), regions=("us-east-1", "us-east-1")) == {"aws.regions"}
    assert rules(spec(), regions=("us-east-1", "cn-north-1")) == {"aws.partition"}
    assert rules(spec(tags={"aws:x": "y"})) == {"aws.tags"}


def test_skipping_blocks_of_an_encrypted_snapshot_is_warned_about() -> None:
    def severity(**options: Any) -> list[Severity]:
        aws = Aws(AwsOptions(regions=("us-east-1",), **options))
        return [f.severity for f in aws.validate(spec()) if f.rule == "aws.zero-blocks"]

    assert severity(encrypted=True, zero_blocks="skip-zeros") == [Severity.WARNING]
    assert severity(encrypted=True, zero_blocks="skip-holes") == [Severity.NOTE]
    assert severity(encrypted=True, zero_blocks="send") == []
    assert severity(zero_blocks="skip-zeros") == []


def test_options_refuse_what_makes_no_sense() -> None:
    for wrong in (
        {"regions": ()},
        {"regions": ("US-EAST-1",)},
        {"regions": ("us-east-1",), "snapshot_timeout": 60},
        {"regions": ("us-east-1",), "workers": 0},
        {"regions": ("us-east-1",), "kms_key": "arn:aws:kms:us-east-1:1:key/x"},
        {"regions": ("us-east-1",), "boot_mode": "uefi"},
    ):
        with pytest.raises(ValidationError):
            AwsOptions(**wrong)


def test_tags_keep_to_the_rules_and_leave_ours_alone() -> None:
    assert tag_faults({"team": "images", "empty": ""}) == {}
    faulty = {"k" * 128: "", "publisher:run": "", "Name": "", "AWS:x": "", "v": "x" * 256}
    assert set(tag_faults(faulty)) == set(faulty)
    assert tag_faults({f"k{i}": "" for i in range(41)})
    tags = tags_of(spec(tags={"team": "images"}, digest="d", run="r"), "web-1")
    assert tags["team"] == "images"
    assert tags["publisher:digest"] == "d"


def test_wildcards_in_a_query_are_meant_literally() -> None:
    (_, name) = tag_filters(Query(name="a*b?"))
    assert name["Values"] == [r"a\*b\?"]


def test_a_volume_has_whole_gib() -> None:
    assert [volume_size(n) for n in (1, GIB, GIB + 1)] == [1, 1, 2]
