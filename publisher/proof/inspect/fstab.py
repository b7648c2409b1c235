"""/etc/fstab (fstab(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.proof.inspect.budget import Damaged
from publisher.proof.inspect.tree import Tree

PATH = "/etc/fstab"
_LINES_MOST = 10_000
_MOUNTS_MOST = 1_000
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line."""

    line: int
    device: str
    directory: str
    kind: str
    options: tuple[str, ...]


def read_fstab(tree: Tree) -> Iterator[Mount]:
    """Raises Damaged for more than anyone mounts."""
    mounts = 0
    for count, (number, text) in enumerate(tree.lines(PATH)):
        if count >= _LINES_MOST:
            raise Damaged(f"{PATH} has more than {_LINES_MOST} lines")
        mount = read_line(number, text)
        if mount is not None:
            mounts += 1
            if mounts > _MOUNTS_MOST:
                raise Damaged(f"{PATH} mounts more than {_MOUNTS_MOST} file systems")
            yield mount


def read_line(number: int, text: str) -> Mount | None:
    """What a line that is no comment mounts; None where it is too short to tell."""
    fields = [_OCTAL.sub(lambda f: chr(int(f[1], 8) & 0xFF), f) for f in text.split()]
    if len(fields) < 3:
        return None
    options = fields[3].split(",") if len(fields) > 3 else []
    return Mount(number, fields[0], fields[1], fields[2], tuple(options))
