"""EFI programs: for which machine, signed or not, and their sections (Microsoft's
"PE Format")."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.model import MIB, Arch
from publisher.proof.inspect.tree import Tree

_MACHINES: dict[int, Arch] = {0x8664: "x86_64", 0xAA64: "aarch64"}
_HEAD = 64 * 1024
_SECTIONS_MOST = 96
_SECTION_MOST = 1 * MIB


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


def sections(tree: Tree, path: str, names: Sequence[str]) -> dict[str, bytes]:
    """The first MiB of those of a program's sections that are there."""
    head = tree.read(path, _HEAD)
    at = _header(head)
    if at is None:
        return {}
    count, optional = struct.unpack_from("<H", head, at + 6)[0], at + 20
    table = optional + 4 + struct.unpack_from("<H", head, optional)[0]
    found: dict[str, bytes] = {}
    for number in range(min(count, _SECTIONS_MOST)):
        entry = head[table + 40 * number : table + 40 * (number + 1)]
        name = entry[:8].rstrip(b"\0").decode(errors="replace")
        if len(entry) == 40 and name in names:
            size, _, raw_size, offset = struct.unpack_from("<IIII", entry, 8)
            found[name] = tree.read_at(path, offset, min(size or raw_size, raw_size, _SECTION_MOST))
    return found


def _header(head: bytes) -> int | None:
    """Where the PE header is."""
    if len(head) < 64 or head[:2] != b"MZ":
        return None
    at: int = struct.unpack_from("<I", head, 60)[0]
    return at if head[at : at + 4] == b"PE\0\0" and at + 128 < len(head) else None
