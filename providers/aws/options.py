"""[targets.aws] and the rules of AWS that need no network: names, tags, boot modes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from publisher.errors import UsageError
from publisher.model import GIB, Arch, Firmware, Image, Query, Spec
from publisher.provider import Options

ZeroBlocks = Literal["send", "skip-holes", "skip-zeros"]
BootMode = Literal["legacy-bios", "uefi", "uefi-preferred"]
Region = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[a-z]+)+-\d+$")]

BLOCK = 524_288
"""Bytes of an EBS direct block: https://docs.aws.amazon.com/ebs/latest/userguide/ebsapi-elements.html"""
SIZE_MAX = 65_536 * GIB
PREFIX = "publisher:"
ARCHITECTURES: Mapping[Arch, str] = {"x86_64": "x86_64", "aarch64": "arm64"}
BOOT_MODES: Mapping[Firmware, BootMode] = {
    "bios": "legacy-bios",
    "uefi": "uefi",
    "bios+uefi": "uefi-preferred",
}
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


class AwsOptions(Options):
    """The [targets.aws] section."""

    regions: tuple[Region, ...] = Field(
        min_length=1,
        description="Regions to publish to; the first one receives the upload, the others copies.",
    )
    zero_blocks: ZeroBlocks = Field(
        "skip-holes",
        description=(
            "Which 512 KiB blocks of zeros to send: all of the volume (send), only those that the "
            "disk holds as data (skip-holes), or none (skip-zeros). A block that was not sent "
            "reads as random bytes on a volume that is launched encrypted. Holes are safe to skip "
            "for a disk whose free space was trimmed, because nothing reads them before it "
            "writes; use send for other disks, and skip-zeros only where no volume is encrypted."
        ),
    )
    imds_v2: bool = Field(
        True, description="Require IMDSv2 (HttpTokens=required) on instances of the image."
    )
    tpm: bool = Field(
        False, description="Offer a NitroTPM 2.0; needs a disk that boots by UEFI only or also."
    )
    ena: bool | None = Field(
        None,
        description="The guest has the driver of the Elastic Network Adapter; by default that is "
        "looked up on the disk.",
    )
    volume_type: Literal["gp3", "gp2", "io1", "io2", "standard"] = Field(
        "gp3", description="Type of the root volume."
    )
    root_device: str = Field(
        "/dev/xvda", pattern=r"^/dev/(xvda|sda1)$", description="Device name of the root volume."
    )
    encrypted: bool = Field(
        False,
        description=(
            "Encrypt the snapshots. An encrypted image can't be public, and can be shared only "
            "when kms_key names a key of your own that the other accounts may use."
        ),
    )
    kms_key: str | None = Field(
        None,
        pattern=r"^(alias/[\w/-]+|mrk-[0-9a-f]+|[0-9a-f-]{36})$",
        description=(
            "Key for `encrypted`: an alias (alias/NAME), or the id of a key. It is looked up in "
            "every region, so with several regions use an alias or a multi-region key (mrk-…)."
        ),
    )
    share_snapshots: bool = Field(
        False,
        description=(
            "On release also let the same accounts make volumes from the snapshot, so that they "
            "can copy the image."
        ),
    )
    snapshot_timeout: int = Field(
        1440,
        ge=720,
        le=4320,
        description="Minutes that AWS keeps an unfinished upload, and so lets it be continued.",
    )
    workers: int = Field(
        16,
        ge=1,
        le=64,
        description="Blocks in flight at a time; fewer on a slow line.",
    )

    def locations(self) -> tuple[str, ...]:
        return self.regions

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        return {"regions": text.split(",")}

    @classmethod
    def from_reference(cls, text: str, given: Mapping[str, object]) -> Mapping[str, object]:  # noqa: ARG003
        region, slash, image = text.partition("/")
        if not (slash and image):
            raise UsageError(
                f"aws:{text} names no image", hint="write aws:REGION/AMI, aws:us-east-1/ami-0123"
            )
        return {"regions": [region]}


def name_fault(name: str) -> str:
    """What is wrong with an AMI's name, or nothing.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
    """
    if not 3 <= len(name) <= 128:
        return f"an AMI's name has 3 to 128 characters, {name!r} has {len(name)}"
    if not _NAME.fullmatch(name):
        wrong = sorted({c for c in name if not _NAME.fullmatch(c * 3)})
        return f"an AMI's name can't contain {' '.join(map(repr, wrong))}"
    return ""


def tag_faults(tags: Mapping[str, str]) -> dict[str, str]:
    """What is wrong, by the tag's key.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
    """
    faults: dict[str, str] = {}
    for key, value in tags.items():
        if not 1 <= len(key) <= 127:
            faults[key] = "a tag's key has 1 to 127 characters"
        elif key.lower().startswith("aws:") or key.startswith(PREFIX) or key == "Name":
            faults[key] = f"tags named aws:…, {PREFIX}… and Name are taken"
        elif len(value) > 255:
            faults[key] = "a tag's value has at most 255 characters"
    if len(tags) > 40:
        faults[""] = "at most 40 tags leave room for those that every resource carries"
    return faults


def tags_of(spec: Spec, name: str) -> dict[str, str]:
    """What every resource carries from its birth; `name` is the AMI's."""
    return {
        **spec.tags,
        "Name": name,
        f"{PREFIX}name": spec.name,
        f"{PREFIX}version": spec.version,
        f"{PREFIX}digest": spec.digest,
        f"{PREFIX}run": spec.run,
    }


def tag_filters(query: Query) -> list[dict[str, object]]:
    """EC2 filters for our own resources; wildcards in the values are taken literally."""
    filters: list[dict[str, object]] = [{"Name": "tag-key", "Values": [f"{PREFIX}digest"]}]
    for key in ("name", "version", "digest", "run"):
        if value := getattr(query, key):
            literal = re.sub(r"([\\*?])", r"\\\1", value)
            filters.append({"Name": f"tag:{PREFIX}{key}", "Values": [literal]})
    return filters


def identity(of: Spec | Image) -> Query:
    """The query for all that was made for one version of one image with one content."""
    return Query(name=of.name, version=of.version, digest=of.digest)


def ena(options: AwsOptions, spec: Spec) -> bool:
    """Whether to register with ENA support."""
    return spec.bears("ena") if options.ena is None else options.ena


def boot_mode(spec: Spec) -> BootMode:
    """arm64 instances boot by UEFI only."""
    return "uefi" if spec.arch == "aarch64" else BOOT_MODES[spec.firmware]


def volume_size(size: int) -> int:
    """Whole GiB that hold `size` bytes."""
    return max(1, -(-size // GIB))
