"""Where a disk comes from: the [build.source.…] sections of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from publisher.installer import Installer
from publisher.locations import Inside, Location, Original
from publisher.model import MIB
from publisher.section import Section


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


class Disk(Original):
    """Source `disk`: a disk that exists already, such as a distribution's cloud image."""

    file: Location = Field(
        description="Path, relative to the pipeline file, or URL of a disk file: qcow2, raw, "
        "vmdk, vhd, vhdx or vdi; also an OVA, or packed as .xz, .gz, .zst or .bz2."
    )


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
        "they are left out of every output, and do not decide whether the disk is made anew. They "
        "may also be anything else, so the search for secrets does not look for them.",
    )


class Source(Section):
    """Where the disk comes from: exactly one of the sources."""

    debian: Debian | None = Field(None, description="A fresh Debian installation.")
    disk: Disk | None = Field(None, description="A disk that exists already.")
    installer: Installer | None = Field(
        None, description="An unattended installation by a distribution's own installer."
    )
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
            yield from self.disk.local_files("build.source.disk")
        if self.installer is not None:
            yield from self.installer.local_files("build.source.installer")
        if self.command is not None:
            for number, path in enumerate(self.command.inputs):
                yield f"build.source.command.inputs[{number}]", path

    def title(self) -> str:
        """One line for people."""
        if self.debian is not None:
            at = f" of {self.debian.snapshot}" if self.debian.snapshot else ""
            return f"debian {self.debian.suite}{at}"
        if self.disk is not None:
            return f"disk {self.disk.name}"
        if self.installer is not None:
            return self.installer.title()
        assert self.command is not None
        run = self.command.run
        lines = run.strip().splitlines() if isinstance(run, str) else [" ".join(run)]
        return f"command {lines[0] if lines else ''}{' …' if len(lines) > 1 else ''}"
