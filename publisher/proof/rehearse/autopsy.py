"""The files of a guest that failed, read from its overlay while it is off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from publisher.errors import PublishError
from publisher.proof.checks.boot import bios_fault, uefi_fault, unsigned
from publisher.proof.guest import BootMode
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.rehearse.evidence import Files
from publisher.task import Task
from publisher.vm import process


class Nothing:
    """Files that can't be read: every answer is empty."""

    def text(self, path: str) -> str:  # noqa: ARG002
        return ""

    def exists(self, path: str) -> bool:  # noqa: ARG002
        return False

    def glob(self, pattern: str) -> list[str]:  # noqa: ARG002
        return []

    def link(self, path: str) -> str:  # noqa: ARG002
        return ""

    def arch(self) -> str:
        return ""

    def boot_fault(self, boot: BootMode) -> str:  # noqa: ARG002
        return ""

    def driver(self, module: str) -> str:  # noqa: ARG002
        return ""


class _Lenient:
    """A disk on which what can't be read counts as not there."""

    def __init__(self, disk: Inspection) -> None:
        self._disk = disk

    def text(self, path: str) -> str:
        with contextlib.suppress(PublishError):
            return self._disk.tree().text(path)
        return ""

    def exists(self, path: str) -> bool:
        with contextlib.suppress(PublishError):
            return self._disk.tree().exists(path)
        return False

    def glob(self, pattern: str) -> list[str]:
        with contextlib.suppress(PublishError):
            return self._disk.tree().glob(pattern)
        return []

    def link(self, path: str) -> str:
        with contextlib.suppress(PublishError):
            return self._disk.tree().link(path)
        return ""

    def arch(self) -> str:
        with contextlib.suppress(PublishError):
            return self._disk.arch() or ""
        return ""

    def boot_fault(self, boot: BootMode) -> str:
        with contextlib.suppress(PublishError):
            fault = (bios_fault if boot == "bios" else uefi_fault)(self._disk)
            if fault is None and boot == "uefi-secure":
                fault = next(unsigned(self._disk), None)
            return fault.text if fault else ""
        return ""

    def driver(self, module: str) -> str:
        with contextlib.suppress(PublishError):
            for kernel in self._disk.kernels():
                return kernel.driver(module)
        return ""


@contextlib.contextmanager
def files(image: Path, scratch: Path, task: Task) -> Iterator[Files]:
    """The guest's files in an overlay, copied out as a sparse raw disk meanwhile."""
    flat = scratch / "autopsy.raw"
    task.phase("looking for the cause")
    try:
        argv = ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(image), str(flat)]
        if process.run(argv, task).status:
            yield Nothing()
            return
        budget = Budget(seconds=30, check=task.check)
        with RawFile(flat, budget) as disk:
            yield _Lenient(Inspection(disk, budget))
    finally:
        flat.unlink(missing_ok=True)
