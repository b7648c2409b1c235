"""Everything that a disk tells without being booted: what the rules ask."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from publisher.model import Arch
from publisher.proof.inspect import entries as boot_entries
from publisher.proof.inspect import subvolumes
from publisher.proof.inspect.btrfs import Btrfs
from publisher.proof.inspect.budget import Budget, Damaged, Unreadable
from publisher.proof.inspect.device_names import named
from publisher.proof.inspect.filesystem import FileSystem
from publisher.proof.inspect.fstab import Mount, read_fstab
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.inspect.once import once
from publisher.proof.inspect.partitions import ESP, MBR_ESP, XBOOTLDR, Table, read_table
from publisher.proof.inspect.pe import Program, program, sections
from publisher.proof.inspect.storage import Storage
from publisher.proof.inspect.subvolumes import Shown
from publisher.proof.inspect.tree import Mounted, Tree
from publisher.proof.inspect.volume import Volume, open_logical, open_volume

REMOVABLE: Mapping[Arch, str] = {"x86_64": "BOOTX64.EFI", "aarch64": "BOOTAA64.EFI"}
"""The loader that a machine without boot variables starts (UEFI 2.10, 3.5.1.1)."""
ESP_PATH = "/boot/efi"
_MACHINES: dict[int, Arch] = {62: "x86_64", 183: "aarch64"}
_TITLES_MOST = 20

Device: TypeAlias = "Volume | None"
_Shows: TypeAlias = "tuple[str, Volume, FileSystem | None, str]"
"""Directory, volume, what that shows there, or why it can't be read."""


@dataclass(frozen=True, slots=True)
class Loader:
    """What a firmware would start. `path` is as if the ESP was mounted."""

    path: str
    program: Program


