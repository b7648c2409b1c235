"""An AMI's root disk into a local file, block by block. A snapshot that the EBS
direct APIs do not let us read (a public one) is copied first and the copy removed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from providers.aws.api import Answer, Api, tag_list, tags_in
from providers.aws.blocks import listing, read, size
from providers.aws.images import Images, ami_of, root_snapshot, root_volume
from providers.aws.options import ARCHITECTURES, BLOCK, BOOT_MODES, PREFIX, AwsOptions
from publisher.disks import raw
from publisher.errors import ProviderError, PublishError, VerifyError
from publisher.model import GIB, Disk, Spec
from publisher.task import Task

COPY_TIMEOUT = 6 * 3600.0
UNREADABLE = ("AccessDeniedException", "ResourceNotFoundException")


def describe(images: Images, ref: str, task: Task) -> Spec:
    image = _image(images, ref, task)
    tags = tags_in(image)
    architecture = {v: k for k, v in ARCHITECTURES.items()}.get(image["Architecture"])
    if architecture is None:
        raise ProviderError(
            f"aws:{ref} is for {image['Architecture']}",
            provider="aws",
            hint="only x86_64 and arm64 images can be read",
        )
    mode = image.get("BootMode", "uefi" if architecture == "aarch64" else "legacy-bios")
    return Spec(
        name=tags.get(f"{PREFIX}name") or image.get("Name") or image["ImageId"],
        version=tags.get(f"{PREFIX}version", image.get("CreationDate", "")[:10]),
        arch=architecture,
        firmware={v: k for k, v in BOOT_MODES.items()}[mode],
        size=root_volume(image).get("VolumeSize", 0) * GIB,
        description=image.get("Description", ""),
        digest=tags.get(f"{PREFIX}digest", ""),
    )


def download(
    api: Api, options: AwsOptions, images: Images, ref: str, into: Path, task: Task
) -> Disk:
    region, _ = ami_of(ref)
    image = _image(images, ref, task)
    snapshot = root_snapshot(image)
    if task.memory.get("source") != snapshot:
        # what an earlier download of another image left is of no use
        into.with_name(into.name + ".partial").unlink(missing_ok=True)
        task.memory.set("source", snapshot)
    with (
        _readable(api, region, snapshot, task) as (readable, gib),
        raw.SparseWriter(into, gib * GIB, task) as writer,
    ):
        _fetch(api, options, region, readable, writer, task)
        writer.finish()
    task.memory.forget("source")
    task.phase("hashing what was read")
    disk = raw.inspect(into, task.check)
    wanted = tags_in(image).get(f"{PREFIX}digest")
    if wanted and wanted != disk.sha256:
        raise VerifyError(
            f"aws:{ref} has the digest {disk.sha256[:12]}…, its tag says {wanted[:12]}…",
            provider="aws",
            hint="the image was changed or damaged; look at who may write to the account",
        )
    return disk


def _image(images: Images, ref: str, task: Task) -> Answer:
    region, ami = ami_of(ref)
    image = task.retry(lambda: images.described(region, ami))
    if image is None:
        raise ProviderError(
            f"aws:{ref} does not exist, or is not shared with this account",
            provider="aws",
            code="InvalidAMIID.NotFound",
            hint="check region and id, and that the credentials are of an account that may see it",
        )
    if not root_snapshot(image):
        raise ProviderError(f"aws:{ref} has no EBS snapshot as its root", provider="aws")
    return image


def _fetch(
    api: Api, options: AwsOptions, region: str, snapshot: str, writer: raw.SparseWriter, task: Task
) -> None:
    task.phase(f"reading snapshot {snapshot}")
    done = 0

    def fetch(block: tuple[int, str, int]) -> None:
        index, token, _ = block
        if not writer.has(index * BLOCK, BLOCK):
            writer.write(index * BLOCK, read(api, region, snapshot, index, token, task))

    for _ in task.map(fetch, listing(api, region, snapshot, task), workers=options.workers):
        done += BLOCK
        task.progress(done)


@contextlib.contextmanager
def _readable(api: Api, region: str, snapshot: str, task: Task) -> Iterator[tuple[str, int]]:
    """A snapshot with this content that may be read, and its GiB."""
    try:
        gib = size(api, region, snapshot, task)
    except ProviderError as error:
        if error.code not in UNREADABLE:
            raise
    else:
        yield snapshot, gib
        return
    tags = {
        "Name": f"temporary copy of {snapshot}",
        f"{PREFIX}purpose": "download",
        f"{PREFIX}source": snapshot,
        f"{PREFIX}run": task.run,
    }
    try:
        copy = task.retry(lambda: _copied(api, region, snapshot, tags))
        yield copy, _completed(api, region, copy, task)
    finally:
        _remove_copies(api, region, snapshot, task)


def _copies(api: Api, region: str, snapshot: str) -> list[Answer]:
    found: list[Answer] = api.once(
        "ec2",
        region,
        "describe_snapshots",
        OwnerIds=["self"],
        Filters=[
            {"Name": f"tag:{PREFIX}purpose", "Values": ["download"]},
            {"Name": f"tag:{PREFIX}source", "Values": [snapshot]},
        ],
    )["Snapshots"]
    return found


def _copied(api: Api, region: str, snapshot: str, tags: dict[str, str]) -> str:
    """CopySnapshot has no client token: look for our own copy first."""
    for copy in _copies(api, region, snapshot):
        if copy["State"] != "error":
            known: str = copy["SnapshotId"]
            return known
    try:
        made: str = api.once(
            "ec2",
            region,
            "copy_snapshot",
            SourceRegion=region,
            SourceSnapshotId=snapshot,
            Description=tags["Name"],
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": tag_list(tags)}],
        )["SnapshotId"]
    except ProviderError as error:
        if error.code == "InvalidSnapshot.NotFound":
            error.hint = "the image is shared, its snapshot is not: ask its owner to share that too"
        raise
    return made


def _completed(api: Api, region: str, copy: str, task: Task) -> int:
    def look() -> Answer | None:
        try:
            found: Answer = api.once("ec2", region, "describe_snapshots", SnapshotIds=[copy])[
                "Snapshots"
            ][0]
        except ProviderError as error:
            if error.code == "InvalidSnapshot.NotFound":
                return None
            raise
        if found["State"] == "error":
            raise ProviderError(f"the copy {copy} failed", provider="aws")
        return found if found["State"] == "completed" else None

    what = f"waiting for the copy {copy}"
    done = task.poll(look, interval=5.0, timeout=COPY_TIMEOUT, what=what, provider="aws")
    gib: int = done["VolumeSize"]
    return gib


def _remove_copies(api: Api, region: str, snapshot: str, task: Task) -> None:
    """Also when the run is cancelled, so without the task's retry, which would stop."""
    for pause in (0.2, 1.0, 2.0, 0.0):
        try:
            for copy in _copies(api, region, snapshot):
                api.once("ec2", region, "delete_snapshot", SnapshotId=copy["SnapshotId"])
            return
        except PublishError as error:
            problem = error
            time.sleep(pause)
    task.note(f"a temporary copy of {snapshot} may be left in {region}: {problem}", "warning")
