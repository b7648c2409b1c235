"""Images at a place: register, find, release, withdraw, delete.

Opening moves the files first and lists them last; closing unlists them first.
So the index never names a file that is not there, and a call that was cut off
leaves an image between the two, which the same call or its opposite settles.
"""

from __future__ import annotations

from collections.abc import Sequence

from providers.files.api import NAME, Place
from providers.files.options import FilesOptions, split
from providers.files.releases import (
    PUBLIC,
    SIGNATURE,
    SUMS,
    Record,
    image_of,
    private_home,
    read_record,
    record_path,
    records,
    write_record,
)
from providers.files.signing import Signer
from providers.files.streams import PRODUCTS, listed, refresh
from providers.files.upload import files_of, refuse_other
from publisher.errors import ProviderError
from publisher.model import Audience, Image, Query, Spec, Upload


def register(
    place: Place, options: FilesOptions, signer: Signer | None, upload: Upload, spec: Spec
) -> Image:
    """Digests and signature beside the files, then the record, which makes the image."""
    key = options.fill(spec)
    record = read_record(place, key)
    if record is None:
        record = Record.of(key, spec, files_of(upload))
        for file in record.files:
            if place.size(f"{record.home}/{file.name}") != file.size:
                raise ProviderError(
                    f"{place.url}/{record.home}/{file.name} is not what was uploaded",
                    provider=NAME,
                    hint="run the same command again: it is uploaded anew",
                )
        sums = record.sums.encode()
        if signer is not None:
            signature = signer.detached(sums, place.task)
            place.write(f"{record.home}/{SIGNATURE}", signature)
        place.write(f"{record.home}/{SUMS}", sums)
        write_record(place, record)
    refuse_other(record, spec.digest, place)
    return image_of(place, record, listed(place))


def find(place: Place, query: Query) -> list[Image]:
    index = listed(place)
    return [
        image_of(place, record, index)
        for record in records(place)
        if query.matches(
            name=record.name, version=record.version, digest=record.digest, run=record.run
        )
    ]


def same_here(place: Place, image: Image, regions: Sequence[str]) -> list[Image]:
    """A place has no regions besides itself."""
    record = record_of(place, image)
    index = listed(place)
    return [image_of(place, record, index) for _ in regions]


def record_of(place: Place, image: Image) -> Record:
    """The image's record. Raises ProviderError when it is gone."""
    record = read_record(place, split(image.ref)[1])
    if record is None:
        raise ProviderError(f"{image.reference} is not there", provider=NAME)
    return record


def release(
    place: Place, options: FilesOptions, signer: Signer | None, image: Image, audience: Audience
) -> None:
    if audience.kind == "shared":
        raise ProviderError(
            "files have no accounts to share with",
            provider=NAME,
            hint="release to everybody (public), or let the web server decide who may read",
        )
    if audience.kind == "private":
        withdraw(place, options, signer, image)
        return
    record = record_of(place, image)
    place.move(record.home, record.key)
    place.write(f"{PUBLIC}/{record.key}", b"")
    refresh(place, options.domain, signer)


def withdraw(place: Place, options: FilesOptions, signer: Signer | None, image: Image) -> None:
    record = record_of(place, image)
    _unlist(place, options, signer, record.key)
    place.move(record.key, record.home)


def _unlist(place: Place, options: FilesOptions, signer: Signer | None, key: str) -> None:
    place.remove(f"{PUBLIC}/{key}")
    # Not only when the products list it: the index beside them may be older.
    if place.size(PRODUCTS) is not None:
        refresh(place, options.domain, signer)


def delete(place: Place, options: FilesOptions, signer: Signer | None, image: Image) -> None:
    """The record goes last: until then `find` sees what is left to remove."""
    key = split(image.ref)[1]
    record = read_record(place, key)
    digest = record.digest if record else image.digest
    if record is not None and record.digest != image.digest:
        return
    _unlist(place, options, signer, key)
    if record is not None:
        place.remove_all(key)
    place.remove_all(private_home(key, digest))
    place.remove(record_path(key))
