"""Reads back every byte of an image's files, their digests, signature and record."""

from __future__ import annotations

from providers.files.api import NAME, Place
from providers.files.images import record_of
from providers.files.releases import SIGNATURE, SUMS, Record, location
from providers.files.signing import Signer
from publisher.disks.formats import qemu_img
from publisher.errors import HostError, PublishError, VerifyError
from publisher.export import DRIVERS
from publisher.model import Disk, Image


def verify(place: Place, signer: Signer | None, image: Image, disk: Disk) -> None:
    """Raises VerifyError naming the first difference."""
    record = record_of(place, image)
    where = location(place, record)
    if where is None:
        raise VerifyError(f"the files of {image.reference} are gone", provider=NAME)
    _attributes(record, image, disk)
    sums = place.read(f"{where}/{SUMS}") or b""
    if sums != record.sums.encode():
        raise VerifyError(f"{SUMS} of {image.reference} is not what was written", provider=NAME)
    if signer is not None:
        signature = place.read(f"{where}/{SIGNATURE}")
        if signature is None:
            raise VerifyError(f"{image.reference} is not signed", provider=NAME)
        signer.verify(sums, signature, f"{image.reference}/{SUMS}", place.task)
    for file in record.files:
        place.task.phase(f"reading back {file.name}")
        path = f"{where}/{file.name}"
        if place.size(path) != file.size or place.digest(path) != file.sha256:
            raise VerifyError(
                f"{file.name} is not what was written",
                provider=NAME,
                hint="delete the image there and publish again",
            )
        if place.local is not None and file.format in DRIVERS:
            _compare(place, path, DRIVERS[file.format], disk)


def _attributes(record: Record, image: Image, disk: Disk) -> None:
    for what, found, wanted in (
        ("disk digest", record.digest, disk.sha256),
        ("disk size", record.disk_size, disk.size),
        ("name", record.name, image.name),
        ("version", record.version, image.version),
    ):
        if found != wanted:
            raise VerifyError(
                f"the {what} of {image.reference} is {found}, not {wanted}", provider=NAME
            )
    for file in record.files:
        digest = image.details.get(f"sha256:{file.name}", file.sha256)
        if digest != file.sha256 or (file.format == "raw" and digest != disk.sha256):
            raise VerifyError(f"the record of {file.name} was changed", provider=NAME)


def _compare(place: Place, path: str, driver: str, disk: Disk) -> None:
    """The virtual bytes against the disk, where the file is at hand."""
    assert place.local is not None
    try:
        qemu_img.verify(disk, place.local / path, driver, place.task)
    except HostError:
        raise
    except PublishError as error:
        raise VerifyError(error.message, provider=NAME) from error
