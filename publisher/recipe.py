"""What goes into a disk: the [build] section of a pipeline, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from publisher import digests
from publisher.build_steps import Ansible, BuildStep, Copy, Script
from publisher.errors import PipelineError
from publisher.installer import Installer
from publisher.model import Arch, Firmware
from publisher.secret import Secret
from publisher.section import Section, Size
from publisher.sources import Command, Debian, Disk, Source

__all__ = [
    "Ansible",
    "BuildStep",
    "Command",
    "Copy",
    "Debian",
    "Disk",
    "Installer",
    "Recipe",
    "Script",
    "Secret",
    "Section",
    "Source",
    "bootable",
    "describe",
    "digest_tree",
    "fingerprint",
    "local_file",
    "step_files",
]


class Recipe(Section):
    """The [build] section."""

    source: Source = Field(description="Where the disk comes from.")
    size: Size = Field(description='Virtual size of the disk, such as "10GiB".')
    firmware: Firmware = Field(
        "bios+uefi",
        description="How the disk boots: bios, uefi, or bios+uefi. aarch64 has only uefi.",
    )
    steps: tuple[BuildStep, ...] = Field((), description="What to do inside the running machine.")

    @property
    def boots(self) -> bool:
        """False for a disk that is published as it is."""
        return (
            bool(self.steps) or self.source.debian is not None or self.source.installer is not None
        )


def bootable(firmware: Firmware, arch: Arch) -> Firmware:
    """Those of a recipe's ways to boot that the architecture has: no ARM machine, of
    QEMU or of any cloud, has a BIOS.

    Raises PipelineError when it has none of them."""
    if arch == "x86_64" or firmware == "uefi":
        return firmware
    if firmware == "bios":
        raise PipelineError(
            f"{arch} has no BIOS", key="build.firmware", hint='write firmware = "uefi"'
        )
    return "uefi"


def _walk(path: Path) -> Iterator[Path]:
    """All below a directory, also through links; none is entered twice."""
    seen = {path.resolve()}
    for place, directories, names in os.walk(path, followlinks=True):
        directories.sort()  # the first link to a directory is the one that is entered
        yield from (Path(place, name) for name in (*directories, *names))
        fresh = [name for name in directories if Path(place, name).resolve() not in seen]
        seen.update(Path(place, name).resolve() for name in fresh)
        directories[:] = fresh


def digest_tree(path: Path, *, follow: bool = False) -> str:
    """sha256 over names, modes, link targets and contents of a file or tree;
    `follow`: also over what links lead to, as whoever opens them reads it.

    Raises FileNotFoundError."""
    digest = hashlib.sha256()
    below = _walk(path) if follow else path.rglob("*")
    entries = sorted(below) if path.is_dir() else [path]
    for entry in entries:
        info = entry.lstat()
        name = entry.relative_to(path).as_posix() if entry != path else ""
        digest.update(f"{name}\0{info.st_mode:o}\0".encode())
        if entry.is_symlink():
            digest.update(os.readlink(entry).encode())
        if entry.is_file() and (follow or not entry.is_symlink()):
            digest.update(digests.sha256(entry))
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


_BESIDE = (
    *("roles", "tasks", "handlers", "files", "templates", "vars", "group_vars", "host_vars"),
    *("library", "module_utils", "collections", "ansible.cfg", "*_plugins", "*.yml", "*.yaml"),
)
"""What Ansible finds beside a playbook.
https://docs.ansible.com/ansible/latest/tips_tricks/sample_setup.html"""


def step_files(step: BuildStep, number: int, directory: Path) -> dict[str, str]:
    """The digests, by key path, of the local files that decide what a step does:
    all but those with secrets. Raises PipelineError for the first that is missing."""
    files: dict[str, str] = {}
    for suffix, name in step.local_files():
        key = f"build.steps[{number}].{suffix}"
        path = local_file(directory, name, key)
        # what is copied keeps its links; whoever runs here goes where they lead
        files[key] = (
            digest_tree(path)
            if step.copy_ is not None
            else digest_tree(path.resolve(), follow=True)
        )
    if step.ansible is not None:
        near = (directory / step.ansible.playbook).parent
        for path in sorted({found for pattern in _BESIDE for found in near.glob(pattern)}):
            files[f"build.steps[{number}].ansible:{path.name}"] = digest_tree(
                path.resolve(), follow=True
            )
    return files


def fingerprint(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Everything that decides what the disk will hold, as JSON: the recipe, and
    the digests of the local files that it names."""
    inputs: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    files: dict[str, str] = {}
    for key, name in recipe.source.local_files():
        files[key] = digest_tree(local_file(directory, name, key).resolve())
    for number, step in enumerate(recipe.steps):
        files |= step_files(step, number, directory)
    return {**inputs, "files": files}


def describe(inputs: Mapping[str, Any]) -> str:
    """One line on a recipe's source, for the plan."""
    return Source.model_validate(inputs["source"]).title()
