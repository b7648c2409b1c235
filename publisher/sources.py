"""Where a disk comes from: the [build.source.…] sections of a pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from publisher.model import MIB
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


class Repository(Section):
    """An archive of packages besides Debian's own."""

    url: Location = Field(description="URL of the archive.", pattern=r"^https?://\S+$")
    suite: str = Field(
        description='Suite of the archive, such as "stable"; one that ends with "/" is a path '
        "and has no components.",
        pattern=r"^\S+$",
    )
    components: tuple[str, ...] = Field(("main",), description="Components of the archive.")
    key: str = Field(
        description="File with the OpenPGP public key that signs the archive, relative to the "
        "pipeline file. The key is trusted for this archive only."
    )


DEBIAN_LEAST = 800 * MIB
"""No Debian with a kernel, cloud-init and sshd fits on a smaller disk: bookworm's needs
977 MiB. What an installation really needs is known only after it was made."""


class Debian(Section):
    """Source `debian`: a fresh installation from Debian's packages."""

    suite: str = Field(
        "bookworm", description="Debian suite, such as bookworm.", pattern=r"^[a-z][a-z0-9.-]*$"
    )
    mirror: Location | None = Field(
        None,
        description="URL of a Debian mirror; without it, the one that mmdebstrap uses itself. "
        "With snapshot, the URL of a server with the layout of snapshot.debian.org.",
    )
    snapshot: str | None = Field(
        None,
        description="Install the packages of this moment, from snapshot.debian.org, such as "
        '"20261101T000000Z". The image itself is updated from the mirror again.',
        pattern=r"^20\d{6}T\d{6}Z$",
    )
    components: tuple[str, ...] = Field(("main",), description="Archive components.")
    packages: tuple[str, ...] = Field((), description="Packages to install from the start.")
    repositories: tuple[Repository, ...] = Field(
        (), description="Further archives, also for the image's own use later."
    )


class Disk(Section):
    """Source `disk`: a disk that exists already, such as a distribution's cloud image."""

    file: Location = Field(
        description="Path, relative to the pipeline file, or URL of a disk file: qcow2, raw, "
        "vmdk, vhd, vhdx or vdi; also an OVA, or packed as .xz, .gz, .zst or .bz2."
    )
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
    def _trusted(self) -> Disk:
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


class Command(Section):
    """Source `command`: a builder of your own makes the disk."""

    run: str | tuple[str, ...] = Field(
        description="What to run in an empty directory that holds a copy of the inputs: a "
        "script for `sh -eu`, or a list of a program and its arguments.",
        min_length=1,
    )
    inputs: tuple[Inside, ...] = Field(
        (),
        description="Files and directories that it needs, relative to the pipeline file. They "
        "decide, with run, whether the disk must be made anew.",
    )
    output: Inside = Field(
        description="Path of the disk that it leaves, relative to the same directory; any "
        "format that the source disk takes."
    )
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field(
        (),
        description="Names of environment variables to hand on. Their values may be secret: "
        "they are left out of every output, and do not decide whether the disk is made anew.",
    )


class Source(Section):
    """Where the disk comes from: exactly one of the sources."""

    debian: Debian | None = Field(None, description="A fresh Debian installation.")
    disk: Disk | None = Field(None, description="A disk that exists already.")
    command: Command | None = Field(None, description="A disk that a command makes.")

    @model_validator(mode="after")
    def _one(self) -> Source:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(f"[build.source.{name}]" for name in type(self).model_fields)
            raise ValueError(f"give exactly one of {known}")
        return self

    @property
    def kind(self) -> str:
        return next(n for n in type(self).model_fields if getattr(self, n) is not None)

    def local_files(self) -> Iterator[tuple[str, str]]:
        """(key path, path as the pipeline has it) of every local file that decides
        what the disk will hold, except for a disk whose digest is given."""
        if self.debian is not None:
            for number, repository in enumerate(self.debian.repositories):
                yield f"build.source.debian.repositories[{number}].key", repository.key
        if self.disk is not None:
            disk = self.disk
            named = {"sums": disk.sums, "signature": disk.signature, "key": disk.key}
            if not (disk.sha256 or disk.sha512 or disk.sums):
                named["file"] = disk.file
            for name, path in named.items():
                if path is not None and not is_url(path):
                    yield f"build.source.disk.{name}", path
        if self.command is not None:
            for number, path in enumerate(self.command.inputs):
                yield f"build.source.command.inputs[{number}]", path

    def title(self) -> str:
        """One line for people."""
        if self.debian is not None:
            at = f" of {self.debian.snapshot}" if self.debian.snapshot else ""
            return f"debian {self.debian.suite}{at}"
        if self.disk is not None:
            return f"disk {re.split('[?#]', self.disk.file)[0].rstrip('/').rpartition('/')[2]}"
        assert self.command is not None
        run = self.command.run
        lines = run.strip().splitlines() if isinstance(run, str) else [" ".join(run)]
        return f"command {lines[0] if lines else ''}{' …' if len(lines) > 1 else ''}"
