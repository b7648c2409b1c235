"""What goes into a disk: the [build] section of a pipeline, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from publisher.errors import PipelineError
from publisher.model import Firmware
from publisher.section import Section, Size
from publisher.sources import Command, Debian, Disk, Source

__all__ = [
    "BuildStep",
    "Command",
    "Copy",
    "Debian",
    "Disk",
    "Recipe",
    "Script",
    "Section",
    "Source",
    "describe",
    "digest_tree",
    "fingerprint",
    "local_file",
]


class Script(Section):
    """A script in a file beside the pipeline."""

    file: str = Field(description="Path of the script, relative to the pipeline file.")


class Copy(Section):
    """A file or a tree to copy into the guest."""

    from_: str = Field(
        alias="from", description="File or directory, relative to the pipeline file."
    )
    to: str = Field(
        description="Absolute path in the guest. A directory's contents go into it.", pattern=r"^/"
    )
    mode: str | None = Field(
        None,
        description='Mode of the copied files in octal, such as "0644".',
        pattern=r"^[0-7]{3,4}$",
    )
    owner: str = Field(
        "root:root",
        description='Owner in the guest, "user:group".',
        pattern=r"^[\w.-]+(:[\w.-]+)?$",
    )


class BuildStep(Section):
    """One step inside the running machine: exactly one of packages, run, copy."""

    name: str | None = Field(None, description="What to call the step in the output.")
    packages: tuple[str, ...] | None = Field(None, description="Packages to install with apt.")
    run: str | Script | None = Field(
        None, description="A shell script, run as root with `sh -eu`: inline, or { file = … }."
    )
    copy_: Copy | None = Field(None, alias="copy", description="A file or tree to copy in.")

    @model_validator(mode="after")
    def _one(self) -> BuildStep:
        given = [v for v in (self.packages, self.run, self.copy_) if v is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of packages, run, copy")
        return self

    @property
    def kind(self) -> Literal["packages", "run", "copy"]:
        if self.packages is not None:
            return "packages"
        return "run" if self.run is not None else "copy"

    def title(self) -> str:
        """One line for people."""
        if self.name:
            return self.name
        if self.packages is not None:
            return f"packages {' '.join(self.packages)}"
        if self.copy_ is not None:
            return f"copy {self.copy_.from_} to {self.copy_.to}"
        text = (
            self.run if isinstance(self.run, str) else f"file {self.run.file}" if self.run else ""
        )
        lines = text.strip().splitlines()
        return f"run {lines[0] if lines else ''}{' …' if len(lines) > 1 else ''}"


class Recipe(Section):
    """The [build] section."""

    source: Source = Field(description="Where the disk comes from.")
    size: Size = Field(description='Virtual size of the disk, such as "10GiB".')
    firmware: Firmware = Field(
        "bios+uefi", description="How the disk boots: bios, uefi, or bios+uefi."
    )
    steps: tuple[BuildStep, ...] = Field((), description="What to do inside the running machine.")


def digest_tree(path: Path) -> str:
    """sha256 over names, modes, link targets and contents of a file or tree.

    Raises FileNotFoundError."""
    digest = hashlib.sha256()
    entries = sorted(p for p in path.rglob("*")) if path.is_dir() else [path]
    for entry in entries:
        info = entry.lstat()
        name = entry.relative_to(path).as_posix() if entry != path else ""
        digest.update(f"{name}\0{info.st_mode:o}\0".encode())
        if entry.is_symlink():
            digest.update(os.readlink(entry).encode())
        elif entry.is_file():
            with entry.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def local_file(directory: Path, name: str, key: str) -> Path:
    """A file beside the pipeline. Raises PipelineError, naming `key`, when it is missing."""
    path = directory / name
    if not path.exists():
        raise PipelineError(
            f"{name} does not exist",
            key=key,
            hint=f"paths are relative to the pipeline file: looked for {path}",
        )
    return path


def fingerprint(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Everything that decides what the disk will hold, as JSON: the recipe, and
    the digests of the local files that it names."""
    inputs: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    files: dict[str, str] = {}
    for key, name in recipe.source.local_files():
        files[key] = digest_tree(local_file(directory, name, key).resolve())
    for number, step in enumerate(recipe.steps):
        key = f"build.steps[{number}]"
        if isinstance(step.run, Script):
            script = local_file(directory, step.run.file, f"{key}.run.file")
            files[key] = digest_tree(script.resolve())
        if step.copy_ is not None:
            files[key] = digest_tree(local_file(directory, step.copy_.from_, f"{key}.copy.from"))
    return {**inputs, "files": files}


def describe(inputs: Mapping[str, Any]) -> str:
    """One line on a recipe's source, for the plan."""
    return Source.model_validate(inputs["source"]).title()
