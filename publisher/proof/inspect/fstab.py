"""/etc/fstab (fstab(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.proof.inspect.tree import Tree

PATH = "/etc/fstab"
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
    for number, text in tree.lines(PATH):
        fields = [_OCTAL.sub(lambda f: chr(int(f[1], 8) & 0xFF), f) for f in text.split()]
        if len(fields) >= 3:
            options = fields[3].split(",") if len(fields) > 3 else []
            yield Mount(number, fields[0], fields[1], fields[2], tuple(options))
