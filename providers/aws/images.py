"""AMIs: register, copy to regions, find, delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from providers.aws.api import GRACE, Answer, Api, key_arn, tag_list, tags_in, token
from providers.aws.options import (
    ARCHITECTURES,
    PREFIX,
    AwsOptions,
    boot_mode,
    ena,
    identity,
    tag_filters,
    tags_of,
    volume_size,
)
from providers.aws.permissions import audience_of, launch_permissions
from publisher.errors import ConflictError, ProviderError
from publisher.model import Image, ImageState, Query, Spec, Upload
from publisher.task import Task

STATES: dict[str, ImageState] = {"available": "available", "pending": "pending"}
COPY_TIMEOUT = 6 * 3600.0
CONSECUTIVE = 3
"""Reads in a row that must say "available" before it is believed: the API's hosts
do not all learn of an AMI at once (bottlerocket's pubsys waits likewise)."""
ENA = "ena"
"""Among an image's details: whether ENA support was asked for, "True" or "False"."""
GONE = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")
GONE_SNAPSHOT = ("InvalidSnapshot.NotFound",)


class Images:
    """AMIs of one account, `options` deciding how they are made."""

    def __init__(self, api: Api, options: AwsOptions) -> None:
        self.api = api
        self.options = options

    # -- looking

    def described(self, region: str, ami: str) -> Answer | None:
        """The AMI as DescribeImages has it, or None if it is gone (or not seen yet). One call."""
        try:
            images = self.api.once("ec2", region, "describe_images", ImageIds=[ami])["Images"]
        except ProviderError as error:
            if error.code in GONE:
                return None
            raise
        return images[0] if images else None

    def named(self, region: str, name: str) -> Answer | None:
        """Our account's AMI of that name: unique in an account and region. One call."""
        images = self.api.once(
            "ec2",
            region,
            "describe_images",
            Owners=["self"],
            Filters=[{"Name": "name", "Values": [name]}],
        )["Images"]
        return images[0] if images else None

    def find(self, query: Query, task: Task) -> list[Image]:
        def search(region: str) -> list[Image]:
            pages = self.api.pages(
                task,
                "ec2",
                region,
                "describe_images",
                Owners=["self"],
                Filters=tag_filters(query),
            )
            return [self.image(i, region, task) for page in pages for i in page["Images"]]

        regions = self.options.regions
        found = task.map(lambda r: (r, search(r)), regions, workers=len(regions))
        by_region = dict(found)
        return [image for region in regions for image in by_region[region]]

    def image(self, raw: Answer, region: str, task: Task) -> Image:
        tags = tags_in(raw)
        ami = raw["ImageId"]
        return Image(
            "aws",
            region,
            f"{region}/{ami}",
            tags.get(f"{PREFIX}name") or raw.get("Name", ""),
            tags.get(f"{PREFIX}version", ""),
            tags.get(f"{PREFIX}digest", ""),
            STATES.get(raw["State"], "failed"),
            audience_of(task.retry(lambda: launch_permissions(self.api, region, ami))),
            {
                "ami": ami,
                "ami_name": raw.get("Name", ""),
                "snapshot": root_snapshot(raw),
                "boot_mode": raw.get("BootMode", ""),
                "architecture": raw["Architecture"],
            },
        )

    def require(self, image: Image, task: Task) -> Answer:
        found = task.retry(lambda: self.described(*ami_of(image.ref)))
        if found is None:
            raise ProviderError(f"{image.reference} does not exist", provider="aws", code=GONE[0])
        return found

    # -- making

    def refuse_other(self, raw: Answer, name: str, digest: str, region: str) -> None:
        """Raise ConflictError unless this AMI has the same content and is ours."""
        have = tags_in(raw).get(f"{PREFIX}digest")
        if have != digest:
            what = f"other content ({have[:12]}…)" if have else "an image that we did not make"
            raise ConflictError(
                f"{region} has {what} under the name {name!r}: {raw['ImageId']}",
                provider="aws",
                code="InvalidAMIName.Duplicate",
                key="name",
                hint="publish under another version, or delete the old image first",
            )

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        region, name = upload.region, self.options.fill(spec)
        task.phase(f"registering {name} in {region}")
        optional: dict[str, Any] = {}
        if self.options.tpm:
            optional["TpmSupport"] = "v2.0"
        if self.options.imds_v2:
            optional["ImdsSupport"] = "v2.0"
        if ena(self.options, spec):
            optional |= {"EnaSupport": True, "SriovNetSupport": "simple"}

        def make() -> str:
            answer = self.api.once(
                "ec2",
                region,
                "register_image",
                Name=name,
                Description=spec.description or f"{spec.name} {spec.version}",
                Architecture=ARCHITECTURES[spec.arch],
                BootMode=boot_mode(spec),
                VirtualizationType="hvm",
                RootDeviceName=self.options.root_device,
                BlockDeviceMappings=[
                    {
                        "DeviceName": self.options.root_device,
                        "Ebs": {
                            "SnapshotId": upload.ref,
                            "VolumeSize": volume_size(spec.size),
                            "VolumeType": self.options.volume_type,
                            "DeleteOnTermination": True,
                        },
                    }
                ],
                TagSpecifications=[
                    {"ResourceType": "image", "Tags": tag_list(tags_of(spec, name))}
                ],
                **optional,
            )
            ami: str = answer["ImageId"]
            return ami

        ami = self._ensure(region, name, upload.digest, make, task)
        raw = self._available(region, ami, 1.0, GRACE * 4, task)
        if raw is None:
            raise ProviderError(
                f"{region} registered {ami} and does not show it", provider="aws", transient=True
            )
        if root_snapshot(raw) != upload.ref:
            self._delete_snapshot(region, upload.ref, task)
        return _asked(self.image(raw, region, task), str(ena(self.options, spec)))

    def _ensure(
        self, region: str, name: str, digest: str, make: Callable[[], str], task: Task
    ) -> str:
        """The id of the AMI of that name, made if there is none: RegisterImage has no
        client token, so one looks before, and after a refusal of the name."""

        doubts: list[ProviderError] = []

        def once() -> str | None:
            found = self.named(region, name)
            if found is not None:
                self.refuse_other(found, name, digest, region)
                ami: str = found["ImageId"]
                return ami
            try:
                return make()
            except ConflictError as error:
                if error.code != "InvalidAMIName.Duplicate":
                    raise
                doubts.append(error)
                return None  # it is there and not seen yet
            except ProviderError as error:
                if error.code in (*GONE_SNAPSHOT, "IncorrectState"):
                    doubts.append(error)
                    return None  # completed a moment ago, and not everywhere yet
                raise

        what = f"registering {name} in {region}"
        try:
            return task.poll(once, interval=2.0, timeout=GRACE, what=what, provider="aws")
        except ProviderError as error:
            if doubts and not error.code:  # it was no delay: say what AWS said
                raise doubts[-1] from None
            raise

    def _available(
        self, region: str, ami: str, interval: float, timeout: float, task: Task
    ) -> Answer | None:
        """The AMI once it is available in several reads in a row; None when it stays
        unknown. Raises ProviderError when it failed."""
        asked = task.clock.monotonic()
        row: list[Answer] = []

        def look() -> list[Answer] | None:
            raw = self.described(region, ami)
            if raw is None:
                row.clear()
                return [] if task.clock.monotonic() - asked > GRACE else None
            if raw["State"] == "available":
                row.append(raw)
            elif raw["State"] == "pending":
                row.clear()
            else:
                reason = raw.get("StateReason", {}).get("Message", "no reason given")
                raise ProviderError(
                    f"{ami} in {region} is {raw['State']}: {reason}",
                    provider="aws",
                    code="ImageFailed",
                )
            return row or None

        what = f"waiting for {ami} in {region}"
        task.poll(look, interval=interval, timeout=timeout, what=what, provider="aws")
        while 0 < len(row) < CONSECUTIVE:
            task.sleep(0.5)
            task.retry(look)
        return row[-1] if row else None

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> list[Image]:
        elsewhere = [region for region in regions if region != image.region]
        made = {image.region: image}
        if elsewhere:
            source = self.require(image, task)
            task.phase(f"copying {source['Name']} to {', '.join(elsewhere)}")
            total = len(elsewhere)
            copies = task.map(
                lambda region: self._copy(image, source, region, task), elsewhere, workers=total
            )
            for done, copy in enumerate(copies, 1):
                made[copy.region] = copy
                task.progress(done, total, "items")
        return [made[region] for region in regions]

    def _copy(self, image: Image, source: Answer, region: str, task: Task) -> Image:
        name, tags = source["Name"], tags_in(source)
        arn = key_arn(self.api, region, self.options.kms_key, task)
        encryption: dict[str, Any] = {"Encrypted": True} if self.options.encrypted else {}
        if arn:
            encryption["KmsKeyId"] = arn
        for attempt in range(4):

            def make(attempt: int = attempt) -> str:
                answer = self.api.once(
                    "ec2",
                    region,
                    "copy_image",
                    Name=name,
                    Description=source.get("Description", ""),
                    SourceImageId=source["ImageId"],
                    SourceRegion=image.region,
                    CopyImageTags=True,
                    TagSpecifications=[{"ResourceType": "snapshot", "Tags": tag_list(tags)}],
                    # a used token answers with its old AMI, even when that is gone
                    ClientToken=token("copy", source["ImageId"], region, task.run, attempt),
                    **encryption,
                )
                ami: str = answer["ImageId"]
                return ami

            try:
                ami = self._ensure(region, name, image.digest, make, task)
                raw = self._available(region, ami, 5.0, COPY_TIMEOUT, task)
            except ProviderError as error:
                if error.code == "ImageFailed":
                    self._remove(region, ami, [], task)
                elif error.code != "IdempotentParameterMismatch":
                    raise
                continue
            if raw is not None:
                self._tag(region, raw, tags, task)
                return _asked(self.image(raw, region, task), image.details.get(ENA))
        raise ProviderError(
            f"the copy of {name} to {region} failed again and again", provider="aws"
        )

    def _tag(self, region: str, raw: Answer, tags: dict[str, str], task: Task) -> None:
        """Every tag on the copy and its snapshot, whatever CopyImage left out."""
        snapshot = root_snapshot(raw)
        answer = self.api.call(task, "ec2", region, "describe_snapshots", SnapshotIds=[snapshot])
        bare = [
            id_
            for id_, have in (
                (raw["ImageId"], tags_in(raw)),
                (snapshot, tags_in(answer["Snapshots"][0])),
            )
            if not tags.items() <= have.items()
        ]
        if bare:
            self.api.call(task, "ec2", region, "create_tags", Resources=bare, Tags=tag_list(tags))

    # -- removing

    def delete(self, image: Image, task: Task) -> None:
        """The AMI, its snapshots, and uploads of the same content that were left behind."""
        region, ami = ami_of(image.ref)
        raw = task.retry(lambda: self.described(region, ami))
        known = [image.details[k] for k in ("snapshot",) if image.details.get(k)]
        self._remove(region, ami, known + (snapshots_in(raw) if raw else []), task)
        if not image.digest:
            return
        pages = self.api.pages(
            task,
            "ec2",
            region,
            "describe_snapshots",
            OwnerIds=["self"],
            Filters=tag_filters(identity(image)),
        )
        for snapshot in [s["SnapshotId"] for page in pages for s in page["Snapshots"]]:
            self._delete_snapshot(region, snapshot, task)

    def _remove(self, region: str, ami: str, snapshots: Sequence[str], task: Task) -> None:
        task.phase(f"deleting {ami} in {region}")
        try:
            self.api.call(
                task,
                "ec2",
                region,
                "deregister_image",
                ImageId=ami,
                DeleteAssociatedSnapshots=True,
            )
        except ProviderError as error:
            if error.code not in GONE:
                raise
        for snapshot in dict.fromkeys(snapshots):
            self._delete_snapshot(region, snapshot, task)

    def _delete_snapshot(self, region: str, snapshot: str, task: Task) -> None:
        """Unless it is gone, or another AMI stands on it."""
        try:
            self.api.call(task, "ec2", region, "delete_snapshot", SnapshotId=snapshot)
        except ProviderError as error:
            if error.code not in (*GONE_SNAPSHOT, "InvalidSnapshot.InUse"):
                raise


def ami_of(ref: str) -> tuple[str, str]:
    """(region, AMI id) of "us-east-1/ami-0123". Raises ProviderError."""
    match = re.fullmatch(r"([a-z0-9-]+)/(ami-[0-9a-f]+)", ref)
    if not match:
        raise ProviderError(
            f"{ref!r} names no AMI", provider="aws", hint="write it as aws:us-east-1/ami-0123…"
        )
    return match[1], match[2]


def snapshots_in(raw: Answer) -> list[str]:
    mappings = raw.get("BlockDeviceMappings", ())
    return [m["Ebs"]["SnapshotId"] for m in mappings if m.get("Ebs", {}).get("SnapshotId")]


def root_volume(raw: Answer) -> Answer:
    """The Ebs part of the root device's mapping, or an empty one."""
    for mapping in raw.get("BlockDeviceMappings", ()):
        if mapping.get("DeviceName") == raw.get("RootDeviceName"):
            volume: Answer = mapping.get("Ebs", {})
            return volume
    return {}


def root_snapshot(raw: Answer) -> str:
    """The snapshot behind the root device, or nothing."""
    snapshot: str = root_volume(raw).get("SnapshotId", "")
    return snapshot


def _asked(image: Image, with_ena: str | None) -> Image:
    return image if with_ena is None else replace(image, details={**image.details, ENA: with_ena})
