"""Who may use an AMI: launch permissions, and those of its snapshot."""

from __future__ import annotations

import re
from typing import Any

from providers.aws.api import GRACE, Api
from publisher.errors import ProviderError
from publisher.model import Audience
from publisher.task import Task

Principal = tuple[str, str]
"""A member of a LaunchPermission and its value, such as ("UserId", "111122223333")."""


def launch_permissions(api: Api, region: str, ami: str) -> set[Principal]:
    """One call."""
    answer = api.once(
        "ec2", region, "describe_image_attribute", ImageId=ami, Attribute="launchPermission"
    )
    return {pair for entry in answer["LaunchPermissions"] for pair in entry.items()}


def open_image(api: Api, region: str, ami: str, audience: Audience, task: Task) -> None:
    """Give the AMI exactly these launch permissions; returns when they are seen."""
    wanted = principals(audience)
    have = task.retry(lambda: launch_permissions(api, region, ami))
    if have == wanted:
        return
    task.phase(f"opening {ami} in {region}: {audience.kind}")
    try:
        api.call(
            task,
            "ec2",
            region,
            "modify_image_attribute",
            ImageId=ami,
            LaunchPermission=_change(have, wanted),
        )
    except ProviderError as error:
        if error.code == "OperationNotPermitted":
            error.hint = (
                "block public access is on: aws ec2 disable-image-block-public-access "
                f"--region {region}"
            )
        raise
    task.poll(
        lambda: launch_permissions(api, region, ami) == wanted or None,
        interval=2.0,
        timeout=GRACE,
        what=f"waiting for the permissions of {ami}",
        provider="aws",
    )


def open_snapshot(api: Api, region: str, snapshot: str, audience: Audience, task: Task) -> None:
    """Let exactly these accounts make volumes from the snapshot. Organizations can't
    be given that, only accounts and everybody."""
    wanted = {p for p in principals(audience) if p[0] in ("UserId", "Group")}
    answer = api.call(
        task,
        "ec2",
        region,
        "describe_snapshot_attribute",
        SnapshotId=snapshot,
        Attribute="createVolumePermission",
    )
    have = {pair for entry in answer["CreateVolumePermissions"] for pair in entry.items()}
    if have != wanted:
        api.call(
            task,
            "ec2",
            region,
            "modify_snapshot_attribute",
            SnapshotId=snapshot,
            CreateVolumePermission=_change(have, wanted),
        )


def _change(have: set[Principal], wanted: set[Principal]) -> dict[str, Any]:
    change = {
        "Add": [{member: value} for member, value in sorted(wanted - have)],
        "Remove": [{member: value} for member, value in sorted(have - wanted)],
    }
    return {operation: entries for operation, entries in change.items() if entries}


def principals(audience: Audience) -> set[Principal]:
    """Raises ProviderError for what is neither an account nor an organization."""
    if audience.kind == "public":
        return {("Group", "all")}
    if audience.kind == "private":
        return set()
    found = set()
    for account in audience.accounts:
        if re.fullmatch(r"\d{12}", account):
            found.add(("UserId", account))
        elif re.fullmatch(r"arn:aws[a-z-]*:organizations::\d{12}:organization/o-\w+", account):
            found.add(("OrganizationArn", account))
        elif re.fullmatch(r"arn:aws[a-z-]*:organizations::\d{12}:ou/o-\w+/ou-[\w-]+", account):
            found.add(("OrganizationalUnitArn", account))
        else:
            raise ProviderError(
                f"{account!r} is no AWS account",
                provider="aws",
                key="accounts",
                hint="give 12 digits, or the ARN of an organization or organizational unit",
            )
    return found


def audience_of(permissions: set[Principal]) -> Audience:
    if ("Group", "all") in permissions:
        return Audience("public")
    if permissions:
        return Audience("shared", tuple(sorted(value for _, value in permissions)))
    return Audience("private")
