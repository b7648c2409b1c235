"""Compares an image with the disk that it was made from.

Attributes: state, size, digest labels, and what register asked for. Bytes: by
default all of them, read back by a short-lived machine. With verify =
"attributes" the bytes rest on the chain of checksums: CRC32C of every part and
of the composed object, checked by Cloud Storage against ours; that Compute
Engine unpacked that object rightly is not proved then.
"""

from __future__ import annotations

from typing import Any

from providers.gcp import identity, images
from providers.gcp.api import PROVIDER, Api
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions
from providers.gcp.read import Reading
from providers.gcp.segments import Records
from publisher.disks.raw import Reader, is_zero
from publisher.errors import VerifyError
from publisher.model import GIB, Disk, Extent, Image
from publisher.task import Task

CHUNK = 1024 * 1024


def differs(image: Image, what: str) -> VerifyError:
    return VerifyError(
        f"the image {image.ref}: {what}",
        provider=PROVIDER,
        hint="delete the image and publish again",
    )


def attributes(image: Image, resource: Any, disk: Disk) -> None:
    """Raises VerifyError for the first attribute that is not as asked for."""
    state = images.status(resource)
    if state != "READY":
        raise differs(image, f"is {state}")
    if int(resource.disk_size_gb) * GIB != disk.size:
        raise differs(image, f"has {resource.disk_size_gb} GiB instead of {disk.size // GIB}")
    spec = identity.recognise(resource.labels)
    if spec is None or spec.digest != disk.sha256:
        raise differs(image, "its labels name another disk")
    actual = {
        "architecture": resource.architecture,
        "family": resource.family,
        "guest_os_features": ",".join(sorted(f.type_ for f in resource.guest_os_features)),
    }
    for name, value in actual.items():
        wanted = image.details.get(name)
        if wanted is not None and wanted != value:
            raise differs(image, f"has {name} {value!r} instead of {wanted!r}")


class Comparison:
    """Compares segments that were read back with the local disk, byte by byte."""

    def __init__(self, image: Image, disk: Disk, reader: Reader, task: Task) -> None:
        self._image = image
        self._disk = disk
        self._reader = reader
        self._task = task

    def take(self, start: int, stop: int, records: Records) -> None:
        """Raises VerifyError with the offset of the first difference."""
        position = start
        for offset, data in records:
            self._task.check()
            self._zeros(position, offset)
            wanted = self._reader.read(offset, len(data))
            if wanted != data:
                at = next(i for i, (a, b) in enumerate(zip(wanted, data, strict=True)) if a != b)
                raise differs(self._image, f"differs from the disk at byte {offset + at}")
            position = offset + len(data)
        self._zeros(position, stop)

    def _zeros(self, start: int, stop: int) -> None:
        """The local disk holds nothing in [start, stop), where the image is zero."""
        for extent in _within(self._disk, start, stop):
            for at in range(extent.offset, extent.end, CHUNK):
                data = self._reader.read(at, min(CHUNK, extent.end - at))
                if not is_zero(data):
                    first = len(data) - len(data.lstrip(b"\0"))
                    raise differs(self._image, f"differs from the disk at byte {at + first}")


def _within(disk: Disk, start: int, stop: int) -> list[Extent]:
    return [
        Extent(max(e.offset, start), min(e.end, stop) - max(e.offset, start))
        for e in disk.extents
        if e.offset < stop and e.end > start
    ]


def verify(
    api: Api, options: GcpOptions, bucket: Bucket, image: Image, disk: Disk, task: Task
) -> None:
    task.phase("comparing attributes")
    project, name = images.parse(image.ref)
    resource = images.get(api, project, name, task)
    if resource is None:
        raise differs(image, "does not exist")
    attributes(image, resource, disk)
    if options.verify == "attributes":
        return
    with Reader(disk) as reader:
        comparison = Comparison(image, disk, reader, task)
        reading = Reading(api, options, bucket, resource, "verify", task)
        reading.run(lambda _start, _stop: False, comparison.take)
