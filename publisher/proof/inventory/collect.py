"""From a disk to its inventory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
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
from publisher.proof.inventory.languages import Unread
from publisher.task import Task

_Manager: TypeAlias = tuple[
    str, Callable[[Tree, System], Iterator[Component]], Callable[[Tree], Iterator[str]]
]
_MANAGERS: tuple[_Manager, ...] = (
    ("dpkg", debian.components, debian.owned),
    ("rpm", rpm.components, rpm.owned),
    ("apk", alpine.components, alpine.owned),
)
_USES: Mapping[str, str] = {
    **dict.fromkeys(("debian", "ubuntu"), "dpkg"),
    **dict.fromkeys(("fedora", "rhel", "centos", "suse", "opensuse", "sles", "amzn"), "rpm"),
    **dict.fromkeys(("mariner", "azurelinux", "photon", "openEuler", "mageia"), "rpm"),
    **dict.fromkeys(("alpine", "wolfi", "chainguard"), "apk"),
}
"""Which manager a distribution has, by ID or ID_LIKE in its os-release."""
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
    found = _Found()
    try:
        inspection = Inspection(storage, budget)
        tree = inspection.tree()
        written = _written(inspection)
        system = _system(tree)
        owned: set[str] = set()
        seen: set[str] = set()
        for name, components, paths in _MANAGERS:
            try:
                for component in components(tree, system):
                    found.add(component)
                    seen.add(name)
                owned.update(path for path in paths(tree) if languages.describes(path))
            except _BROKEN as error:
                gaps.append(f"packages of {name}: {error}")
                seen.add(name)
        gaps += _missing(system, seen)
        unread = Unread()
        for component in languages.components(tree, frozenset(owned), unread):
            found.add(component)
        gaps += unread.told()
    except _BROKEN as error:
        gaps.append(str(error))
    finally:
        storage.close()
    listed = found.listed()
    counts = dict(sorted(Counter(component.kind for component in listed).items()))
    return Inventory(disk.sha256, disk.size, system, listed, tuple(gaps), written, counts)


class _Found:
    """Components by package URL, each with all places where it is described."""

    def __init__(self) -> None:
        self._known: dict[str, Component] = {}
        self._paths: dict[str, dict[str, None]] = {}
        self._places = 0

    def add(self, component: Component) -> None:
        """Raises Damaged where there are too many."""
        self._places += 1
        if self._places > PACKAGES_MOST:
            raise Damaged(f"there are more than {PACKAGES_MOST}")
        self._known.setdefault(component.purl, component)
        paths = self._paths.setdefault(component.purl, {})
        paths.update(dict.fromkeys(component.paths))

    def listed(self) -> tuple[Component, ...]:
        """Sorted by package URL."""
        return tuple(
            replace(self._known[purl], paths=tuple(self._paths[purl]))
            for purl in sorted(self._known)
        )


def _missing(system: System, seen: Collection[str]) -> Iterator[str]:
    """The package managers that must have a database here, and have none. `seen` are
    those that listed something, or whose gap is told already."""
    likely = (system.id, *system.like.split())
    wanted = next((_USES[name] for name in likely if name in _USES), "")
    if wanted and wanted not in seen:
        yield f"packages of {wanted}: {system.id} keeps a list of them, and it is not there"
    elif not seen:
        yield "there is no list of packages of dpkg, rpm or apk"


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
        values.get("ID_LIKE", ""),
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
