"""From a recipe to a sealed disk in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from publisher.build import debian, identity, layout, namespace, seal, steps
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BootError
from publisher.model import GIB, Disk, Firmware, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import accelerator, host, keys, seed
from publisher.vm.arch import Platform, platform_of
from publisher.vm.machine import Drive, Hardware, Machine
from publisher.vm.shell import Shell

MEMORY = 1024
"""MiB of the guest in which the steps run."""


def build(recipe: Recipe, spec: Spec, *, directory: Path, store: Store, task: Task) -> Disk:
    """Build the disk that `recipe` describes; `directory` is the pipeline's.

    The installation is kept between builds; the steps run on a fresh copy of
    it. Raises BuildError, HostError, PipelineError (a missing file), Cancelled;
    nothing but the kept installation stays behind then.
    """
    steps.check_files(recipe, directory)
    host.require_all(spec.arch)
    platform = platform_of(spec.arch)
    task.phase("finding out how guests run here")
    chosen = accelerator.probe(spec.arch)
    task.note(chosen.reason, "info" if chosen.kind == "kvm" else "warning")
    owner = namespace.probe(store.scratch("probe").parent)
    derived = identity.derive(spec.name, spec.version)
    source = recipe.source.debian
    assert source is not None
    with Workspace(store, owner, task) as workspace:
        installed = debian.install(source, platform, owner, workspace, task)
        disk = layout.assemble(
            installed.tree,
            recipe.size,
            derived,
            recipe.firmware,
            platform,
            owner,
            workspace,
            task,
        )
        workspace.need(GIB // 2)
        _provision(recipe, disk, directory, platform, chosen, workspace, task)
        seal.prove(disk, task)
        erased = seal.erase(disk, task)
        task.output(f"erased {erased / GIB:.2f} GiB of free space")
        task.phase("hashing the disk")
        return store.add(disk, check=task.check)


def _provision(
    recipe: Recipe,
    disk: Path,
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
    data = seed.for_build(pair, seal.SSHD_DROP_IN)
    small = seed.write(private / "seed.img", data, workspace.directory.name, task)
    code, variables = _firmware(recipe.firmware, platform, private)
    hardware = Hardware(
        drives=(Drive(disk), Drive(small, read_only=True)),
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
            steps.run_all(recipe, directory, shell, task)
            seal.clean(shell, machine, pair.user_public, task)
    except BootError as error:
        kept = workspace.store.scratch("console.log")
        shutil.copyfile(hardware.log, kept)
        error.hint = f"everything that the guest printed is in {kept}"
        raise


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
