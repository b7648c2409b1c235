"""What an installer left: kept as a checkpoint without a machine, so that it runs once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.build import answers
from publisher.build.checkpoints import Checkpoint, Checkpoints, Level
from publisher.build.grow import has_esp
from publisher.build.installer import KEY, Installation
from publisher.build.secrets import Tracer, untraced
from publisher.build.work import AUTHORIZED, Work, holds, look, read
from publisher.build.workspace import Workspace
from publisher.errors import BuildError
from publisher.fetch import Digest
from publisher.memory import boot_id
from publisher.model import GIB, MIB, Spec
from publisher.recipe import Installer, Recipe
from publisher.task import Task
from publisher.vm import keys
from publisher.vm.accelerator import Accelerator

__all__ = ["KEY", "Installer", "prepare"]

_HOST_KEYS = "/etc/ssh/ssh_host_{}_key.pub"
_KEYGEN = ("sshd-keygen.service", "sshd-keygen@.service", "sshd-keygen.target")


@dataclass(frozen=True, slots=True)
class Site:
    """Where and with what an installer runs; `firmware` as Hardware takes it, `trace` makes
    what is kept of its secrets."""

    workspace: Workspace
    kept: Checkpoints
    chosen: Accelerator
    firmware: tuple[Path, Path] | None
    directory: Path
    task: Task
    trace: Tracer = untraced


def prepare(
    recipe: Recipe, spec: Spec, level: Level, resolved: Mapping[str, Digest], site: Site
) -> Work:
    """The installed disk, from its checkpoint or made now. It is a layer of the
    store, which nobody writes to.

    Raises BuildError, HostError, PipelineError."""
    found = site.kept.get(level.key)
    if found is None:
        found = _install(recipe, spec, level, resolved, site)
    else:
        site.task.output("installed before, with the same installer and answers")
        site.kept.touch(found)
    layer = site.kept.layers / found.layers[0]
    if "uefi" in recipe.firmware and not has_esp(layer):
        raise BuildError(
            "the installed disk has no EFI system partition: it does not boot by UEFI",
            key="build.firmware",
            hint='write firmware = "bios", or let the answer files make one and a loader in it',
        )
    return Work.from_json(
        {**found.facts, "disk": str(layer), "known": str(site.kept.place(found.key))}
    )


def _install(
    recipe: Recipe, spec: Spec, level: Level, resolved: Mapping[str, Digest], site: Site
) -> Checkpoint:
    source, task, kept = recipe.source.installer, site.task, site.kept
    assert source is not None
    site.workspace.need(min(recipe.size, GIB))
    private = site.workspace.directory / "installer"
    private.mkdir(mode=0o700)
    pair = keys.generate(private, task)
    installation = Installation(
        source, spec, directory=private, pipeline=site.directory, keys=pair, task=task
    )
    started = task.clock.monotonic()
    disk = installation.run(
        site.workspace.directory / "installed.raw",
        recipe.size,
        cache=site.workspace.store.directory.parent / "downloads",
        resolved=resolved,
        chosen=site.chosen,
        firmware=site.firmware,
        log=site.workspace.store.scratch("console.log"),
    )
    task.phase(f"installed · {task.clock.monotonic() - started:.1f} s")
    traces = [site.trace(f"{KEY}.secrets.{n}", v) for n, v in installation.secrets.items()]
    work = replace(_examine(disk, source, pair, site), traces=tuple(traces))
    base = kept.new_layer("raw")
    shutil.move(disk, base)
    facts = {name: value for name, value in work.to_json().items() if name != "disk"}
    made = Checkpoint(
        key=level.key,
        title=level.title,
        name=spec.name,
        layers=(base.name,),
        facts=facts,
        levels=(level.to_json(),),
        created=task.clock.now(),
        boot=boot_id(),
        running=False,
    )
    with kept.making(level.key) as partial:
        keys.copy(private, partial)
        kept.publish(partial, made)
    return kept.get(level.key) or made


def _examine(disk: Path, source: Installer, pair: keys.Keys, site: Site) -> Work:
    """Look into the installed disk. Raises BuildError where nobody could log in."""
    task = site.task
    if not _has_table(disk):
        raise BuildError(
            "the installer ended and left the disk without a boot sector or partitions",
            key=KEY,
            hint="does it install on the first virtio disk, /dev/vda?",
        )
    door = source.user if "ssh_public_key" in answers.used(source, site.directory) else ""
    work = replace(look(disk, task), door=door)
    if work.root is None:
        pair.expect(())
        return work
    if not holds(disk, work.root, "/usr/sbin/sshd", task):
        raise BuildError(
            "the installed system holds no SSH server, by which the steps get in",
            key=KEY,
            hint="let the answer files install one",
        )
    cloud_init = holds(disk, work.root, "/usr/bin/cloud-init", task)
    if not cloud_init and not door:
        raise BuildError(
            "the installed system lets nobody in: it has no cloud-init, and the answer files "
            "do not use {ssh_public_key}",
            key=f"{KEY}.files",
            hint="let them install cloud-init, or write {ssh_public_key} into the "
            "authorized_keys of the user that build.source.installer.user names",
        )
    if not cloud_init and not _makes_host_keys(disk, work.root, task):
        task.note(
            "the installed system has no cloud-init and no service that makes SSH host keys: "
            "sealing removes the ones it has, so sshd will not start in the image",
            "warning",
        )
    pair.expect(
        read(disk, work.root, path, task)
        for path in (_HOST_KEYS.format(kind) for kind in ("ed25519", "ecdsa", "rsa"))
        if holds(disk, work.root, path, task)
    )
    return replace(
        work, door="" if cloud_init else door, keys=_has_other_keys(disk, work.root, pair, task)
    )


def _makes_host_keys(disk: Path, root: int, task: Task) -> bool:
    return any(holds(disk, root, f"/usr/lib/systemd/system/{name}", task) for name in _KEYGEN)


def _has_other_keys(disk: Path, root: int, pair: keys.Keys, task: Task) -> bool:
    """Whether root lets in somebody besides the build, who stays."""
    if not holds(disk, root, AUTHORIZED, task):
        return False
    ours = pair.user_public.split()[1]
    lines = read(disk, root, AUTHORIZED, task).splitlines()
    return any(line.strip() and ours not in line and line[0] != "#" for line in lines)


def _has_table(disk: Path) -> bool:
    with disk.open("rb") as file:
        return any(file.read(MIB))
