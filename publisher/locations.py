"""Files that a pipeline names by path or URL, and what makes a URL's bytes trustworthy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from publisher.section import Section


def is_url(location: str) -> bool:
    return location.startswith(("https://", "http://"))


def _public(url: str) -> str:
    if "://" in url and not is_url(url):
        raise ValueError("must be a path, or start with https:// or http://")
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "must hold no user name or password: they would be kept in the journal; "
            "write them into ~/.netrc"
        )
    return url


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError("must be a relative path without ..")
    return path


Location = Annotated[str, Field(min_length=1), AfterValidator(_public)]
Inside = Annotated[str, AfterValidator(_inside)]


class Original(Section):
    """A file of somebody else's making; one behind a URL has a digest."""

    file: Location = Field(description="Path, relative to the pipeline file, or URL.")
    sha256: str | None = Field(
        None, description="The file's sha256, in hex digits.", pattern=r"^[0-9a-fA-F]{64}$"
    )
    sha512: str | None = Field(
        None, description="The file's sha512, in hex digits.", pattern=r"^[0-9a-fA-F]{128}$"
    )
    sums: Location | None = Field(
        None, description="Path or URL of a signed list of digests, such as SHA256SUMS."
    )
    signature: Location | None = Field(
        None,
        description="Path or URL of the list's OpenPGP signature; without it, the list must "
        "carry its signature inside.",
    )
    key: str | None = Field(
        None,
        description="File with the OpenPGP public keys that may sign the list, relative to the "
        "pipeline file.",
    )

    @model_validator(mode="after")
    def _trusted(self) -> Original:
        given = [n for n in ("sha256", "sha512", "sums") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"give only one of {', '.join(given)}")
        if is_url(self.file) and not given:
            raise ValueError(
                "a URL needs a digest to check the file with: give sha256, sha512, or sums and key"
            )
        if self.sums is not None and self.key is None:
            raise ValueError("sums needs key: the file with the key that signs the list")
        if self.sums is None and (self.key or self.signature):
            raise ValueError("key and signature belong to sums: give the list that was signed")
        return self

    @property
    def name(self) -> str:
        """The last part of the path, without what may be secret in a URL."""
        return self.file.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]

    def local_files(self, key: str) -> Iterator[tuple[str, str]]:
        """(key path below `key`, path) of the local files that decide what this is,
        except for the file itself where its digest is given."""
        named = {"sums": self.sums, "signature": self.signature, "key": self.key}
        if not (self.sha256 or self.sha512 or self.sums):
            named["file"] = self.file
        for name, path in named.items():
            if path is not None and not is_url(path):
                yield f"{key}.{name}", path
