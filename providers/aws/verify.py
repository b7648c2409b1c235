"""Reads an AMI back: its attributes, and every block of its snapshot against the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from providers.aws.api import Answer, Api, tags_in
from providers.aws.blocks import listing, read
from providers.aws.images import ENA, ami_of, root_snapshot, root_volume
from providers.aws.options import BLOCK, PREFIX, AwsOptions, volume_size
from publisher.disks import extents as ext
from publisher.disks.raw import Reader, is_zero
from publisher.errors import VerifyError
from publisher.model import Disk, Image
from publisher.task import Task


def attributes(options: AwsOptions, image: Image, disk: Disk, raw: Answer) -> None:
    """Raise VerifyError naming the first attribute that is not what was asked for."""
    root = root_volume(raw)
    tags = tags_in(raw)
    wanted: dict[str, tuple[Any, Any]] = {
        "state": (raw["State"], "available"),
        "digest tag": (tags.get(f"{PREFIX}digest"), disk.sha256),
        "name tag": (tags.get(f"{PREFIX}name"), image.name),
        "version tag": (tags.get(f"{PREFIX}version"), image.version),
        "virtualization": (raw.get("VirtualizationType"), "hvm"),
        "root device": (raw.get("RootDeviceName"), options.root_device),
        "root volume type": (root.get("VolumeType"), options.volume_type),
        "root volume size": (root.get("VolumeSize"), volume_size(disk.size)),
        "delete on termination": (root.get("DeleteOnTermination"), True),
        "IMDS support": (raw.get("ImdsSupport"), "v2.0" if options.imds_v2 else None),
        "TPM support": (raw.get("TpmSupport"), "v2.0" if options.tpm else None),
    }
    asked = image.details.get(ENA) or (options.ena is not None and str(options.ena))
    if asked:
        wanted["ENA support"] = (str(bool(raw.get("EnaSupport"))), asked)
    for key, name in (("boot_mode", "BootMode"), ("architecture", "Architecture")):
        if image.details.get(key):
            wanted[key.replace("_", " ")] = (raw.get(name), image.details[key])
    if options.encrypted:
        wanted["encryption"] = (root.get("Encrypted"), True)
    for what, (have, want) in wanted.items():
        if have != want:
            raise _different(image, f"its {what} is {have!r}, not {want!r}")


def content(
    api: Api, options: AwsOptions, image: Image, disk: Disk, raw: Answer, task: Task
) -> None:
    """Raise VerifyError naming the first byte that differs."""
    region, ami = ami_of(image.ref)
    snapshot = root_snapshot(raw)
    seen: set[int] = set()
    total = sum(1 for _ in ext.blocks(disk.extents, BLOCK, disk.size)) * BLOCK
    task.phase(f"reading {ami} back in {region}")

    def entries() -> Iterator[tuple[int, str]]:
        for index, token, _ in listing(api, region, snapshot, task):
            seen.add(index)
            yield index, token

    with Reader(disk) as reader:

        def compare(entry: tuple[int, str]) -> None:
            index, token = entry
            data = read(api, region, snapshot, index, token, task)
            local = reader.read(index * BLOCK, BLOCK)
            if data != local:
                offset = next(i for i, (a, b) in enumerate(zip(data, local, strict=True)) if a != b)
                raise _different(image, f"byte {index * BLOCK + offset} is not the disk's")

        done = 0
        for _ in task.map(compare, entries(), workers=options.workers):
            done += BLOCK
            task.progress(done, max(total, done))
        for index in ext.blocks(disk.extents, BLOCK, disk.size):
            if index not in seen and not is_zero(reader.read(index * BLOCK, BLOCK)):
                raise _different(image, f"the 512 KiB at byte {index * BLOCK} are missing")


def _different(image: Image, what: str) -> VerifyError:
    return VerifyError(
        f"{image.reference} is not what was published: {what}",
        provider="aws",
        hint="delete the image and publish again",
    )
