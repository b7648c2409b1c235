"""Reading back: a disk made of the image, opened for reading, compared page by page."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from providers.azure import gallery as g
from providers.azure import tags
from providers.azure.api import Body
from providers.azure.disks import Disks
from providers.azure.options import AzureOptions, disk_name, normal_region
from providers.azure.pages import Pages, pieces
from providers.azure.refs import Ref
from publisher.disks import extents as ext
from publisher.disks import raw, vhd
from publisher.errors import VerifyError
from publisher.model import GIB, SECTOR, Disk, Extent, Image
from publisher.task import Task

_GAP = 64 * 1024
"""Data nearer than this is read in one request."""


def verify(
    gallery: g.Gallery, disks: Disks, options: AzureOptions, image: Image, disk: Disk, task: Task
) -> None:
    ref = Ref.parse(image.ref)
    version = gallery.settled_version(ref, task)
    if version is None:
        raise VerifyError(f"there is no image {ref}", provider="azure")
    definition = gallery.definition(ref.definition, task)
    if definition is None:
        raise VerifyError(f"there is no image definition {ref.definition}", provider="azure")
    _check_attributes(version, definition, image, disk)
    with opened(disks, options, ref, version, normal_region(image.region), task) as pages:
        _check_bytes(pages, disk, options.workers, task)


@contextlib.contextmanager
def opened(
    disks: Disks, options: AzureOptions, ref: Ref, version: Body, region: str, task: Task
) -> Iterator[Pages]:
    """The pages behind an image's replica in `region`: a temporary disk is made of
    it and opened for reading; both end whatever happens."""
    held = version.get("tags") or {}
    born = version["properties"]["publishingProfile"].get("publishedDate", "")
    name = disk_name("read", str(ref), region, held.get(tags.DIGEST) or born)
    identity = {key: held[key] for key in (tags.NAME, tags.VERSION, tags.DIGEST) if key in held}
    body: Body = {
        "location": region,
        "sku": {"name": options.disk_sku},
        "tags": {**identity, tags.RUN: task.run},
        "properties": {
            "osType": "Linux",
            "creationData": {
                "createOption": "FromImage",
                "galleryImageReference": {"id": ref.id},
            },
        },
    }
    with disks.temporary(name, body, task), disks.opened(name, "Read", task) as pages:
        yield pages


def virtual_size(pages: Pages) -> int:
    """Bytes of the disk without the VHD's footer."""
    size = pages.length() - vhd.FOOTER
    stated = vhd.parse(pages.read(size, vhd.FOOTER))
    if stated != size:
        raise VerifyError(
            f"the VHD in Azure has {size} bytes, its footer states {stated}", provider="azure"
        )
    return size


def data_extents(pages: Pages, size: int) -> tuple[Extent, ...]:
    """The disk's page ranges without the footer."""
    found = pages.ranges()
    return ext.merge(Extent(r.offset, min(r.end, size) - r.offset) for r in found)


def _check_attributes(version: Body, definition: Body, image: Image, disk: Disk) -> None:
    held = version.get("tags") or {}
    properties = version["properties"]
    region = normal_region(image.region)
    replica = g.replication(version).get(region, {})
    found = definition["properties"]
    wanted: list[tuple[str, object, object]] = [
        ("digest in the tags", held.get(tags.DIGEST), disk.sha256),
        ("name in the tags", held.get(tags.NAME), image.name),
        ("version in the tags", held.get(tags.VERSION), image.version),
        ("provisioning state", properties.get("provisioningState"), "Succeeded"),
        (f"state in {region}", replica.get("state", "absent"), "Completed"),
        ("operating system", found.get("osType"), "Linux"),
        ("operating system state", found.get("osState"), "Generalized"),
    ]
    for key, actual in (
        ("generation", found.get("hyperVGeneration")),
        ("architecture", found.get("architecture")),
        ("security", g.security_type(definition)),
    ):
        if key in image.details:
            wanted.append((key, actual, image.details[key]))
    for what, actual, expected in wanted:
        if actual != expected:
            raise VerifyError(
                f"{image.ref}: {what} is {actual}, not {expected}",
                provider="azure",
                hint="delete the image, then publish it again",
            )


def _check_bytes(pages: Pages, disk: Disk, workers: int, task: Task) -> None:
    """Where either side has data, both are the same; elsewhere both are zeros.

    Azure may have rounded the disk up to whole GiB; what it added must be zeros,
    as `raw.Reader` reads behind the end.
    """
    size = virtual_size(pages)
    if not disk.size <= size < disk.size + GIB:
        raise VerifyError(
            f"the image in Azure has {size} bytes, the disk {disk.size}", provider="azure"
        )
    task.phase("reading back")
    there = data_extents(pages, size)
    both = ext.align((*disk.extents, *there), SECTOR, size)
    todo = list(pieces(both, gap=_GAP))
    total = sum(piece.length for piece in todo)
    done = 0
    lock = threading.Lock()
    with raw.Reader(disk) as reader:

        def compare(piece: Extent) -> None:
            nonlocal done
            task.check()
            actual = pages.read(piece.offset, piece.length)
            expected = reader.read(piece.offset, piece.length)
            if actual != expected:
                at = next(i for i, byte in enumerate(actual) if byte != expected[i])
                raise VerifyError(
                    f"the image in Azure differs from the disk at byte {piece.offset + at}",
                    provider="azure",
                    hint="delete the image, then publish it again",
                )
            with lock:
                done += piece.length
                task.progress(done, total)

        for _ in task.map(compare, todo, workers=workers):
            pass
