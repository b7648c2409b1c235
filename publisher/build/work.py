"""The disk that the steps get, and what can be seen of it from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from publisher.build import grow
from publisher.model import Noun
from publisher.task import Task
from publisher.vm import process

_BANNER = re.compile(r"debugfs \d+\.\d+")
AUTHORIZED = "/root/.ssh/authorized_keys"


@dataclass(frozen=True, slots=True)
class Work(Noun):
    """`systems` are the offsets of the ext file systems that can be read from
    outside, `root` is the one of them that holds the system, if any does.
    `keys` says that root has SSH keys of the source's making.

    `traces` are what is kept of the secrets that went into it (secrets.Tracer).

    `known` is the directory with the keys that the system knows already, and
    `door` the user whom it lets in with them; empty where cloud-init learns ours."""

    disk: Path
    foreign: bool
    systems: tuple[int, ...]
    root: int | None
    keys: bool = False
    known: str = ""
    door: str = ""
    traces: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            Path(data["disk"]),
            data["foreign"],
            tuple(data["systems"]),
            data["root"],
            data["keys"],
            data.get("known", ""),
            data.get("door", ""),
            tuple(data.get("traces", ())),
        )


def look(disk: Path, task: Task) -> Work:
    """What a disk of somebody else's making holds."""
    found = (extent.offset for extent in grow.ext_partitions(disk))
    systems = tuple(s for s in found if holds(disk, s, "/", task))
    root = next((s for s in systems if holds(disk, s, "/usr/lib/os-release", task)), None)
    return Work(disk, True, systems, root)


def holds(disk: Path, system: int, path: str, task: Task) -> bool:
    """Whether there is such a file in the ext file system at the offset `system`."""
    return "Inode:" in _debugfs(disk, system, f"stat {path}", task)


def read(disk: Path, system: int, path: str, task: Task) -> str:
    """The lines of a text file that is there."""
    said = _debugfs(disk, system, f"cat {path}", task)
    return "\n".join(line for line in said.splitlines() if not _BANNER.match(line))


def _debugfs(disk: Path, system: int, request: str, task: Task) -> str:
    argv = ["debugfs", "-R", request, f"{disk}?offset={system}"]
    return process.run(argv, task, env={**os.environ, "LC_ALL": "C"}).text
