"""What a failure is explained from, and what an explanation is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from publisher.proof.guest import BootMode
from publisher.proof.rehearse.boot import Seen


class Files(Protocol):
    """The guest's files, read from its disk while it is off."""

    def text(self, path: str) -> str:
        """A file's text; empty where there is none."""

    def exists(self, path: str) -> bool: ...

    def glob(self, pattern: str) -> list[str]: ...

    def link(self, path: str) -> str:
        """Where the link at a path points; empty where it is none."""

    def arch(self) -> str:
        """For which processor the installation is; empty if unknown."""

    def boot_fault(self, boot: BootMode) -> str:
        """Why a firmware of that kind can't start the disk; empty where it can, and
        where that can't be told."""

    def driver(self, module: str) -> str:
        """Where the kernel finds a driver when it starts: "built in", "initramfs",
        "module" or "absent"; empty if unknown."""


@dataclass(frozen=True, slots=True)
class Cause:
    """`cause` names what is wrong and where, `fix` what to do about it."""

    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """`claim` is the line of the verdict that failed."""

    claim: str
    seen: Seen
    files: Files


Rule: TypeAlias = Callable[[Evidence], Cause | None]


def lines_of(files: Files, paths: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """(path, line number, line) of what is not a comment."""
    for path in paths:
        for number, line in enumerate(files.text(path).splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield path, number, line.strip()


def cloud_configs(files: Files) -> list[str]:
    """cloud-init's configuration in the order in which later files win."""
    return ["/etc/cloud/cloud.cfg", *sorted(files.glob("/etc/cloud/cloud.cfg.d/*.cfg"))]


def said(pattern: str, cause: str, fix: str | Callable[[Files], str]) -> Rule:
    """A cause known by a line of the console; {0} … are the pattern's groups."""

    def rule(at: Evidence) -> Cause | None:
        match = re.search(pattern, at.seen.printed, re.MULTILINE)
        if match is None:
            return None
        text = fix if isinstance(fix, str) else fix(at.files)
        return Cause(cause.format(*match.groups()), text)

    return rule
