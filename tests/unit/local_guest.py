"""This computer in place of a guest: the commands that a Shell would send run in
a local shell, with directories of the test in place of /run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from publisher.events import Event
from publisher.memory import Memory
from publisher.recipe import BuildStep
from publisher.task import Task
from publisher.vm import process, script
from publisher.vm.shell import Shell

SWAP = "Filename Type Size\n"


class LocalGuest(Shell):
    """`commands` are the command lines that ran; `stat` says what /run is."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, stat: str) -> None:
        self.run_directory = directory / "run"
        self.run_directory.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        (self.bin / "stat").write_text(f"#!/bin/sh\necho {stat}\n")
        (self.bin / "stat").chmod(0o755)
        self.swaps = directory / "swaps"
        self.swaps.write_text(SWAP)
        monkeypatch.setattr(script, "RUN", str(self.run_directory))
        monkeypatch.setattr(script, "SWAPS", str(self.swaps))
        self.told: list[Event] = []
        self.commands: list[str] = []
        self.copied: list[tuple[str, dict[str, str], int | None, str]] = []
        self._local = Task("build", Memory(directory / "memory"), sink=self.told.append)

    @property
    def task(self) -> Task:
        return self._local

    def command(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        plain: bool = False,
        private: bool = False,
    ) -> process.Completed:
        self.commands.append(command)
        return process.run(
            ["sh", "-c", command],
            self.task,
            stdin=stdin,
            on_line=on_line,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
        )

    def copy(self, source: Path, to: str, *, mode: int | None, owner: str) -> None:
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        texts = {
            f.relative_to(source).as_posix(): f.read_text()
            for f in files
            if f.is_file() and not f.is_symlink()
        }
        self.copied.append((to, texts, mode, owner))

    def left(self) -> list[str]:
        """The names of what is still in /run."""
        return sorted(path.name for path in self.run_directory.iterdir())


def step(**given: Any) -> BuildStep:
    return BuildStep.model_validate(given)
