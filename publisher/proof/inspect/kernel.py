"""A kernel of the installation: its configuration, and where its drivers are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

from publisher.proof.inspect import initramfs
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.once import once
from publisher.proof.inspect.tree import Tree

DriverPlace: TypeAlias = Literal["built in", "initramfs", "module", "absent"]

_MODULES_MOST = 50_000
_NUMBER = re.compile(r"(\d+)\.(\d+)")


class Kernel:
    """`version` is what uname -r says; `initrds` are paths, whose bytes `open_initrd`
    gives."""

    def __init__(
        self,
        tree: Tree,
        budget: Budget,
        version: str,
        image: str,
        initrds: tuple[str, ...],
        open_initrd: Callable[[str], Iterable[bytes]] | None = None,
    ) -> None:
        self._tree = tree
        self._budget = budget
        self.version = version
        self.image = image
        self.initrds = initrds
        self._open_initrd = open_initrd or tree.stream
        self.directory = f"/lib/modules/{version}"

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor number of the kernel, (0, 0) if not known."""
        found = _NUMBER.match(self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @once
    def config_path(self) -> str:
        """The file with the build configuration, "" if there is none."""
        places = (f"/boot/config-{self.version}", f"{self.directory}/config")
        return next((path for path in places if self._tree.is_file(path)), "")

    @once
    def config(self) -> Mapping[str, tuple[str, int]]:
        """CONFIG_NAME ▶ (value, line)."""
        found: dict[str, tuple[str, int]] = {}
        if self.config_path():
            for number, line in self._tree.lines(self.config_path()):
                key, equals, value = line.partition("=")
                if equals:
                    self._budget.keep(key, value)
                    found[key] = (value.strip('"'), number)
        return found

    @once
    def _builtin(self) -> frozenset[str]:
        found: set[str] = set()
        for _, line in self._tree.lines(f"{self.directory}/modules.builtin"):
            if module := _name(line):
                self._budget.keep(module)
                found.add(module)
        return frozenset(found)

    @once
    def _modules(self) -> Mapping[str, tuple[str, ...]]:
        """Module ▶ those that it needs."""
        found: dict[str, tuple[str, ...]] = {}
        for _, line in self._tree.lines(f"{self.directory}/modules.dep"):
            path, colon, needed = line.partition(":")
            if len(found) > _MODULES_MOST:
                raise Damaged(f"{self.directory} tells of more than {_MODULES_MOST} drivers")
            if colon and (module := _name(path)):
                found[module] = tuple(_name(word) for word in needed.split())
                self._budget.keep(module, *found[module])
        return found

    @once
    def initramfs_names(self) -> frozenset[str]:
        """The paths inside the initramfs. Raises Unreadable."""
        found: set[str] = set()
        for path in self.initrds:
            try:
                for name in initramfs.names(self._open_initrd(path), self._budget):
                    self._budget.keep(name)
                    found.add(name)
            except Unreadable as error:
                raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
        return frozenset(found)

    @once
    def _initramfs(self) -> frozenset[str]:
        directory = f"lib/modules/{self.version}/"
        return frozenset(
            module
            for path in self.initramfs_names()
            if path.removeprefix("usr/").startswith(directory) and (module := _name(path))
        )

    @property
    def known(self) -> bool:
        """Whether there is anything to tell of which drivers it has."""
        return bool(self._builtin() or self._modules())

    def driver(self, module: str) -> DriverPlace:
        """Where a driver is found first when the machine starts.

        Raises Unreadable where nothing says which drivers there are."""
        module = module.replace("-", "_")
        if not self.known:
            raise Unreadable(f"{self.directory} tells of no drivers")
        if module in self._builtin():
            return "built in"
        if self.initrds and module in self._initramfs():
            return "initramfs"
        return "module" if module in self._modules() else "absent"

    @once
    def lacking(self, module: str) -> list[str]:
        """What the driver needs in the initramfs and is not there."""
        module = module.replace("-", "_")
        found, todo = {module: self.driver(module)}, [module]
        for needed in todo:
            for below in self._modules().get(needed, ()):
                self._budget.charge()
                if below not in found:
                    found[below] = self.driver(below)
                    todo.append(below)
        return [needed for needed, place in found.items() if place in ("module", "absent")]


def _name(path: str) -> str:
    """The module in a file, as lsmod names it; "" for another file."""
    name = path.strip().rpartition("/")[2]
    for packed in (".gz", ".xz", ".zst"):
        name = name.removesuffix(packed)
    return name.removesuffix(".ko").replace("-", "_") if name.endswith(".ko") else ""
