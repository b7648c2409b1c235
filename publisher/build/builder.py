"""From a recipe to a sealed disk in the store."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from publisher.build import cleaning, namespace, seal, sources, steps
from publisher.build.checkpoints import Checkpoint, Checkpoints, Level
from publisher.build.installed import Site
from publisher.build.installed import prepare as prepare_installed
from publisher.build.levels import check_files, check_planned, installation, levels
from publisher.build.rescue import CLEANUP, Decision, OnError, converse
from publisher.build.room import Login, Room, for_build
from publisher.build.secrets import Tracer, untraced
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
BY_HAND = "by_hand"
"""Where it holds the steps before which the user changed the machine by hand."""
MATERIALS = "materials"
"""Where it holds the digests of what the source was, as far as they are only known when
it is fetched: key path or URL ▶ digest."""
TRACES = "traces"
"""Where it holds what is kept of all secrets that ever went into the disk: of a step that
was resumed, those that it had then."""
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
    on_error: OnError = CLEANUP,
    trace: Tracer = untraced,
) -> Disk:
    """Build the disk that `recipe` describes; `directory` is the pipeline's, `files`
    the digests of its files (recipe.fingerprint) when the build was planned.

    What the `check` steps showed is left in the task's memory as EVIDENCE, and
    which steps were retried on a machine that the user could change as BY_HAND, and
    what the source was as MATERIALS.
    `trace` is handed what must not be on the disk: all secrets, by key path, and the
    build's own keys; what it gives is kept with the checkpoints, and left as TRACES.
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
    chosen = _accelerator(spec, task) if recipe.boots else None
    owner = namespace.probe(store.scratch("probe").parent) if ours else None
    kept = Checkpoints(store.directory.parent)
    kept.prune()
    try:
        with Workspace(store, owner, task) as workspace, kept:
            installed = sources.install(
                recipe, platform, owner, workspace, directory=directory, task=task
            )
            resolved = sources.resolve(recipe, directory, task)
            state = {name: str(digest) for name, digest in resolved.items()}
            state.update(installed.state if installed is not None else {})

            def run_installer() -> sources.Work:
                level = installation(recipe, spec, state, directory)
                assert level is not None
                assert chosen is not None
                firmware = _firmware(recipe.firmware, platform)
                site = Site(workspace, kept, chosen, firmware, directory, task, trace)
                return prepare_installed(recipe, spec, level, resolved, site)

            def prepare() -> sources.Work:
                return sources.prepare(
                    recipe,
                    spec,
                    platform,
                    owner,
                    workspace,
                    installed,
                    resolved,
                    run_installer,
                    directory=directory,
                    task=task,
                )

            evidence: Sequence[Mapping[str, Any]] = ()
            by_hand: Sequence[str] = ()
            traces: Sequence[Mapping[str, Any]] = ()
            if chosen is None:
                made = prepare().disk
                task.phase("hashing the disk")
                disk = store.add(made, check=task.check)
            else:
                workspace.need(GIB // 2)
                path = levels(recipe, spec, state, chosen, MEMORY, directory)
                check_planned(path, files)
                build = _Build(
                    recipe, spec, directory, chosen, workspace, kept, path, task, on_error, trace
                )
                sealed = build.run(prepare)
                disk = store.add(sealed.disk, task.check, prove=lambda: _prove(sealed, task))
                evidence, by_hand, traces = build.evidence, build.by_hand, build.traces
            task.memory.set(EVIDENCE, list(evidence))
            task.memory.set(BY_HAND, list(by_hand))
            task.memory.set(MATERIALS, sources.materials(recipe, resolved, installed))
            task.memory.set(TRACES, list(traces))
            return disk
    finally:
        kept.prune()


def _login(work: sources.Work) -> Login:
    known = Path(work.known) if work.known else None
    return for_build(grow=work.foreign, known=known, door=work.door)


def _accelerator(spec: Spec, task: Task) -> accelerator.Accelerator:
    task.phase("finding out how guests run here")
    chosen = accelerator.probe(spec.arch)
    task.note(chosen.reason, "info" if chosen.kind == "kvm" else "warning")
    return chosen


def _erase(work: sources.Work, task: Task) -> None:
    erased = sum(seal.erase(work.disk, task, offset=offset) for offset in work.systems)
    task.output(f"erased {erased / GIB:.2f} GiB of free space")


def _prove(work: sources.Work, task: Task) -> None:
    """Prove that the file holds nothing of the build, as far as it can be read."""
    if work.root is None:
        task.note(
            "the disk's root is not ext4: the guest cleaned and trimmed it, which can't be "
            "checked from outside",
            "warning",
        )
    else:
        seal.prove(work.disk, task, offset=work.root, keys_expected=work.keys)
    task.phase("hashing the disk")


class _FromCheckpoint(Exception):
    """The user wants the failed step done on the machine of the last checkpoint."""


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
        on_error: OnError,
        trace: Tracer,
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
        self.on_error = on_error
        self.epoch = cleaning.epoch()
        self.trace = trace
        self.firmware = _firmware(recipe.firmware, self.platform)
        self.log = workspace.directory / "console.log"
        self.sealed = workspace.directory / "sealed.raw"
        self.evidence: list[Mapping[str, Any]] = []
        self.by_hand: list[str] = []
        self.traces: list[Mapping[str, Any]] = []

    def run(self, prepare: Callable[[], sources.Work]) -> sources.Work:
        """The sealed disk, to be proved. `prepare` makes the source's disk, if it is needed."""
        if self.on_error.action == "shell":
            with contextlib.suppress(_FromCheckpoint):
                made = self._reopen()
                if made is not None:
                    return made
        while True:
            with contextlib.suppress(_FromCheckpoint):
                return self._attempt(prepare)

    def _attempt(self, prepare: Callable[[], sources.Work]) -> sources.Work:
        """From the deepest checkpoint that this QEMU takes, or else from the source."""
        self.by_hand = []
        refused: list[Checkpoint] = []
        for index, checkpoint in self.kept.along(self.path):
            where = f"after step {index}" if index else "as it was booted"
            with self._room() as room:
                if self._resume(room, where, checkpoint):
                    self._discard(refused)
                    return self._finish(room, self._recall(checkpoint), index)
            refused.append(checkpoint)
        self.evidence = []
        work = prepare()
        self.traces = list(work.traces)
        with self._room() as room:
            try:
                self._boot(room, work)
            except BootError as error:
                self._explain(error, work)
                raise
            self._discard(refused)
            room.keep(self.spec.name, self.path[:1], self._facts(work))
            return self._finish(room, work, 0)

    def _discard(self, refused: Sequence[Checkpoint]) -> None:
        """Let go of checkpoints that can't be resumed, now that another machine runs here."""
        for checkpoint in refused:
            self.kept.discard(checkpoint)

    def _reopen(self) -> sources.Work | None:
        """Go on in the kept machine in which the next step failed, if there is one."""
        done = next((index for index, _ in self.kept.along(self.path)), -1)
        for checkpoint in self.kept.failures(self.spec.name):
            levels = checkpoint.path_of()
            number = len(levels) - 2
            if number < done or number + 1 >= len(self.path):
                continue
            if self.path[number + 1].key != levels[-1].key:
                continue
            with self._room() as room:
                if self._resume(room, f"in which step {number + 1} failed", checkpoint):
                    work = self._recall(checkpoint)
                    self._rescue(room, work, number, BuildError(checkpoint.failed))
                    return self._finish(room, work, number)
            return None
        return None

    def _recall(self, checkpoint: Checkpoint) -> sources.Work:
        self.evidence = list(checkpoint.facts.get("evidence", ()))
        self.by_hand = list(checkpoint.facts.get(BY_HAND, ()))
        self.traces = list(checkpoint.facts.get(TRACES, ()))
        return sources.Work.from_json({**checkpoint.facts, "disk": str(self.log)})

    def _facts(self, work: sources.Work) -> Mapping[str, Any]:
        known = {name: value for name, value in work.to_json().items() if name != "disk"}
        return {
            **known,
            "evidence": list(self.evidence),
            BY_HAND: list(self.by_hand),
            TRACES: list(self.traces),
        }

    def _room(self) -> Room:
        private = self.workspace.directory / f"guest-{secrets.token_hex(4)}"
        private.mkdir(mode=0o700)
        hardware = Hardware((), self.log, self.platform.arch, MEMORY, aided=True)
        return Room(private, self.kept, hardware, self.chosen, self.task)

    def _resume(self, room: Room, where: str, checkpoint: Checkpoint) -> bool:
        """False when it can't be resumed: then the next one is tried."""
        started = self.task.clock.monotonic()
        self.task.phase(f"resuming the machine {where}")
        try:
            room.resume(checkpoint, self.firmware, into=self.sealed)
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
        room.boot(work.disk, _login(work), firmware=self.firmware)
        self.task.phase(f"booted · {self.task.clock.monotonic() - started:.1f} s")
        if work.foreign:
            _warn_of_small_root(self.recipe.size, room.shell, self.task)

    def _finish(self, room: Room, work: sources.Work, first: int) -> sources.Work:
        """The steps from `first` on, and the sealing."""
        room.join_early(self.sealed)
        self.kept.sync_soon()

        def after(number: int, shown: steps.Evidence | None) -> None:
            check_files(self.recipe, number, self.directory, self.path[number + 1])
            if shown is not None:
                self.evidence.append(shown.to_json())
            if not self.by_hand:
                # the last one is not waited for: the disk that comes of it is safe by the end
                self.kept.sync_soon()
                room.keep(self.spec.name, self.path[: number + 2], self._facts(work))

        def rescue(number: int, error: BuildError) -> None:
            self._rescue(room, work, number, error)

        def hand(number: int, secrets: Mapping[str, str]) -> None:
            for name, value in secrets.items():
                self.traces.append(self.trace(f"{steps.key(number)}.secrets.{name}", value))

        steps.run_all(
            self.recipe,
            self.directory,
            room.shell,
            self.task,
            first=first,
            after=after,
            rescue=rescue,
            hand=hand,
        )
        if self.by_hand:
            self.task.note(f"this image can't be built again: {_told(self.by_hand)}", "warning")
        for label, value in (
            ("the key of the build's login", room.keys.identity.read_text()),
            ("the host key of the build's machine", room.keys.host_private),
        ):
            self.traces.append(self.trace(label, value))
        self.kept.pause()
        try:
            script = cleaning.script(room.keys.user_public, self.epoch)
            cleaning.clean(room.shell, room.machine, script, self.task)
        except BootError as error:
            self._explain(error, work)
            raise
        self.task.phase("sealing: joining the layers")
        work = replace(work, disk=room.flatten(self.sealed))
        _erase(work, self.task)
        return work

    def _rescue(self, room: Room, work: sources.Work, number: int, error: BuildError) -> None:
        """Do with the machine of a failed step what was asked for. Returns when the
        step is to be retried in it, raises the error when all is over."""
        if isinstance(error, BootError):  # of a restart
            self._explain(error, work)
        decision: Decision = "keep" if self.on_error.action == "keep" else "give up"
        name = f"step {number + 1}"
        if self.on_error.action == "shell":
            assert self.on_error.terminal is not None
            self.task.phase(f"{name} failed: a shell is open in the guest")
            with self.on_error.turn, self.on_error.terminal.aside():
                decision = converse(self.on_error.terminal, room.shell, name, error, self.task)
        if decision == "retry":
            self.by_hand.append(f"{name}: {self.recipe.steps[number].title()}")
            return
        if decision == "again":
            raise _FromCheckpoint from error
        if decision == "keep":
            self._keep_failed(room, work, number, error)
        raise error

    def _keep_failed(self, room: Room, work: sources.Work, number: int, error: BuildError) -> None:
        self.task.phase("keeping the machine")
        try:
            kept = room.keep(
                self.spec.name,
                self.path[: number + 2],
                self._facts(work),
                failed=str(error),
            )
        except (BuildError, HostError) as trouble:
            self.task.note(f"the machine could not be kept: {trouble}", "warning")
            return
        if kept is not None:
            error.hint = "\n".join(
                [
                    *filter(None, [error.hint]),
                    f"the machine is kept as {kept.key[:12]}: the same command with "
                    "--on-error=shell opens it and goes on in it, `publish lab start "
                    f"checkpoint:{kept.key[:12]}` lets you look into copies of it, and "
                    f"`publish cache rm {kept.key[:12]}` removes it",
                ]
            )

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


def _told(by_hand: Sequence[str]) -> str:
    return f"its machine was open to changes by hand before {', '.join(by_hand)}"


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
