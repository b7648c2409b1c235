"""Any source ▶ the work disk: raw, of the recipe's size, and what is known of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from publisher.build import command, debian, disk, grow, identity, layout
from publisher.build.namespace import Namespace
from publisher.build.workspace import Workspace
from publisher.errors import BuildError
from publisher.model import Noun, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import Platform


@dataclass(frozen=True, slots=True)
class Work(Noun):
    """`systems` are the offsets of the ext file systems that can be read from
    outside, `root` is the one of them that holds the system, if any does.
    `keys` says that root has SSH keys of the source's making."""

    disk: Path
    foreign: bool
    systems: tuple[int, ...]
    root: int | None
    keys: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            Path(data["disk"]),
            data["foreign"],
            tuple(data["systems"]),
            data["root"],
            data["keys"],
        )


def install(
    recipe: Recipe,
    platform: Platform,
    owner: Namespace | None,
    workspace: Workspace,
    *,
    directory: Path,
    task: Task,
) -> debian.Installation | None:
    """What is kept between builds and may have changed in the archive; None for
    other sources than `debian`. Raises BuildError, HostError, PipelineError."""
    layout.bootable(recipe.firmware, platform)
    source = recipe.source.debian
    if source is None:
        return None
    assert owner is not None
    return debian.install(source, platform, owner, workspace, task, directory=directory)


def prepare(
    recipe: Recipe,
    spec: Spec,
    platform: Platform,
    owner: Namespace | None,
    workspace: Workspace,
    installed: debian.Installation | None,
    *,
    directory: Path,
    task: Task,
) -> Work:
    """Make the work disk in the workspace. `owner` and `installed` are needed for
    `debian` only; `directory` is the pipeline's.

    Raises BuildError, HostError, PipelineError."""
    source = recipe.source
    if installed is not None:
        assert owner is not None
        made = layout.assemble(
            installed.tree,
            recipe.size,
            identity.derive(spec.name, spec.version),
            layout.bootable(recipe.firmware, platform),
            platform,
            owner,
            workspace,
            task,
        )
        return Work(made, False, (layout.ROOT_OFFSET,), layout.ROOT_OFFSET)
    into = workspace.directory / "disk.raw"
    if source.disk is not None:
        cache = workspace.store.directory.parent / "downloads"
        disk.prepare(
            source.disk, recipe.size, directory=directory, cache=cache, into=into, task=task
        )
    else:
        assert source.command is not None
        command.prepare(
            source.command,
            spec,
            recipe.size,
            directory=directory,
            scratch=workspace.directory / "command",
            into=into,
            task=task,
        )
    return _examine(into, recipe, task)


def _examine(made: Path, recipe: Recipe, task: Task) -> Work:
    """Look into a foreign disk. Raises BuildError where steps could never log in."""
    found = (extent.offset for extent in grow.ext_partitions(made))
    systems = tuple(s for s in found if _holds(made, s, "/", task))
    root = next((s for s in systems if _holds(made, s, "/usr/lib/os-release", task)), None)
    if root is None or not recipe.steps:
        return Work(made, True, systems, root)
    for name, path in (("cloud-init", "/usr/bin/cloud-init"), ("SSH server", "/usr/sbin/sshd")):
        if not _holds(made, root, path, task):
            raise BuildError(
                f"the source's disk holds no {name}, by which the steps get in",
                key="build.steps",
                hint="install cloud-init and an SSH server in it, or take the steps out: the "
                "disk is then published as it is",
            )
    keys = _holds(made, root, "/root/.ssh/authorized_keys", task)
    return Work(made, True, systems, root, keys)


def _holds(made: Path, system: int, path: str, task: Task) -> bool:
    argv = ["debugfs", "-R", f"stat {path}", f"{made}?offset={system}"]
    return "Inode:" in process.run(argv, task, env={**os.environ, "LC_ALL": "C"}).text
