"""Drivers that are there and may not be loaded: modprobe.d(5), and the kernel's arguments
module_blacklist= and modprobe.blacklist=.

`blacklist` keeps a module from being loaded for a device or a file system that asks for
it by an alias. Who names it loads it all the same, and so does a module that needs it;
`install NAME /bin/true` and module_blacklist= stop these, too.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.inspect.tree import Tree

_DIRECTORIES = tuple(f"{top}/modprobe.d" for top in ("/etc", "/usr/local/lib", "/usr/lib", "/lib"))
"""A file takes the place of those of the same name in directories behind its own."""
_NAMED = ("/etc/modules", "/etc/modules-load.d/*.conf", "/usr/lib/modules-load.d/*.conf")
_NAMED_EARLY = "/etc/initramfs-tools/modules"
_NOTHING = ("true", "false", ":")
"""What `install` runs in place of loading the module."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What keeps a driver from being loaded, and where it stands. `final`: also where
    somebody names the driver. `early` is None where it counts in the initramfs and
    after it, else whether it counts in the initramfs (True) or after it (False)."""

    text: str
    path: str
    line: int
    final: bool
    early: bool | None


def refusal(disk: Inspection, kernel: Kernel, module: str, *, early: bool) -> Refusal | None:
    """Why a driver is not loaded, in the initramfs (`early`) or after it; a file that
    the initramfs has no copy of counts there from its next build on, and is told last."""
    module = module.replace("-", "_")
    if kernel.driver(module) == "built in":
        return None
    named = module in _named(disk.tree(), early=early)
    found = [
        refused
        for name, refused in _refusals(disk, kernel)
        if name == module and (refused.final or not named)
    ]
    if not early:
        return next((refused for refused in found if refused.early is not True), None)
    found.sort(key=lambda refused: refused.early is False)
    return found[0] if found else None


def _refusals(disk: Inspection, kernel: Kernel) -> Iterator[tuple[str, Refusal]]:
    for entry in disk.boot().default:
        for key, final, early in (
            ("module_blacklist", True, None),
            ("modprobe.blacklist", False, None),
            ("rd.driver.blacklist", False, True),
        ):
            for value in entry.values(key):
                refused = Refusal(f"{key}={value}", entry.path, entry.line, final, early)
                for name in value.split(","):
                    yield name.replace("-", "_"), refused
    copied = {name.removeprefix("usr/") for name in kernel.initramfs_names()}
    for path in _files(disk.tree()):
        inside = path.lstrip("/").removeprefix("usr/") in copied
        early = None if inside or not kernel.initrds else False
        for number, line in disk.tree().lines(path):
            command, *words = line.split()
            if command == "blacklist" and words:
                yield words[0].replace("-", "_"), Refusal(line, path, number, False, early)
            elif command == "install" and len(words) > 1 and _does_nothing(line):
                yield words[0].replace("-", "_"), Refusal(line, path, number, True, early)


def _does_nothing(line: str) -> bool:
    try:
        program = shlex.split(line)[2]
    except (ValueError, IndexError):
        return False
    return program.rpartition("/")[2] in _NOTHING


def _files(tree: Tree) -> list[str]:
    found: dict[str, str] = {}
    for directory in _DIRECTORIES:
        for path in tree.glob(f"{directory}/*.conf"):
            found.setdefault(path.rpartition("/")[2], path)
    return list(found.values())


def _named(tree: Tree, *, early: bool) -> set[str]:
    """The modules that are loaded by their names."""
    patterns = (_NAMED_EARLY,) if early else _NAMED
    lines = (line for p in patterns for path in tree.glob(p) for _, line in tree.lines(path))
    return {line.split()[0].replace("-", "_") for line in lines}
