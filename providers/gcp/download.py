"""Reads an image into a local file: the same reading as for verify, written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from providers.gcp import identity, images
from providers.gcp.api import PROVIDER, Api
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions
from providers.gcp.read import Reading
from providers.gcp.segments import Records
from publisher.disks import raw
from publisher.errors import ProviderError
from publisher.model import GIB, Disk, Firmware, Spec
from publisher.task import Task


def resource(api: Api, image_ref: str, task: Task) -> Any:
    """The image that `migrate` names. Raises ProviderError."""
    project, name = images.parse(image_ref)
    found = images.get(api, project, name, task)
    if found is None:
        raise ProviderError(
            f"there is no image {name} in the project {project}",
            provider=PROVIDER,
            code="notFound",
            hint="name it as gcp:PROJECT/IMAGE",
        )
    return found


def describe(found: Any) -> Spec:
    ours = identity.recognise(found.labels)
    uefi = any(feature.type_ == "UEFI_COMPATIBLE" for feature in found.guest_os_features)
    firmware: Firmware = "bios+uefi" if uefi else "bios"
    arm = found.architecture == "ARM64"
    return Spec(
        name=ours.name if ours else found.name,
        version=ours.version if ours else "",
        arch="aarch64" if arm else "x86_64",
        firmware="uefi" if arm else firmware,
        size=int(found.disk_size_gb) * GIB,
        description=found.description,
        digest=ours.digest if ours else "",
    )


def download(
    api: Api, options: GcpOptions, bucket: Bucket, image_ref: str, into: Path, task: Task
) -> Disk:
    """A segment counts as written once its own digest was right; an empty piece at
    its start notes that in the ledger."""
    reading = Reading(api, options, bucket, resource(api, image_ref, task), "download", task)
    writer = raw.SparseWriter(into, reading.size, task)

    def take(start: int, stop: int, records: Records) -> None:
        del stop
        for offset, data in records:
            task.check()
            writer.write(offset, data)
        writer.write(start, b"")

    with writer:
        reading.run(lambda start, _stop: writer.has(start, 0), take)
        writer.finish()
    task.phase("hashing the disk")
    return raw.inspect(into, task.check)
