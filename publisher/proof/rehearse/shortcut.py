"""The kernel of the first boot, started by QEMU itself: a second boot as another
instance has nothing to prove about firmware and boot loader, which take a fifth of
its time under emulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from publisher.errors import PublishError
from publisher.model import Disk
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree
from publisher.proof.rehearse.observe import Facts
from publisher.task import Task

_BY_LOADER = ("BOOT_IMAGE=", "initrd=")
"""What boot loaders add to the command line of the kernel."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    kernel: Path
    initrd: Path | None
    command_line: str


def find(disk: Disk, facts: Facts, directory: Path, task: Task) -> Shortcut | None:
    """Copies of the kernel and initrd that `facts` tell of, in `directory`; None where
    the disk does not give them plainly, so that it has to boot in full."""
    if disk.format != "raw" or not facts.cmdline:
        return None
    budget = Budget(seconds=20, check=task.check)
    storage = RawFile(disk.path, budget)
    try:
        inspection = Inspection(storage, budget)
        for kernel in inspection.kernels():
            if kernel.version == facts.kernel and not kernel.image.lower().endswith(".efi"):
                tree = inspection.tree()
                image = _copy(tree, (kernel.image,), directory / "kernel")
                initrds = kernel.initrds
                initrd = _copy(tree, initrds, directory / "initrd") if initrds else None
                words = (w for w in facts.cmdline.split() if not w.startswith(_BY_LOADER))
                return Shortcut(image, initrd, " ".join(words))
    except PublishError:
        task.check()
    finally:
        storage.close()
    return None


def _copy(tree: Tree, sources: tuple[str, ...], into: Path) -> Path:
    """Files one after the other, as an initramfs may be in several."""
    with into.open("wb") as file:
        for source in sources:
            file.writelines(tree.stream(source))
    return into