class Inspection:
    """One disk. Every question is answered when it is asked and remembered; what
    can't be answered raises Unreadable or one of its kinds."""

    def __init__(self, disk: Storage, budget: Budget) -> None:
        self.disk = disk
        self.budget = budget

    # -- the disk

    @once
    def table(self) -> Table:
        return read_table(self.disk)

    @once
    def volumes(self) -> tuple[Volume, ...]:
        """One for each partition, and for each logical volume on them; the whole disk
        where it has no table. Raises Damaged where the table can't be read."""
        table = self.table()
        if table.problems and not table.partitions:
            raise Damaged(table.problems[0])
        if table.scheme == "none":
            whole = open_volume(self.disk, None, self.budget)
            own = [whole] if whole.kind else []
        else:
            own = [open_volume(self.disk, part, self.budget) for part in table.partitions]
        return (*own, *open_logical(self.disk, own, self.budget))

    def device(self, name: str) -> Device:
        """The volume that a device's name means: see `named`."""
        return named(name, self.volumes())

    # -- the installation

    def root(self) -> Volume:
        """The volume with the root directory. Raises Unreadable where it may be one
        that has no reader here, and Damaged where there is none."""
        return self._root()[0]

    def root_files(self) -> FileSystem:
        """The file system with the root directory: of a Btrfs, one subvolume."""
        return self._root()[1]

    @once
    def _root(self) -> tuple[Volume, FileSystem]:
        for volume in self.volumes():
            if volume.files is not None and volume.kind != "vfat":
                try:
                    found = [f for f in subvolumes.candidates(volume.files) if self.is_root(f)]
                except Damaged as error:
                    raise Damaged(f"{volume.title} is damaged: {error.message}") from error
                if len(found) > 1:
                    flags = functools.partial(self._root_flags, volume)
                    return volume, subvolumes.booted(found, self._own_options, flags)
                if found:
                    return volume, found[0]
        faults = [v for v in self.volumes() if v.fault is not None and v.kind != "swap"]
        for volume in faults:
            assert volume.fault is not None
            raise type(volume.fault)(
                f"{volume.title}, where the root directory may be, can't be read: "
                f"{volume.fault.message}"
            )
        titles = [volume.title for volume in self.volumes()]
        more = [f"and {len(titles) - _TITLES_MOST} more"] if len(titles) > _TITLES_MOST else []
        seen = ", ".join(titles[:_TITLES_MOST] + more) or "nothing known"
        raise Damaged(f"no file system holds a root directory; the disk has {seen}")

    def is_root(self, files: FileSystem) -> bool:
        """Whether it holds an installation."""
        tree = Tree(files, self.budget)
        return any(map(tree.exists, ("/etc/os-release", "/usr/lib/os-release"))) or (
            tree.exists("/etc/fstab") and tree.exists("/usr")
        )

    def _own_options(self, files: FileSystem) -> tuple[str, ...]:
        """Those with which the fstab of a root directory mounts it."""
        fstab = read_fstab(Tree(files, self.budget))
        return next((mount.options for mount in fstab if mount.directory == "/"), ())

    def _root_flags(self, volume: Volume, files: FileSystem) -> tuple[str, ...]:
        """Those with which the boot loader lets the kernel mount the root directory."""
        for entry in self._read_boot(self._mounted(volume, files)).default:
            if entry.values("rootflags"):
                return entry.root_flags
        return ()

    @once
    def tree(self) -> Tree:
        """The root directory with what its fstab mounts on it."""
        return self._mounted(*self._root())

    def _mounted(self, root: Volume, files: FileSystem) -> Tree:
        tree = Tree(files, self.budget)
        taken: dict[str, Volume] = {}
        for directory, volume, shown, fault in self._mounts(root, files):
            tree.mount(directory, Mounted(shown, fault))
            taken[directory] = volume
        for directory, found in self._by_type():
            free = directory not in taken and found not in taken.values()
            if free and (directory == ESP_PATH or not tree.names(directory)):
                tree.mount(directory, Mounted(found.files))
        return tree

    def _by_type(self) -> Iterator[tuple[str, Volume]]:
        """What systemd mounts by the type of its partition where fstab is silent
        (systemd-gpt-auto-generator(8)), and boot loaders read anyway."""
        extended = (v for v in self.volumes() if v.partition and v.partition.kind == XBOOTLDR)
        for directory, volume in (("/boot", next(extended, None)), (ESP_PATH, self.esp_volume())):
            if volume is not None and volume.files is not None:
                yield directory, volume

    @once
    def _own_mounts(self) -> tuple[_Shows, ...]:
        return tuple(self._mounts(*self._root()))

    def _mounts(self, root: Volume, files: FileSystem) -> Iterator[_Shows]:
        """What the fstab of a root directory mounts."""
        mounts = self._fstab(Tree(files, self.budget))
        for mount in sorted(mounts, key=lambda m: m.directory.count("/")):
            directory = mount.directory.rstrip("/")
            if not directory.startswith("/") or mount.kind in ("swap", "tmpfs", "proc"):
                continue
            try:
                volume = self.device(mount.device)
            except Unreadable:
                continue
            if volume is None or (volume is root and not isinstance(files, Btrfs)):
                continue
            if volume.files is None:
                fault = volume.fault.message if volume.fault else "it holds no file system"
                yield directory, volume, None, fault
                continue
            try:
                shown = subvolumes.mounted(volume.files, mount.options)
                fault = f"there is no {subvolumes.asked(mount.options)}"
            except Damaged as error:
                shown, fault = None, error.message
            yield directory, volume, shown, "" if shown else fault

    @once
    def shown(self, volume: Volume) -> tuple[Shown, ...]:
        """What of a volume the installation mounts, the root directory first."""
        views = [("", self.root_files())] if volume is self.root() else []
        views += [
            (at, files) for at, own, files, _ in self._own_mounts() if own is volume and files
        ]
        paths = volume.files.subvolumes() if isinstance(volume.files, Btrfs) else {}
        return tuple(
            Shown(paths[files.ident] if isinstance(files, Btrfs) else "", directory, files)
            for directory, files in views
            if not isinstance(files, Btrfs) or files.ident in paths
        )

    def _fstab(self, tree: Tree) -> list[Mount]:
        return list(read_fstab(tree))

    @once
    def fstab(self) -> tuple[Mount, ...]:
        return tuple(self._fstab(self.tree()))

    @once
    def esp_path(self) -> str:
        """Where the EFI system partition is mounted."""
        esp = self.esp_volume()
        for mount in self.fstab():
            try:
                if esp is not None and self.device(mount.device) is esp:
                    return mount.directory.rstrip("/")
            except Unreadable:
                continue
        return ESP_PATH

    # -- the firmware's view

    @once
    def esp_volume(self) -> Volume | None:
        kinds = (ESP, MBR_ESP)
        return next(
            (v for v in self.volumes() if v.partition is not None and v.partition.kind in kinds),
            None,
        )

    @once
    def esp(self) -> Tree | None:
        """The EFI system partition; None without one. Raises Unreadable for one that
        can't be read."""
        volume = self.esp_volume()
        if volume is None:
            return None
        if volume.files is None:
            fault = volume.fault.message if volume.fault else "it holds no file system"
            raise Damaged(f"the EFI system partition can't be read: {fault}")
        return Tree(volume.files, self.budget)

    @once
    def loader(self) -> Loader | None:
        """What a UEFI firmware starts that knows nothing of this disk."""
        esp = self.esp()
        if esp is None:
            return None
        for name in REMOVABLE.values():
            found = program(esp, f"/EFI/BOOT/{name}")
            if found is not None and found.arch is not None:
                return Loader(f"{ESP_PATH}/EFI/BOOT/{name}", found)
        return None

    @once
    def arch(self) -> Arch | None:
        """For which processor the installation is, None if unknown."""
        for path in ("/bin/sh", "/usr/bin/env", "/sbin/init", "/usr/lib/systemd/systemd"):
            head = self.tree().read(path, 20)
            if head[:4] == b"\x7fELF":
                return _MACHINES.get(int.from_bytes(head[18:20], "little"))
        loader = self.loader()
        return loader.program.arch if loader else None

    # -- boot loaders and kernels

    @once
    def boot(self) -> boot_entries.Boot:
        return self._read_boot(self.tree())

    def _read_boot(self, tree: Tree) -> boot_entries.Boot:
        try:
            esp = self.esp()
        except Unreadable:
            esp = None
        return boot_entries.read_boot(tree, esp, self.budget, ESP_PATH)

    def boot_file(self, path: str) -> str:
        """The path in the tree of a file that a boot loader names by its own root;
        "" where there is none."""
        places = [path, f"/boot{path}", f"{self.esp_path()}{path}", f"/efi{path}"]
        # GRUB sees all subvolumes below the top-level one
        places += [
            subvolume.directory + path.removeprefix(subvolume.path)
            for subvolume in self.shown(self.root())
            if path.startswith(f"{subvolume.path}/")
        ]
        return next((place for place in places if self.tree().is_file(place)), "")

    @once
    def kernels(self) -> tuple[Kernel, ...]:
        """Those that start if nobody chooses; without boot entries, all of them."""
        found: dict[str, Kernel] = {}
        for entry in self.boot().default:
            kernel = self.kernel_of(entry)
            if kernel is not None:
                found.setdefault(kernel.version, kernel)
        if not found:
            for version in self.tree().names("/lib/modules"):
                if self.tree().is_file(f"/boot/vmlinuz-{version}"):
                    found[version] = self._kernel(version, f"/boot/vmlinuz-{version}", ())
        return tuple(found.values())

    def kernel_of(self, entry: boot_entries.Entry) -> Kernel | None:
        """The kernel of a boot entry; None where its file is missing."""
        tree = self.tree()
        if entry.kernel.lower().endswith(".efi"):
            return self._unified(entry)
        path = self.boot_file(entry.kernel)
        if not path:
            return None
        place = tree.find(path)
        name = (place.path if place else path).rpartition("/")[2]
        known = tree.names("/lib/modules")
        version = next((v for v in known if name.endswith(v)), "")
        if not version and entry.version in known:
            version = entry.version
        version = version or name.partition("-")[2] or _banner(tree.read(path, 64 * 1024))
        initrds = tuple(found for i in entry.initrds if (found := self.boot_file(i)))
        return self._kernel(version, path, initrds)

    def _unified(self, entry: boot_entries.Entry) -> Kernel | None:
        """The kernel of a unified image, whose initramfs is one of its sections."""
        esp = self.esp()
        if not entry.version or esp is None:
            return None
        held = sections(esp, entry.kernel)
        if ".initrd" not in held:
            return self._kernel(entry.version, entry.path, ())
        initrd = held[".initrd"]

        def pieces(_: str) -> Iterator[bytes]:
            left = initrd.length
            for piece in esp.stream(entry.kernel, initrd.offset):
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return

        return Kernel(self.tree(), self.budget, entry.version, entry.path, (entry.path,), pieces)

    def _kernel(self, version: str, image: str, initrds: tuple[str, ...]) -> Kernel:
        tree = self.tree()
        if not initrds and not image.lower().endswith(".efi"):
            names = (f"initrd.img-{version}", f"initramfs-{version}.img", f"initrd-{version}")
            initrds = tuple(f"/boot/{n}" for n in names if tree.is_file(f"/boot/{n}"))[:1]
        return Kernel(tree, self.budget, version, image, initrds)

    # -- programs

    def program(self, name: str) -> str:
        """Where a command is, "" where it is not installed."""
        for directory in ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"):
            if self.tree().is_file(f"{directory}/{name}"):
                return f"{directory}/{name}"
        return ""

    def unit(self, name: str) -> str:
        """What systemd does with a unit: "enabled", "disabled", "masked" or "absent"."""
        tree = self.tree()
        roots = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
        masked = next((m for r in roots if (m := self.masks(f"{r}/{name}")) is not None), None)
        if masked is None:
            return "absent"
        if masked:
            return "masked"
        for root in roots:
            for kind in ("wants", "requires"):
                if tree.glob(f"{root}/*.{kind}/{name}"):
                    return "enabled"
        return "disabled"

    def masks(self, path: str) -> bool | None:
        """Whether what systemd finds at a path is a mask: a link to /dev/null, or an
        empty file. None where nothing is."""
        if self.tree().link(path).endswith("/dev/null"):
            return True
        place = self.tree().find(path)
        return None if place is None else place.node.is_file and not place.node.size


def _banner(head: bytes) -> str:
    """The version in the header of a bzImage (Documentation/arch/x86/boot.rst)."""
    if head[514:518] != b"HdrS":
        return ""
    at = int.from_bytes(head[526:528], "little") + 512
    return head[at : at + 128].partition(b" ")[0].partition(b"\0")[0].decode(errors="replace")
