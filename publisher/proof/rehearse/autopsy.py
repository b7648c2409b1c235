"""The files of a guest that failed, read from its overlay while it is off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from publisher.errors import PublishError
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree
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


class _Lenient:
    """A tree in which what can't be read counts as not there."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def text(self, path: str) -> str:
        with contextlib.suppress(PublishError):
            return self._tree.text(path)
        return ""

    def exists(self, path: str) -> bool:
        with contextlib.suppress(PublishError):
            return self._tree.exists(path)
        return False

    def glob(self, pattern: str) -> list[str]:
        with contextlib.suppress(PublishError):
            return self._tree.glob(pattern)
        return []

    def link(self, path: str) -> str:
        with contextlib.suppress(PublishError):
            return self._tree.link(path)
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
            yield _open(disk, budget)
    finally:
        flat.unlink(missing_ok=True)


def _open(disk: RawFile, budget: Budget) -> Files:
    try:
        return _Lenient(Inspection(disk, budget).tree())
    except PublishError:
        return Nothing()
