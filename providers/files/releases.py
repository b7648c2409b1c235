"""What a place holds, and where:

.publish/images/NAME.json            the record of an image; written last, removed last
.publish/private/NAME@DIGEST/        its files before the release
.publish/public/NAME                 a mark: this image is released
NAME/                                its files after the release
streams/v1/                          the index, derived from the marks and records

`.publish` must not be served. In a directory it is closed to other users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.files.api import NAME, Place
from publisher.errors import ProviderError
from publisher.model import Arch, Audience, Firmware, Image, Noun, Spec

IMAGES = ".publish/images"
PRIVATE = ".publish/private"
PUBLIC = ".publish/public"
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.gpg"

UNLISTED = Audience("shared", ("whoever knows the address",))
"""What an image is between private and public, when an opening or closing was cut off."""


@dataclass(frozen=True, slots=True)
class File(Noun):
    """One disk file: `size` and `sha256` are the file's, not the disk's."""

    name: str
    format: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record(Noun):
    """An image at a place; `key` is the name of its directory, `digest` and
    `disk_size` are the disk's."""

    key: str
    name: str
    version: str
    arch: Arch
    firmware: Firmware
    digest: str
    disk_size: int
    run: str
    files: tuple[File, ...]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    schema: int = 1

    @classmethod
    def of(cls, key: str, spec: Spec, files: Sequence[File]) -> Record:
        return cls(
            key,
            spec.name,
            spec.version,
            spec.arch,
            spec.firmware,
            spec.digest,
            spec.size,
            spec.run,
            tuple(files),
            spec.description,
            dict(spec.tags),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        known["files"] = tuple(File.from_json(file) for file in data["files"])
        return cls(**known)

    @property
    def home(self) -> str:
        return private_home(self.key, self.digest)

    @property
    def sums(self) -> str:
        """SHA256SUMS as sha256sum writes and checks it."""
        return "".join(f"{file.sha256} *{file.name}\n" for file in self.files)


def private_home(key: str, digest: str) -> str:
    """Where the files stand before the release; other content has another place."""
    return f"{PRIVATE}/{key}@{digest[:16]}"


def record_path(key: str) -> str:
    return f"{IMAGES}/{key}.json"


def read_record(place: Place, key: str) -> Record | None:
    """The record of that name. Raises ProviderError when it can't be understood."""
    data = place.read(record_path(key))
    if data is None:
        return None
    try:
        return Record.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError) as error:
        raise ProviderError(
            f"{place.url}/{record_path(key)} is no record of an image: {error}",
            provider=NAME,
            hint="was it changed by hand? remove it and publish again",
        ) from error


def write_record(place: Place, record: Record) -> None:
    text = json.dumps(record.to_json(), indent=2, ensure_ascii=False) + "\n"
    place.write(record_path(record.key), text.encode())


def records(place: Place) -> list[Record]:
    """All images of the place, by name."""
    keys = [name.removesuffix(".json") for name in place.names(IMAGES) if name.endswith(".json")]
    found = (read_record(place, key) for key in keys)
    return [record for record in found if record is not None]


def marked(place: Place) -> frozenset[str]:
    """The names of the images that are released."""
    return frozenset(place.names(PUBLIC))


def location(place: Place, record: Record) -> str | None:
    """The directory that holds the image's files, or None when they are gone."""
    for directory in (record.home, record.key):
        if place.size(f"{directory}/{SUMS}") is not None:
            return directory
    return None


def image_of(place: Place, record: Record, listed: frozenset[str]) -> Image:
    """The image as the place has it now; `listed` are the names in the index."""
    where = location(place, record)
    audience = Audience()
    if where == record.key:
        audience = Audience("public") if record.key in listed else UNLISTED
    return Image(
        provider=NAME,
        region=place.url,
        ref=f"{place.url.rstrip('/')}/{record.key}",
        name=record.name,
        version=record.version,
        digest=record.digest,
        state="available" if where else "failed",
        audience=audience,
        details={f"sha256:{file.name}": file.sha256 for file in record.files},
    )
