"""From a recipe to a sealed disk in the store."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from publisher.build import namespace, seal, sources, steps
from publisher.build.checkpoints import Checkpoint, Checkpoints, Level
from publisher.build.levels import check_files, check_planned, levels
from publisher.build.room import Room
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BootError, BuildError, HostError
from publisher.model import GIB, Disk, Firmware, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import accelerator, host
from publisher.vm.arch import Platform, platform_of
from publisher.vm.console import Phase
from publisher.vm.machine import Hardware
from publisher.vm.shell import Shell

EVIDENCE = "evidence"
"""Where the task's memory holds what the checks of the last build showed."""
MEMORY = 1024
"""MiB of the guest in which the steps run."""


def build(
    recipe: Recipe,
    spec: Spec,
    *,
    directory: Path,
    store: Store,
    task: Task,
    files: Mapping[str, str] | None = None,
) -> Disk:
    """Build the disk that `recipe` describes; `directory` is the pipeline's, `files`
    the digests of its files (recipe.fingerprint) when the build was planned.

    What the `check` steps showed is left in the task's memory as EVIDENCE.
    Installations, downloads and checkpoints are kept between builds: the machine
    is resumed behind the last step that did not change. A foreign disk without
    steps is not booted: it stays as it is, but for its size. Raises BuildError,
    HostError, PipelineError (a missing file), Cancelled; nothing but what is kept
    stays behind then.
    """
    steps.check_files(recipe, directory)
    host.require_all(spec.arch)
    platform = platform_of(spec.arch)
    ours = recipe.source.debian is not None
    chosen = _accelerator(spec, task) if ours or recipe.steps else None
    owner = namespace.probe(store.scratch("probe").parent) if ours else None
    kept = Checkpoints(store.directory.parent)
    kept.prune()
    try:
        with Workspace(store, owner, task) as workspace, kept:
            installed = sources.install(
                recipe, platform, owner, workspace, directory=directory, task=task
            )

            def prepare() -> sources.Work:
                return sources.prepare(
                    recipe,
                    spec,
                    platform,
                    owner,
                    workspace,
                    installed,
                    directory=directory,
                    task=task,
                )

            if chosen is None:
                made = prepare().disk
            else:
                workspace.need(GIB // 2)
                state = installed.state if installed is not None else {}
                path = levels(recipe, spec, state, chosen, MEMORY, directory)
                check_planned(path, files)
                build = _Build(recipe, spec, directory, chosen, workspace, kept, path, task)
                made = build.run(prepare)
                task.memory.set(EVIDENCE, build.evidence)
            task.phase("hashing the disk")
            disk = store.add(made, check=task.check)
            with contextlib.suppress(OSError):  # then they count until the host restarts
                kept.sync()
            return disk
    finally:
        kept.prune()


def _accelerator(spec: Spec, task: Task) -> accelerator.Accelerator:
    task.phase("finding out how guests run here")
    chosen = accelerator.probe(spec.arch)
    task.note(chosen.reason, "info" if chosen.kind == "kvm" else "warning")
    return chosen


def _seal(work: sources.Work, task: Task) -> None:
    """Prove that the file holds nothing of the build, as far as it can be read."""
    if work.root is None:
        task.note(
            "the disk's root is not ext4: the guest cleaned and trimmed it, which can't be "
            "checked from outside",
            "warning",
        )
    else:
        seal.prove(work.disk, task, offset=work.root, keys_expected=work.keys)
    erased = sum(seal.erase(work.disk, task, offset=offset) for offset in work.systems)
    task.output(f"erased {erased / GIB:.2f} GiB of free space")


class _Build:
    """The steps in a machine, from the deepest checkpoint on."""

    def __init__(
        self,
        recipe: Recipe,
        spec: Spec,
        directory: Path,
        chosen: accelerator.Accelerator,
        workspace: Workspace,
        kept: Checkpoints,
        path: Sequence[Level],
        task: Task,
    ) -> None:
        self.recipe = recipe
        self.spec = spec
        self.directory = directory
        self.platform = platform_of(spec.arch)
        self.chosen = chosen
        self.workspace = workspace
        self.kept = kept
        self.path = path
        self.task = task
        self.firmware = _firmware(recipe.firmware, self.platform)
        self.log = workspace.directory / "console.log"
        self.evidence: list[Mapping[str, Any]] = []

    def run(self, prepare: Callable[[], sources.Work]) -> Path:
        """The sealed disk. `prepare` makes the source's disk, if it is needed."""
        found = self.kept.deepest(self.path)
        if found is not None:
            index, checkpoint = found
            with self._room() as room:
                if self._resume(room, index, checkpoint):
                    self.evidence = list(checkpoint.facts.get("evidence", ()))
                    work = sources.Work.from_json({**checkpoint.facts, "disk": str(self.log)})
                    return self._finish(room, work, index)
        work = prepare()
        with self._room() as room:
            try:
                self._boot(room, work)
                room.keep(self.spec.name, self.path[:1], self._facts(work))
                return self._finish(room, work, 0)
            except BootError as error:
                self._explain(error, work)
                raise

    def _facts(self, work: sources.Work) -> Mapping[str, Any]:
        known = {name: value for name, value in work.to_json().items() if name != "disk"}
        return {**known, "evidence": list(self.evidence)}

    def _room(self) -> Room:
        private = self.workspace.directory / f"guest-{secrets.token_hex(4)}"
        private.mkdir(mode=0o700)
        hardware = Hardware(drives=(), log=self.log, arch=self.platform.arch, memory=MEMORY)
        return Room(private, self.kept, hardware, self.chosen, self.task)

    def _resume(self, room: Room, index: int, checkpoint: Checkpoint) -> bool:
        """False when this QEMU can't take the checkpoint: then everything is done anew."""
        started = self.task.clock.monotonic()
        where = f"after step {index}" if index else "as it was booted"
        self.task.phase(f"resuming the machine {where}")
        try:
            room.resume(checkpoint, self.firmware)
        except (BuildError, HostError, OSError) as error:
            self.task.check()
            self.task.note(f"the checkpoint can't be resumed: {error}", "warning")
            if isinstance(error, (BuildError, FileNotFoundError)):  # it never will be
                self.kept.discard(checkpoint)
            return False
        self.task.phase(f"resumed · {self.task.clock.monotonic() - started:.1f} s")
        return True

    def _boot(self, room: Room, work: sources.Work) -> None:
        started = self.task.clock.monotonic()
        room.boot(work.disk, grow=work.foreign, firmware=self.firmware)
        self.task.phase(f"booted · {self.task.clock.monotonic() - started:.1f} s")
        if work.foreign:
            _warn_of_small_root(self.recipe.size, room.shell, self.task)

    def _finish(self, room: Room, work: sources.Work, first: int) -> Path:
        """The steps from `first` on, and the sealing."""

        def after(number: int, shown: steps.Evidence | None) -> None:
            check_files(self.recipe, number, self.directory, self.path[number + 1])
            if shown is not None:
                self.evidence.append(shown.to_json())
            room.keep(self.spec.name, self.path[: number + 2], self._facts(work))

        steps.run_all(self.recipe, self.directory, room.shell, self.task, first=first, after=after)
        seal.clean(room.shell, room.machine, room.keys.user_public, self.task)
        self.task.phase("sealing: joining the layers")
        sealed = room.flatten(self.workspace.directory / "sealed.raw")
        _seal(replace(work, disk=sealed), self.task)
        return sealed

    def _explain(self, error: BootError, work: sources.Work) -> None:
        kept = self.workspace.store.scratch("console.log")
        shutil.copyfile(self.log, kept)
        error.hint = f"everything that the guest printed is in {kept}"
        if work.foreign and error.phase != Phase.READY.title:
            error.hint = (
                "a disk from elsewhere needs a boot loader for "
                f"{_loader(self.recipe, self.platform)} (build.firmware), cloud-init that looks "
                "for NoCloud seeds, and an SSH server; " + error.hint
            )


def _loader(recipe: Recipe, platform: Platform) -> str:
    return "BIOS" if "bios" in recipe.firmware and platform.bios else "UEFI"


def _warn_of_small_root(size: int, shell: Shell, task: Task) -> None:
    """Say so when the guest did not grow its root to a disk that was made larger."""
    done = shell.command("df -Pk / | tail -n 1")
    fields = done.text.split()
    if done.status == 0 and len(fields) > 1 and fields[1].isdigit():
        root = int(fields[1]) * 1024
        if root < size // 2:
            task.note(
                f"the root file system has {root / GIB:.1f} GiB of a disk of {size / GIB:.1f} "
                "GiB: the disk's cloud-init did not grow it",
                "warning",
            )


def _firmware(firmware: Firmware, platform: Platform) -> tuple[Path, Path] | None:
    """EDK II for a disk that boots only by UEFI; the BIOS is faster otherwise."""
    if "bios" in firmware and platform.bios:
        return None
    return host.efi_firmware(platform)
