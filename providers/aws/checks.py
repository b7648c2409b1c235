"""What can be known before anything is built: offline (`validate`) and online (`check`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from providers.aws.api import Api, key_arn, tags_in
from providers.aws.images import Images
from providers.aws.options import (
    PREFIX,
    SIZE_MAX,
    AwsOptions,
    boot_mode,
    name_fault,
    tag_faults,
)
from publisher.errors import ProviderError, PublishError, QuotaError, UnreachableError
from publisher.model import GIB, Finding, Severity, Spec
from publisher.task import Task

T = TypeVar("T")

NOWHERE = "snap-00000000000000000"
QUOTAS = {"L-0E3CBAB9": "public AMIs", "L-B665C33B": "AMIs"}
"""Quota codes of the service "ec2"."""
QUICK_ATTEMPTS = 3


def validate(options: AwsOptions, spec: Spec) -> Iterator[Finding]:
    if fault := name_fault(options.fill(spec)):
        yield _error("aws.name", fault, "change the template `name`", "name")
    if spec.size % GIB or spec.size > SIZE_MAX:
        yield _error(
            "aws.size",
            f"the disk has {spec.size} bytes; a volume has 1 to 65536 whole GiB",
            "set build.size to whole GiB",
        )
    seen = set()
    for number, region in enumerate(options.regions):
        if region in seen:
            yield _error("aws.regions", f"{region} is twice there", "", f"regions[{number}]")
        if _partition(region) != _partition(options.regions[0]):
            yield _error(
                "aws.partition",
                f"{region} and {options.regions[0]} are in different partitions of AWS; an AMI "
                "can't be copied between them",
                "publish to each partition from a pipeline of its own",
                f"regions[{number}]",
            )
        seen.add(region)
    if options.tpm and boot_mode(spec) == "legacy-bios":
        yield _error("aws.tpm", "a TPM needs UEFI", "set build.firmware, or tpm = false", "tpm")
    if spec.arch == "aarch64" and spec.firmware == "bios":
        yield _error("aws.firmware", "arm64 instances boot by UEFI only", "set build.firmware")
    if options.kms_key and not options.encrypted:
        yield _error("aws.kms", "kms_key has no effect", "set encrypted = true", "kms_key")
    for key, fault in tag_faults(spec.tags).items():
        yield _error("aws.tags", f"tag {key!r}: {fault}" if key else fault, "change image.tags")
    if options.encrypted and options.zero_blocks != "send":
        yield Finding(
            "aws.zero-blocks",
            Severity.WARNING if options.zero_blocks == "skip-zeros" else Severity.NOTE,
            f"blocks that are not sent ({options.zero_blocks}) read as random bytes on an "
            "encrypted volume",
            'set zero_blocks = "send" unless the guest never reads them',
            "zero_blocks",
        )


def check(
    api: Api, options: AwsOptions, spec: Spec, regions: Sequence[str], task: Task
) -> list[Finding]:
    task.phase("asking AWS who we are")
    account = _identity(api, regions[0], task)
    findings = list(_regions(api, options, regions, task))
    usable = [r for r in regions if not any(f.evidence.startswith(f"{r} ") for f in findings)]
    task.phase(f"checking account {account} in {', '.join(usable) or 'no region'}")
    work = task.map(
        lambda region: (region, list(_region(api, options, spec, region, task))),
        usable,
        workers=max(1, len(usable)),
    )
    by_region = dict(work)
    return findings + [finding for region in usable for finding in by_region[region]]


def _identity(api: Api, region: str, task: Task) -> str:
    """The account. An endpoint that can't be reached is given up after few tries."""
    tries = 0

    def ask() -> str:
        nonlocal tries
        tries += 1
        try:
            account: str = api.once("sts", region, "get_caller_identity")["Account"]
        except UnreachableError as error:
            error.transient = tries < QUICK_ATTEMPTS
            error.retry_after = 0.5
            raise
        return account

    return task.retry(ask)


def _regions(
    api: Api, options: AwsOptions, regions: Sequence[str], task: Task
) -> Iterator[Finding]:
    answer = api.call(task, "ec2", regions[0], "describe_regions", AllRegions=True)
    status = {r["RegionName"]: r["OptInStatus"] for r in answer["Regions"]}
    for region in regions:
        key = f"regions[{options.regions.index(region)}]" if region in options.regions else ""
        if region not in status:
            yield _error(
                "aws.region", f"{region} does not exist", "see: aws ec2 describe-regions", key
            )
        elif status[region] == "not-opted-in":
            yield _error(
                "aws.region",
                f"{region} is not enabled in this account",
                f"aws account enable-region --region-name {region}",
                key,
            )


def _region(
    api: Api, options: AwsOptions, spec: Spec, region: str, task: Task
) -> Iterator[Finding]:
    yield from _permissions(api, options, region, task)
    yield from _name(api, options, spec, region, task)
    yield from _switches(api, options, region, task)
    yield from _quotas(api, region, task)
    if options.kms_key:
        try:
            key_arn(api, region, options.kms_key, task)
        except ProviderError as error:
            yield _error("aws.kms", f"{region}: {error.message}", "create the key there", "kms_key")


