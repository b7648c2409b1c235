"""XFS file systems of mkfs.xfs, which fills them from a prototype file, without root."""

from __future__ import annotations

import os
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from publisher.crc32c import crc32c
from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.filesystem import Node
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.xfs import Xfs
from tests.unit.lint_world import ROOT_UUID, Files, Link, write_tree

SUPPORTED = 300 * MIB
"""The smallest size that mkfs.xfs makes unasked."""
_Nested: TypeAlias = "dict[str, _Nested | Link | Path]"


def make_xfs(
    directory: Path, files: Files, *options: str, size: int = SUPPORTED, name: str = "xfs"
) -> Path:
    """A sparse file of `size` bytes with these files (names without spaces)."""
    source = write_tree(
        directory / f"{name}.files", {p: c for p, c in files.items() if not isinstance(c, Link)}
    )
    nested: _Nested = {}
    for path, content in files.items():
        *parents, last = path.strip("/").split("/")
        inner = nested
        for parent in parents:
            below = inner.setdefault(parent, {})
            assert isinstance(below, dict)
            inner = below
        inner[last] = content if isinstance(content, Link) else source / path.strip("/")
    prototype = directory / f"{name}.prototype"
    lines = ["none", "0 0", "d--755 0 0", *_lines(nested), "$"]
    prototype.write_text("\n".join(lines) + "\n")
    image = directory / f"{name}.img"
    image.write_bytes(b"")
    os.truncate(image, size)
    if size < SUPPORTED:
        options = ("--unsupported", *options)
    ident = ROOT_UUID if name in ("xfs", "root") else uuid.uuid4()
    command = [*("mkfs.xfs", "-q", "-m", f"uuid={ident}"), *options, "-p", str(prototype)]
    xfs(*command, str(image))
    patch = Patch(image)
    for path, content in files.items():
        if isinstance(content, Link) and patch.sealed:
            patch.seal_link(path)
    return image


def _lines(nested: _Nested) -> Sequence[str]:
    lines: list[str] = []
    for name, content in nested.items():
        if isinstance(content, dict):
            lines += [f"{name} d--755 0 0", *_lines(content), "$"]
        elif isinstance(content, Link):
            lines.append(f"{name} l--777 0 0 {content}")
        else:
            lines.append(f"{name} ---644 0 0 {content}")
    return lines


def xfs(*argv: str) -> str:
    done = subprocess.run(
        argv,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return done.stdout


def is_sound(image: Path) -> bool:
    """What xfs_repair says of it."""
    argv = ["xfs_repair", "-n", "-f", str(image)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(argv, capture_output=True, env=environment).returncode == 0


class Patch:
    """Changes an image's bytes by what the reader says of where things are."""

    def __init__(self, image: Path) -> None:
        self.image = image
        budget = Budget()
        self._file = RawFile(image, budget)
        self.files = Xfs(self._file, budget)
        self.tree = Tree(self.files, budget)
        self.superblock = self.files.superblock
        self.sealed = self.superblock.version == 5

    def node(self, path: str) -> Node:
        place = self.tree.find(path, follow=False)
        assert place is not None
        return place.node

    def inode(self, path: str) -> tuple[int, bytearray]:
        """Where an inode is, and its bytes."""
        at = self.superblock.inode(self.node(path).number)
        return at, bytearray(self._file.read(at, self.superblock.inode_size))

    def write(self, at: int, raw: bytes | bytearray, check: int | None = None) -> None:
        """`check`: where the checksum is (of v5 only)."""
        raw = bytearray(raw)
        if check is not None and self.sealed:
            seal(raw, check)
        with self.image.open("r+b") as file:
            file.seek(at)
            file.write(raw)

    def read(self, at: int, length: int) -> bytearray:
        return bytearray(self._file.read(at, length))

    def change_inode(self, path: str, *changes: tuple[int, bytes]) -> None:
        at, raw = self.inode(path)
        for offset, value in changes:
            raw[offset : offset + len(value)] = value
        self.write(at, raw, check=100)

    def seal_link(self, path: str) -> None:
        """Give a long link the header that mkfs.xfs forgets (up to 6.1)."""
        node = self.node(path)
        for extent in self.files.extents(node):
            self._seal_link(node, extent)

    def _seal_link(self, node: Node, extent: Extent) -> None:
        raw = self.read(extent.offset, extent.length)
        head = b"XSLM" + bytes(4) + node.size.to_bytes(4, "big") + bytes(4)
        head += self.superblock.meta_uuid + node.number.to_bytes(8, "big")
        head += (extent.offset // 512).to_bytes(8, "big") + bytes(8)
        if raw[:4] != b"XSLM":
            self.write(extent.offset, head + raw[: -len(head)], check=12)


def record(start: int, block: int, count: int, *, unwritten: bool = False) -> bytes:
    """An extent as forks have it."""
    upper = unwritten << 63 | start << 9 | block >> 43
    return struct.pack(">QQ", upper, (block & (1 << 43) - 1) << 21 | count)


def seal(raw: bytearray, at: int) -> None:
    raw[at : at + 4] = bytes(4)
    raw[at : at + 4] = crc32c(bytes(raw)).to_bytes(4, "little")
