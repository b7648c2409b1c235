"""A good installation as a dictionary, and a disk that holds it: in memory for the
rules, as a real file for the readers."""

from __future__ import annotations

import posixpath
import stat
import struct
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from publisher.build import partition
from publisher.model import MIB, Extent, Finding
from publisher.proof.inspect.budget import Budget, Unreadable
from publisher.proof.inspect.filesystem import FileSystem, Node
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.partitions import BIOS_BOOT, ESP, Partition, Table
from publisher.proof.inspect.volume import Volume
from publisher.proof.rules import Rule

ROOT_UUID = "9b673022-2afb-595b-9fb5-7a03441675f9"
ESP_UUID = "6C17-9627"
VERSION = "6.1.0-9-cloud"
UNITS = "/usr/lib/systemd/system"
WANTS = "/etc/systemd/system/multi-user.target.wants"
MODULES = f"/lib/modules/{VERSION}"
BUILT_IN = ("nvme", "vfat")
EARLY = (
    *("virtio_scsi", "virtio_pci", "virtio_net", "hv_vmbus", "hv_storvsc", "hv_netvsc"),
    *("pci-hyperv", "xen-blkfront", "xen-netfront", "ena", "gve", "mlx5_core", "ext4"),
)
LATE = ("udf", "mana")
NEEDS = {"hv_storvsc": ("hv_vmbus",), "hv_netvsc": ("hv_vmbus",)}

Files = dict[str, "bytes | Link"]


class Link(str):
    """The target of a symbolic link."""


def cpio(names: Sequence[str]) -> bytes:
    """An archive of empty files."""
    out = bytearray()
    for name in (*names, "TRAILER!!!"):
        fields = [0] * 13
        fields[11] = len(name) + 1
        out += b"070701" + b"".join(b"%08x" % value for value in fields)
        out += name.encode() + b"\0"
        out += bytes(-len(out) % 4)
    return bytes(out)


def loader(*, signed: bool = True, machine: int = 0x8664) -> bytes:
    """The start of an EFI program."""
    head = bytearray(1024)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 60, 128)
    head[128:132] = b"PE\0\0"
    struct.pack_into("<HH", head, 132, machine, 0)
    optional = 128 + 24
    struct.pack_into("<H", head, optional, 0x20B)
    struct.pack_into("<I", head, optional + 108, 16)
    struct.pack_into("<II", head, optional + 112 + 32, 4096, 800 if signed else 0)
    return bytes(head)


def module(name: str) -> str:
    return f"kernel/drivers/{name}.ko"


def good() -> Files:
    """An installation without anything to find."""
    early = [f"usr/lib/modules/{VERSION}/{module(name)}" for name in EARLY]
    depends = [
        f"{module(name)}: {' '.join(module(n) for n in NEEDS.get(name, ()))}"
        for name in (*EARLY, *LATE)
    ]
    grub = (
        f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}\n"
        "menuentry 'Linux' {\n"
        f"    linux /boot/vmlinuz-{VERSION} root=UUID={ROOT_UUID} ro console=tty0 "
        "console=ttyS0,115200 nvme_core.io_timeout=4294967295\n"
        f"    initrd /boot/initrd.img-{VERSION}\n"
        "}\n"
    )
    text = {
        "/boot/grub/grub.cfg": grub,
        f"/boot/config-{VERSION}": "CONFIG_AMD_MEM_ENCRYPT=y\n",
        f"/boot/vmlinuz-{VERSION}": "kernel",
        "/etc/cloud/cloud.cfg": "users: [default]\n",
        "/etc/cloud/cloud.cfg.d/90-image.cfg": "datasource_list: [NoCloud, Ec2, GCE, Azure]\n",
        "/etc/fstab": (
            f"UUID={ROOT_UUID} / ext4 rw 0 1\nUUID={ESP_UUID} /boot/efi vfat nofail 0 2\n"
        ),
        "/etc/machine-id": "",
        "/etc/os-release": "ID=debian\n",
        "/etc/shadow": "root:*:1::::::\nsshd:!:1::::::\n",
        "/etc/ssh/sshd_config": (
            "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n"
        ),
        "/etc/ssh/sshd_config.d/10-image.conf": (
            "PasswordAuthentication no\nPermitRootLogin no\nClientAliveInterval 120\n"
        ),
        f"{MODULES}/modules.builtin": "\n".join(map(module, BUILT_IN)) + "\n",
        f"{MODULES}/modules.dep": "\n".join(depends) + "\n",
        "/usr/bin/cloud-init": "#!/usr/bin/python3\n",
        "/usr/bin/dbus-daemon": "",
        "/usr/bin/growpart": "#!/bin/sh\n",
        "/usr/lib/python3/dist-packages/cloudinit/version.py": '__VERSION__ = "22.4.2"\n',
        "/usr/lib/systemd/systemd-logind": "",
        "/usr/sbin/dhclient": "",
        "/usr/sbin/sshd": "",
    }
    files: Files = {path: content.encode() for path, content in text.items()}
    files["/bin/sh"] = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00"
    files[f"/boot/initrd.img-{VERSION}"] = cpio(early)
    files["/root/.profile"] = b""
    units = ["ssh.service", "cloud-init.service", "cloud-init-local.service"]
    for unit in [*units, "cloud-config.service", "cloud-final.service"]:
        files[f"{UNITS}/{unit}"] = b"[Unit]\n"
        files[f"{WANTS}/{unit}"] = Link(f"{UNITS}/{unit}")
    return files


