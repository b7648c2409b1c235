"""From a disk to its inventory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

from publisher.model import Disk
from publisher.proof.inspect.btrfs import Btrfs
from publisher.proof.inspect.budget import READER_FAULTS, Budget, Damaged, Unreadable
from publisher.proof.inspect.ext import Ext
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.xfs import Xfs
from publisher.proof.inventory import alpine, debian, languages, rpm
from publisher.proof.inventory.component import Component, Inventory, System
from publisher.task import Task

_Manager: TypeAlias = tuple[
    str, Callable[[Tree, System], Iterator[Component]], Callable[[Tree], Iterator[str]]
]
_MANAGERS: tuple[_Manager, ...] = (
    ("dpkg", debian.components, debian.owned),
    ("rpm", rpm.components, rpm.owned),
    ("apk", alpine.components, alpine.owned),
)
PACKAGES_MOST = 100_000
"""All of Debian's for one architecture are fewer."""
_BROKEN = (Unreadable, *READER_FAULTS)
"""What a disk that is damaged, or made to be read wrong, raises."""


def collect(disk: Disk, task: Task) -> Inventory:
    """The packages in the root file system and what its fstab mounts. What can't be
    read is among the gaps: an inventory never fails, and never hides that it lacks
    something. Packages of Python and Node.js that came with one of the distribution's
    are not listed again.
    """
    task.phase("listing the packages")
    budget = Budget(check=task.check)
    storage = RawFile(disk.path, budget, disk.size)
    system, gaps, written = System(), list[str](), 0
    found: dict[str, Component] = {}
    try:
        inspection = Inspection(storage, budget)
        tree = inspection.tree()
        written = _written(inspection)
        system = _system(tree)
        owned: set[str] = set()
        for name, components, paths in _MANAGERS:
            try:
                for component in components(tree, system):
                    found[component.purl] = component
                    _refuse_more(found)
                owned.update(path for path in paths(tree) if languages.describes(path))
            except _BROKEN as error:
                gaps.append(f"packages of {name}: {error}")
        for component in languages.components(tree, frozenset(owned)):
            found.setdefault(component.purl, component)
            _refuse_more(found)
    except _BROKEN as error:
        gaps.append(str(error))
    finally:
        storage.close()
    listed = tuple(found[purl] for purl in sorted(found))
    counts = dict(sorted(Counter(component.kind for component in listed).items()))
    return Inventory(disk.sha256, disk.size, system, listed, tuple(gaps), written, counts)


def _refuse_more(found: Collection[str]) -> None:
    if len(found) > PACKAGES_MOST:
        raise Damaged(f"there are more than {PACKAGES_MOST}")


def _system(tree: Tree) -> System:
    """os-release(5)."""
    text = tree.text("/etc/os-release") or tree.text("/usr/lib/os-release")
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    values = {name: value.strip().strip("\"'") for name, value in fields.items()}
    return System(
        values.get("ID", ""),
        values.get("VERSION_ID", ""),
        values.get("PRETTY_NAME", ""),
        values.get("VERSION_CODENAME", ""),
    )


_LATEST = 253402300799
"""The last second that a document can name: the year 9999."""


def _written(inspection: Inspection) -> int:
    """When the root was last written, as ext's superblock says; those of XFS and Btrfs say
    nothing, so when the newest of the topmost directories was changed. 0 elsewhere."""
    files = inspection.root().files
    if isinstance(files, Ext):
        return files.written
    if not isinstance(files, Xfs | Btrfs):
        return 0
    top = files.root()
    found = [files.changed(top)]
    for number in files.names(top).values():
        with contextlib.suppress(Damaged):
            found.append(files.changed(files.node(number)))
    return max((0, *(time for time in found if time <= _LATEST)))
