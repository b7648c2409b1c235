"""EFI programs: for which machine, signed or not, and their sections (Microsoft's
"PE Format")."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from publisher.model import Arch
from publisher.proof.inspect.tree import Tree

_MACHINES: dict[int, Arch] = {0x8664: "x86_64", 0xAA64: "aarch64"}
_HEAD = 64 * 1024
_SECTIONS_MOST = 96


@dataclass(frozen=True, slots=True)
class Program:
    """`arch` is None for a machine that no cloud has."""

    arch: Arch | None
    signed: bool


def program(tree: Tree, path: str) -> Program | None:
    """What an EFI program says of itself; None for what is none."""
    head = tree.read(path, _HEAD)
    at = _header(head)
    if at is None:
        return None
    machine = struct.unpack_from("<H", head, at + 4)[0]
    optional = at + 24
    magic = struct.unpack_from("<H", head, optional)[0]
    count_at = optional + (108 if magic == 0x20B else 92)
    directory = count_at + 4 + 8 * 4  # the fifth one holds the certificates
    signed = False
    if len(head) >= directory + 8 and struct.unpack_from("<I", head, count_at)[0] > 4:
        signed = struct.unpack_from("<I", head, directory + 4)[0] > 0
    return Program(_MACHINES.get(machine), signed)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a program's file, in bytes."""

    offset: int
    length: int


def sections(tree: Tree, path: str) -> dict[str, Section]:
    """A program's sections by name; empty for what is none."""
    head = tree.read(path, _HEAD)
    at = _header(head)
    if at is None:
        return {}
    count, optional = struct.unpack_from("<H", head, at + 6)[0], at + 20
    table = optional + 4 + struct.unpack_from("<H", head, optional)[0]
    found: dict[str, Section] = {}
    for number in range(min(count, _SECTIONS_MOST)):
        entry = head[table + 40 * number : table + 40 * (number + 1)]
        if len(entry) == 40:
            name = entry[:8].rstrip(b"\0").decode(errors="replace")
            size, _, raw_size, offset = struct.unpack_from("<IIII", entry, 8)
            found[name] = Section(offset, min(size or raw_size, raw_size))
    return found


def section_text(tree: Tree, path: str, section: Section) -> str:
    """A section's first 64 KiB as text."""
    raw = tree.read_at(path, section.offset, min(section.length, _HEAD))
    return raw.partition(b"\0")[0].decode(errors="replace").strip()


def _header(head: bytes) -> int | None:
    """Where the PE header is."""
    if len(head) < 64 or head[:2] != b"MZ":
        return None
    at: int = struct.unpack_from("<I", head, 60)[0]
    return at if head[at : at + 4] == b"PE\0\0" and at + 128 < len(head) else None