def good_esp() -> Files:
    return {
        "/EFI/BOOT/BOOTX64.EFI": loader(),
        "/EFI/debian/grub.cfg": f"search.fs_uuid {ROOT_UUID} root\n".encode(),
    }


@dataclass(eq=False)
class Memory:
    """A file system of a dictionary."""

    content: Files
    kind: str = "ext4"
    uuid: str = ROOT_UUID
    label: str = "root"
    folds_case: bool = False
    remarks: tuple[str, ...] = ()
    _paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = {"/"}
        for path in self.content:
            while path not in known:
                known.add(path)
                path = posixpath.dirname(path)
        self._paths = sorted(known)

    def root(self) -> Node:
        return self.node(0)

    def node(self, number: int) -> Node:
        content = self.content.get(self._paths[number])
        if content is None:
            return Node(number, stat.S_IFDIR | 0o755, 0)
        kind = stat.S_IFLNK if isinstance(content, Link) else stat.S_IFREG
        return Node(number, kind | 0o644, len(content))

    def names(self, directory: Node) -> Mapping[str, int]:
        top = self._paths[directory.number]
        return {
            posixpath.basename(path): number
            for number, path in enumerate(self._paths)
            if path != "/" and posixpath.dirname(path) == top
        }

    def link(self, node: Node) -> str:
        return str(self.content[self._paths[node.number]])

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        content = self.content[self._paths[node.number]]
        assert isinstance(content, bytes)
        yield content[offset:]

    def extents(self, node: Node) -> Iterator[Extent]:
        yield from ()


class Blank:
    """A disk of zeros, but for GRUB's second part."""

    size = 64 * MIB

    def read(self, offset: int, length: int) -> bytes:
        return b"\xea" * length if offset == MIB else bytes(length)


GRUB = bytearray(440)
GRUB[0x180:0x184] = b"GRUB"
struct.pack_into("<Q", GRUB, 0x5C, MIB // 512)

PARTITIONS = (
    Partition(1, "linux", "0001", "root", 8 * MIB, 55 * MIB),
    Partition(14, BIOS_BOOT, "000e", "bios", MIB, MIB),
    Partition(15, ESP, "000f", "esp", 2 * MIB, 4 * MIB),
)


class World(Inspection):
    """A disk whose parts are given: a GPT with root, BIOS boot partition and ESP."""

    def __init__(
        self,
        files: Files | None = None,
        esp: Files | None = None,
        *,
        table: Table | None = None,
        more: Sequence[Volume] = (),
        root: FileSystem | None = None,
        fault: Unreadable | None = None,
    ) -> None:
        super().__init__(Blank(), Budget())
        self._table = table or Table("gpt", PARTITIONS, bytes(GRUB))
        own: FileSystem | None = root or Memory(good() if files is None else files)
        if fault is not None:
            own = None
        self._more = (
            Volume(PARTITIONS[0], own.kind if own else "ext4", ROOT_UUID, "root", own, fault),
            Volume(PARTITIONS[1], ""),
            Volume(
                PARTITIONS[2],
                "vfat",
                ESP_UUID,
                "ESP",
                Memory(good_esp() if esp is None else esp, "vfat", ESP_UUID, "ESP", True),
            ),
            *more,
        )

    def table(self) -> Table:
        return self._table

    def volumes(self) -> tuple[Volume, ...]:
        return self._more


def found(rule: Rule, disk: Inspection) -> list[Finding]:
    return [
        Finding(rule.id, e.severity or rule.severity, e.text, rule.fix, e.key, e.path, e.line)
        for e in rule.check(disk)
    ]


# -- real files


def write_tree(directory: Path, files: Files) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = directory / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            target.symlink_to(content)
        else:
            target.write_bytes(content)
    return directory


def run(*argv: str) -> None:
    subprocess.run(
        argv,
        check=True,
        capture_output=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLS_SKIP_CHECK": "1"},
    )


def disk_file(directory: Path, files: Files, esp: Files) -> Path:
    """A disk of 24 MiB with these files in an ext4 and a FAT file system."""
    path = directory / "disk.raw"
    size = 24 * MIB
    parts = [
        partition.Partition(1, partition.ROOT["x86_64"], uuid.uuid4(), "root", 8 * MIB, 15 * MIB),
        partition.Partition(14, partition.BIOS_BOOT, uuid.uuid4(), "bios", MIB, MIB),
        partition.Partition(15, partition.ESP, uuid.uuid4(), "esp", 2 * MIB, 4 * MIB),
    ]
    head, tail = partition.table(uuid.uuid4(), size, parts)
    with path.open("wb") as file:
        file.truncate(size)
        file.write(bytes(GRUB) + head[440:])
        file.seek(size - len(tail))
        file.write(tail)
        file.seek(MIB)
        file.write(b"\xea" * 512)
    tree = write_tree(directory / "tree", files)
    run(
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-U",
        ROOT_UUID,
        "-d",
        str(tree),
        "-E",
        f"offset={8 * MIB}",
        str(path),
        f"{15 * 1024}k",
    )
    write_fat(path, 2 * MIB, 4 * MIB, directory / "esp", esp)
    return path


def write_fat(path: Path, offset: int, length: int, scratch: Path, files: Files) -> None:
    image = f"{path}@@{offset}"
    run(
        "mformat",
        "-i",
        image,
        "-T",
        str(length // 512),
        "-h",
        "16",
        "-s",
        "32",
        "-v",
        "ESP",
        "-N",
        ESP_UUID.replace("-", ""),
        "::",
    )
    tree = write_tree(scratch, files)
    run("mcopy", "-s", "-i", image, *map(str, sorted(tree.iterdir())), "::")
