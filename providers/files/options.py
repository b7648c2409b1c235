"""[targets.files] and the rules of the layout that need no look at the place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from publisher.errors import UsageError
from publisher.export import Format
from publisher.provider import Options

FileFormat: TypeAlias = Format

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_TAKEN = ("streams",)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://")


class FilesOptions(Options):
    """The [targets.files] section."""

    url: str = Field(
        min_length=1,
        description=(
            "Where releases go: a directory, or a URL that fsspec writes to (s3://, gs://, "
            "abfs://, sftp://, …; each needs its package, such as s3fs). Credentials come from "
            "the environment or from fsspec's own configuration files, never from the URL."
        ),
    )
    name: str = Field(
        "{name}-{version}-{arch}",
        description=(
            "Name of the release's directory and of its files; {name}, {version} and {arch} are "
            "filled in."
        ),
    )
    formats: tuple[FileFormat, ...] = Field(
        ("qcow2",), min_length=1, description="Formats of the disk files, one file each."
    )
    signing_key: str = Field(
        "",
        description=(
            "OpenPGP key, as gpg --local-user takes it, that signs SHA256SUMS and the index; "
            "gpg finds it in GNUPGHOME. Empty: no signatures."
        ),
    )
    domain: str = Field(
        "local",
        pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$",
        description=(
            "Reverse domain that begins the product names in the index, such as com.example."
        ),
    )

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        return normal(url)

    @field_validator("formats")
    @classmethod
    def _distinct(cls, formats: tuple[FileFormat, ...]) -> tuple[FileFormat, ...]:
        if len(set(formats)) != len(formats):
            raise ValueError("a format is named twice")
        return formats

    def locations(self) -> tuple[str, ...]:
        return (self.url,)

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        return {"url": text}

    @classmethod
    def from_reference(
        cls,
        text: str,
        given: Mapping[str, object],  # noqa: ARG003
    ) -> Mapping[str, object]:
        return {"url": split(text)[0]}


def normal(url: str) -> str:
    """A URL without a slash at its end, a path absolute. Raises ValueError for a
    password in it, which would get into manifests and logs."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if not _SCHEME.match(url):
        return os.path.abspath(os.path.expanduser(url))
    if "@" in urlsplit(url).netloc and urlsplit(url).password is not None:
        raise ValueError("a URL must not hold a password; set FSSPEC_<PROTOCOL>_PASSWORD")
    return url.rstrip("/")


def is_remote(url: str) -> bool:
    return _SCHEME.match(url) is not None


def split(reference: str) -> tuple[str, str]:
    """Place and name in a reference. Raises UsageError when it has not both."""
    place, slash, name = reference.rstrip("/").rpartition("/")
    if not slash or not name or place.endswith(":/"):
        raise UsageError(
            f"files:{reference} names no image",
            hint="write files:DIRECTORY/NAME, such as files:/srv/images/web-1.0.0-x86_64",
        )
    return place or "/", name


def name_fault(name: str) -> str:
    """What is wrong with a release's name, or nothing."""
    if name in _TAKEN:
        return f"{name!r} is where the index stands"
    if not _NAME.fullmatch(name):
        return (
            f"{name!r} is no name of a directory to serve: it begins with a letter or digit "
            "and has up to 128 letters, digits and . _ + -"
        )
    return ""