def _name(api: Api, options: AwsOptions, spec: Spec, region: str, task: Task) -> Iterator[Finding]:
    name = options.fill(spec)
    images = Images(api, options)
    taken = task.retry(lambda: images.named(region, name))
    if taken is None:
        return
    have = tags_in(taken).get(f"{PREFIX}digest")
    if have and have == spec.digest:
        yield Finding(
            "aws.name", Severity.NOTE, f"{region} has {name!r} already: {taken['ImageId']}"
        )
    else:
        unknown = have and not spec.digest
        yield Finding(
            "aws.name",
            Severity.WARNING if unknown else Severity.ERROR,
            f"{region} has another image under {name!r}: {taken['ImageId']}"
            if not unknown
            else f"{region} has an image under {name!r} ({taken['ImageId']}): only the very same "
            "content can be published under that name",
            "publish under another version, or delete the old image first",
            "name",
        )


def _permissions(api: Api, options: AwsOptions, region: str, task: Task) -> Iterator[Finding]:
    """EC2 by DryRun; EBS direct has none, so by a snapshot that does not exist: IAM
    refuses before AWS looks for it."""
    first = region == options.regions[0]
    probes: dict[str, tuple[str, dict[str, Any]]] = {
        "ec2:CreateTags": (
            "create_tags",
            {"Resources": [NOWHERE], "Tags": [{"Key": "publisher", "Value": ""}]},
        ),
        "ec2:DescribeSnapshots": ("describe_snapshots", {"OwnerIds": ["self"]}),
    }
    if first:
        probes["ec2:RegisterImage"] = ("register_image", {"Name": "publisher-check"})
    else:
        probes["ec2:CopyImage"] = (
            "copy_image",
            {
                "Name": "publisher-check",
                "SourceImageId": "ami-00000000000000000",
                "SourceRegion": options.regions[0],
            },
        )
    for permission, (operation, parameters) in probes.items():
        call = _call(api, task, "ec2", region, operation, DryRun=True, **parameters)
        yield from _denied(permission, region, call)
    direct: dict[str, tuple[str, dict[str, Any]]] = {
        "ebs:ListSnapshotBlocks": ("list_snapshot_blocks", {"SnapshotId": NOWHERE}),
    }
    if first:
        direct["ebs:CompleteSnapshot"] = (
            "complete_snapshot",
            {"SnapshotId": NOWHERE, "ChangedBlocksCount": 0},
        )
    for permission, (operation, parameters) in direct.items():
        call = _call(api, task, "ebs", region, operation, **parameters)
        yield from _denied(permission, region, call)


def _call(
    api: Api, task: Task, service: str, region: str, operation: str, **parameters: Any
) -> Callable[[], Any]:
    return lambda: api.call(task, service, region, operation, **parameters)


def _denied(permission: str, region: str, call: Callable[[], Any]) -> Iterator[Finding]:
    try:
        call()
    except ProviderError as error:
        if error.code in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"):
            yield _error(
                "aws.permission",
                f"{region} does not allow {permission}: {error.message}",
                f"allow {permission} to the IAM identity",
            )
        elif error.transient or isinstance(error, UnreachableError | QuotaError):
            raise


def _switches(api: Api, options: AwsOptions, region: str, task: Task) -> Iterator[Finding]:
    encrypted = _optional(lambda: api.call(task, "ec2", region, "get_ebs_encryption_by_default"))
    if encrypted and encrypted["EbsEncryptionByDefault"] and not options.encrypted:
        yield Finding(
            "aws.encryption-by-default",
            Severity.WARNING,
            f"{region} encrypts every snapshot of this account: the image can't be public, and "
            "not be shared unless the account's default key is one of its own",
            f"aws ec2 disable-ebs-encryption-by-default --region {region}, or set encrypted and "
            "kms_key",
            "encrypted",
        )
    blocked = _optional(
        lambda: api.call(task, "ec2", region, "get_image_block_public_access_state")
    )
    if blocked and blocked["ImageBlockPublicAccessState"] != "unblocked":
        yield Finding(
            "aws.block-public-access",
            Severity.NOTE,
            f"{region} blocks public images: a public release would be refused",
            f"aws ec2 disable-image-block-public-access --region {region}",
        )


def _quotas(api: Api, region: str, task: Task) -> Iterator[Finding]:
    for code, what in QUOTAS.items():
        answer = _optional(
            lambda code=code: api.call(  # type: ignore[misc]
                task,
                "service-quotas",
                region,
                "get_service_quota",
                ServiceCode="ec2",
                QuotaCode=code,
            )
        )
        if answer is None:
            continue
        only_public = [{"Name": "is-public", "Values": ["true"]}] if "public" in what else []
        pages = api.pages(
            task, "ec2", region, "describe_images", Owners=["self"], Filters=only_public
        )
        used, most = sum(len(page["Images"]) for page in pages), int(answer["Quota"]["Value"])
        if used >= most:
            yield Finding(
                "aws.quota",
                Severity.WARNING if "public" in what else Severity.ERROR,
                f"{region} has {used} {what} of at most {most}",
                f"delete some, or ask for more: quota {code} in Service Quotas",
            )


def _optional(call: Callable[[], T]) -> T | None:
    """None where the IAM identity may not ask: what is not needed is not demanded."""
    try:
        return call()
    except PublishError as error:
        if isinstance(error, ProviderError) and not error.transient:
            return None
        raise


def _partition(region: str) -> str:
    for prefix in ("cn-", "us-gov-", "us-iso", "eu-isoe-", "eusc-"):
        if region.startswith(prefix):
            return prefix
    return "aws"


def _error(rule: str, evidence: str, fix: str, key: str = "") -> Finding:
    return Finding(rule, Severity.ERROR, evidence, fix, key)
