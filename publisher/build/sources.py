"""Any source ▶ the work disk: raw, of the recipe's size, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from publisher.build import command, debian, disk, identity, installed, layout, originals
from publisher.build.namespace import Namespace
from publisher.build.work import AUTHORIZED, Work, holds, look
from publisher.build.workspace import Workspace
from publisher.errors import BuildError
from publisher.fetch import Digest
from publisher.locations import Original
from publisher.model import Spec
from publisher.recipe import Recipe, bootable
from publisher.task import Task
from publisher.vm.arch import Platform

__all__ = ["Work", "install", "materials", "prepare", "resolve"]


def resolve(recipe: Recipe, directory: Path, task: Task) -> dict[str, Digest]:
    """The digests that signed lists have now for the files of a source, by their keys
    in its section. Raises BuildError, PipelineError."""
    source = recipe.source
    named: dict[str, Original] = {}
    if source.disk is not None:
        named["file"] = source.disk
    if source.installer is not None:
        named.update(source.installer.media())
    found = {}
    for name, original in named.items():
        key = disk.KEY if name == "file" else f"{installed.KEY}.{name}"
        digest = originals.digest(original, directory, task, key)
        if digest is not None:
            found[name] = digest
    return found


def materials(
    recipe: Recipe, resolved: Mapping[str, Digest], tree: debian.Installation | None
) -> dict[str, str]:
    """What the source was: key path or URL ▶ digest, such as "sha256:…". `resolved` and
    `tree` are what `resolve` and `install` gave."""
    section = f"build.source.{recipe.source.kind}"
    found = {
        section if name == "file" else f"{section}.{name}": str(digest)
        for name, digest in resolved.items()
    }
    for url, digest in (tree.releases if tree is not None else {}).items():
        found[url] = f"sha256:{digest}"
    return found


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
    bootable(recipe.firmware, platform.arch)
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
    tree: debian.Installation | None,
    resolved: Mapping[str, Digest],
    installer: Callable[[], Work],
    *,
    directory: Path,
    task: Task,
) -> Work:
    """Make the work disk in the workspace. `owner` and `tree` are needed for `debian`
    only, and `installer` is called for that source alone; `resolved` is what `resolve`
    gave, `directory` the pipeline's.

    Raises BuildError, HostError, PipelineError."""
    source = recipe.source
    if tree is not None:
        assert owner is not None
        made = layout.assemble(
            tree.tree,
            recipe.size,
            identity.derive(spec.name, spec.version),
            bootable(recipe.firmware, platform.arch),
            platform,
            owner,
            workspace,
            task,
        )
        return Work(made, False, (layout.ROOT_OFFSET,), layout.ROOT_OFFSET)
    if source.installer is not None:
        return installer()
    into = workspace.directory / "disk.raw"
    if source.disk is not None:
        cache = workspace.store.directory.parent / "downloads"
        disk.prepare(
            source.disk,
            recipe.size,
            directory=directory,
            cache=cache,
            into=into,
            task=task,
            known=resolved.get("file"),
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
    work = look(made, task)
    root = work.root
    if root is None or not recipe.steps:
        return work
    for name, path in (("cloud-init", "/usr/bin/cloud-init"), ("SSH server", "/usr/sbin/sshd")):
        if not holds(made, root, path, task):
            raise BuildError(
                f"the source's disk holds no {name}, by which the steps get in",
                key="build.steps",
                hint="install cloud-init and an SSH server in it, or take the steps out: the "
                "disk is then published as it is",
            )
    return replace(work, keys=holds(made, root, AUTHORIZED, task))
