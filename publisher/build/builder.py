"""From a recipe to a sealed disk in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from publisher.build import namespace, seal, sources, steps
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BootError
from publisher.model import GIB, Disk, Firmware, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import accelerator, host, keys, seed
from publisher.vm.arch import Platform, platform_of
from publisher.vm.console import Phase
from publisher.vm.machine import Drive, Hardware, Machine
from publisher.vm.shell import Shell

MEMORY = 1024
"""MiB of the guest in which the steps run."""


def build(recipe: Recipe, spec: Spec, *, directory: Path, store: Store, task: Task) -> Disk:
    """Build the disk that `recipe` describes; `directory` is the pipeline's.

    Installations and downloads are kept between builds; the steps run on a fresh
    copy. A foreign disk without steps is not booted: it stays as it is, but for
    its size. Raises BuildError, HostError, PipelineError (a missing file),
    Cancelled; nothing but what is kept stays behind then.
    """
    steps.check_files(recipe, directory)
    host.require_all(spec.arch)
    platform = platform_of(spec.arch)
    ours = recipe.source.debian is not None
    chosen = _accelerator(spec, task) if ours or recipe.steps else None
    owner = namespace.probe(store.scratch("probe").parent) if ours else None
    with Workspace(store, owner, task) as workspace:
        work = sources.prepare(
            recipe, spec, platform, owner, workspace, directory=directory, task=task
        )
        if chosen is not None:
            workspace.need(GIB // 2)
            _provision(recipe, work, directory, platform, chosen, workspace, task)
            _seal(work, task)
        task.phase("hashing the disk")
        return store.add(work.disk, check=task.check)


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


def _provision(
    recipe: Recipe,
    work: sources.Work,
    directory: Path,
    platform: Platform,
    chosen: accelerator.Accelerator,
    workspace: Workspace,
    task: Task,
) -> None:
    """Boot the disk, run the steps, clean up, power off."""
    private = workspace.directory / "guest"
    private.mkdir(mode=0o700)
    pair = keys.generate(private, task)
    data = seed.for_build(pair, seal.SSHD_DROP_IN, grow=work.foreign)
    small = seed.write(private / "seed.img", data, workspace.directory.name, task)
    code, variables = _firmware(recipe.firmware, platform, private)
    hardware = Hardware(
        drives=(Drive(work.disk), Drive(small, read_only=True)),
        log=private / "console.log",
        arch=platform.arch,
        memory=MEMORY,
        firmware_code=code,
        firmware_variables=variables,
    )
    started = task.clock.monotonic()
    try:
        with Machine(hardware, task, chosen) as machine, Shell(machine, pair) as shell:
            task.phase(f"booted · {task.clock.monotonic() - started:.1f} s")
            if work.foreign:
                _warn_of_small_root(recipe.size, shell, task)
            steps.run_all(recipe, directory, shell, task)
            seal.clean(shell, machine, pair.user_public, task)
    except BootError as error:
        kept = workspace.store.scratch("console.log")
        shutil.copyfile(hardware.log, kept)
        error.hint = f"everything that the guest printed is in {kept}"
        if work.foreign and error.phase != Phase.READY.title:
            error.hint = (
                f"a disk from elsewhere needs a boot loader for {_loader(recipe, platform)} "
                "(build.firmware), cloud-init that looks for NoCloud seeds, and an SSH server; "
                + error.hint
            )
        raise


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


def _firmware(
    firmware: Firmware, platform: Platform, private: Path
) -> tuple[Path | None, Path | None]:
    """EDK II for a disk that boots only by UEFI; the BIOS is faster otherwise."""
    if "bios" in firmware and platform.bios:
        return None, None
    code, template = host.efi_firmware(platform)
    variables = private / "variables.fd"
    shutil.copyfile(template, variables)
    return code, variables
