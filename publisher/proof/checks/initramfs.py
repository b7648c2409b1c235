"""Drivers: in the kernel, in the initramfs, or at least in the installation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from publisher.model import Severity
from publisher.proof.checks import blacklists
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import ERROR, WARNING, Check, Evidence, Rule

_DRACUT_HOST_ONLY = "hostonly-kernel-modules.txt"
_FILE_SYSTEMS = {"ext3": "ext4", "ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs"}
"""The driver of each kind of root file system."""
_LVM = frozenset(f"{directory}/lvm" for directory in ("sbin", "usr/sbin", "bin", "usr/bin"))


def kernels(disk: Inspection) -> tuple[Kernel, ...]:
    """Those that start by default. Raises Unreadable where none is known."""
    found = disk.kernels()
    if not found:
        raise Unreadable("no kernel to start was found")
    return found


def early(*modules: str) -> Check:
    """Drivers that are needed to find the root file system: built in, or in the
    initramfs with all that they need."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for kernel in kernels(disk):
            for module in modules:
                lacking = kernel.lacking(module)
                if lacking:
                    yield _missing(kernel, module, lacking)
                else:
                    yield from _refused(disk, kernel, module)

    return check


def present(*modules: str, key: str = "", severity: Severity | None = None) -> Check:
    """Drivers that the installation must have, in the initramfs or not. `key` of a
    pipeline that claims them."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for kernel in kernels(disk):
            for module in modules:
                if kernel.driver(module) == "absent":
                    yield Evidence(
                        f"kernel {kernel.version} has no driver {module}",
                        kernel.directory,
                        severity=severity,
                        key=key,
                    )
                    continue
                refused = blacklists.refusal(disk, kernel, module, early=False)
                if refused is not None:
                    text = f"the driver {module} is not loaded: {refused.text}"
                    yield Evidence(text, refused.path, refused.line, severity, key)

    return check


def _refused(disk: Inspection, kernel: Kernel, module: str) -> Iterator[Evidence]:
    refused = blacklists.refusal(disk, kernel, module, early=True)
    if refused is None:
        return
    if refused.early is False:
        text = f"an initramfs that is built anew does not load the driver {module}: {refused.text}"
        yield Evidence(text, refused.path, refused.line, WARNING)
        return
    text = f"the initramfs does not load the driver {module}: {refused.text}"
    yield Evidence(text, refused.path, refused.line)


def _missing(kernel: Kernel, module: str, lacking: list[str]) -> Evidence:
    place = kernel.driver(module)
    if place == "absent":
        return Evidence(f"kernel {kernel.version} has no driver {module}", kernel.directory)
    where = ", ".join(kernel.initrds) or "no initramfs"
    needed = "" if lacking == [module] else f" (what is missing: {', '.join(lacking)})"
    return Evidence(
        f"the driver {module} of kernel {kernel.version} is a module and not in its "
        f"initramfs{needed}",
        where if kernel.initrds else kernel.image,
    )


def _root(disk: Inspection) -> Iterator[Evidence]:
    root = disk.root()
    wanted = [_FILE_SYSTEMS[root.kind]] if root.kind in _FILE_SYSTEMS else []
    yield from early(*wanted, *(["dm_mod"] if root.name else []))(disk)
    for kernel in kernels(disk) if root.name else ():
        if not kernel.initramfs_names() & _LVM:
            yield Evidence(
                f"{root.where} is the root, and the initramfs of kernel {kernel.version} has no "
                "lvm to find it",
                ", ".join(kernel.initrds) or kernel.image,
            )


def _host_only(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for kernel in kernels(disk):
        for name in kernel.initramfs_names():
            if name.endswith(_DRACUT_HOST_ONLY):
                yield Evidence(
                    "dracut made the initramfs for one machine (hostonly)",
                    ", ".join(kernel.initrds),
                )
                break
    value, path, line_ = _dracut(tree, "hostonly")
    if value == "yes":
        yield Evidence("dracut is told to build for one machine (hostonly)", path, line_)
    modules: tuple[str, str, int] = ("", "", 0)
    places = ("/etc/initramfs-tools/initramfs.conf", *tree.glob("/etc/initramfs-tools/conf.d/*"))
    for path in places:
        for number, line in tree.lines(path):
            key, _, value = line.partition("=")
            if key.strip() == "MODULES":
                modules = (value.strip(" \"'"), path, number)
    if modules[0] in ("dep", "list", "netboot"):
        yield Evidence(f"initramfs-tools is told MODULES={modules[0]}", modules[1], modules[2])


def _dracut(tree: Tree, key: str) -> tuple[str, str, int]:
    """The value of dracut's setting that counts, the last one, its file and line:
    dracut.conf(5). Its files are shell scripts."""
    named: dict[str, str] = {}
    for directory in ("/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d"):
        named.update((p.rpartition("/")[2], p) for p in tree.glob(f"{directory}/*.conf"))
    found = ("", "", 0)
    for path in ("/etc/dracut.conf", *(named[name] for name in sorted(named))):
        for number, line in tree.lines(path):
            for word in _shell_words(line):
                name, equals, value = word.partition("=")
                if equals and name == key:
                    found = (value, path, number)
    return found


def _shell_words(line: str) -> list[str]:
    try:
        return shlex.split(line.replace(";", " "), comments=True)
    except ValueError:
        return []


RULES = (
    Rule(
        "initramfs.root",
        ERROR,
        "The initramfs can mount the root file system",
        "The kernel stops in the initramfs' emergency shell, or with a panic, where the driver of "
        "the root's file system is in neither; a logical volume needs lvm there, too.",
        "https://man7.org/linux/man-pages/man7/dracut.modules.7.html",
        "install lvm2 where the root is on LVM, and rebuild the initramfs (dracut: add_drivers and "
        'add_dracutmodules+=" lvm ", then --regenerate-all)',
        _root,
    ),
    Rule(
        "initramfs.generic",
        WARNING,
        "The initramfs is for any machine",
        "An initramfs made for the machine of the build lacks the drivers of other machine "
        "types, and the next kernel update makes such a one again.",
        "https://man7.org/linux/man-pages/man5/dracut.conf.5.html",
        'set hostonly="no" in /etc/dracut.conf.d/, or MODULES=most in '
        "/etc/initramfs-tools/conf.d/, and rebuild the initramfs",
        _host_only,
    ),
)
