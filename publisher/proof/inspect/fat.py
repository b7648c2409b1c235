"""FAT12, FAT16 and FAT32 with long names, read only (Microsoft's "FAT32 File
System Specification", 1.03)."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Mapping

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.filesystem import Node
from publisher.proof.inspect.storage import Storage

_ENTRY = 32
_LONG, _VOLUME, _DIRECTORY = 0x0F, 0x08, 0x10
_DIRECTORY_MOST = 2 * MIB
"""The specification's limit: 65536 entries."""
_SECTORS = (512, 1024, 2048, 4096)
_CLUSTERS = (1, 2, 4, 8, 16, 32, 64, 128)
_ROOT = 0
_DIR = stat.S_IFDIR | 0o755
_FILE = stat.S_IFREG | 0o755


class Fat:
    """One file system; a node's number is where its directory entry is, 0 for the root."""

    kind = "vfat"
    folds_case = True
    remarks: tuple[str, ...] = ()

    def __init__(self, storage: Storage, budget: Budget) -> None:
        self._storage = storage
        self._budget = budget
        boot = storage.read(0, 512)
        sector, per_cluster, reserved, fats, root, small = struct.unpack_from("<HBHBHH", boot, 11)
        per_fat, large = struct.unpack_from("<H8xI", boot, 22)
        if sector not in _SECTORS or per_cluster not in _CLUSTERS:
            raise Damaged("its boot sector is damaged")
        if not reserved or not 1 <= fats <= 2:
            raise Damaged("its boot sector has no reserved sector or no FAT")
        wide = not per_fat
        per_fat = per_fat or struct.unpack_from("<I", boot, 36)[0]
        sectors = small or large
        self._cluster = sector * per_cluster
        self._fat = reserved * sector
        self._fixed_root = (reserved + fats * per_fat) * sector
        self._fixed_length = root * _ENTRY
        self._data = self._fixed_root + -(-self._fixed_length // sector) * sector
        self._clusters = (sectors * sector - self._data) // self._cluster
        if self._clusters <= 0 or sectors * sector > storage.size:
            raise Damaged(f"it has {sectors} sectors, more than its partition")
        self._bits = 32 if wide else 16 if self._clusters >= 4085 else 12
        self._root_cluster = struct.unpack_from("<I", boot, 44)[0] if wide else 0
        if (self._clusters + 2) * self._bits > per_fat * sector * 8:
            raise Damaged("its FAT is too small for its clusters")
        serial = boot[67:71] if wide else boot[39:43]
        number = int.from_bytes(serial, "little")
        self.uuid = f"{number >> 16:04X}-{number & 0xFFFF:04X}"
        self.label = (boot[71:82] if wide else boot[43:54]).decode("ascii", "replace").rstrip()

    def root(self) -> Node:
        return Node(_ROOT, _DIR, 0)

    def node(self, number: int) -> Node:
        if number == _ROOT:
            return self.root()
        raw = self._storage.read(number, _ENTRY)
        size = struct.unpack_from("<I", raw, 28)[0]
        if raw[11] & _DIRECTORY:
            return Node(number, _DIR, 0)
        return Node(number, _FILE, size)

    def names(self, directory: Node) -> Mapping[str, int]:
        found: dict[str, int] = {}
        long: dict[int, str] = {}
        for at, raw in self._entries(directory):
            self._budget.charge()
            first, attributes = raw[0], raw[11]
            if first == 0:
                break
            if first == 0xE5:
                long.clear()
            elif attributes & 0x3F == _LONG:
                text = raw[1:11] + raw[14:26] + raw[28:32]
                long[first & 0x3F] = text.decode("utf-16-le", "replace").partition("\0")[0]
            else:
                name = "".join(long[part] for part in sorted(long)) or _short(raw)
                long.clear()
                if not attributes & _VOLUME and name not in (".", "..") and "/" not in name:
                    found[name] = at
        return found

    def link(self, node: Node) -> str:
        raise Damaged(f"FAT has no links ({node.number})")

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        position = 0
        for at in self._chain(self._first(node)):
            length = min(self._cluster, node.size - position)
            if length <= 0:
                return
            if position + length > offset:
                skip = max(0, offset - position)
                yield self._storage.read(at + skip, length - skip)
            position += length
        if position < node.size:
            raise Damaged("a file's chain of clusters is shorter than the file")

    def extents(self, node: Node) -> Iterator[Extent]:
        for at in self._chain(self._first(node)):
            yield Extent(at, self._cluster)

    def _entries(self, directory: Node) -> Iterator[tuple[int, bytes]]:
        places: Iterator[tuple[int, int]]
        if directory.number == _ROOT and not self._root_cluster:
            places = iter([(self._fixed_root, self._fixed_length)])
        else:
            first = self._root_cluster if directory.number == _ROOT else self._first(directory)
            places = ((at, self._cluster) for at in self._chain(first))
        total = 0
        for start, length in places:
            total += length
            if total > _DIRECTORY_MOST:
                raise Damaged("a directory has more than 65536 entries")
            raw = self._storage.read(start, length)
            for at in range(0, length - _ENTRY + 1, _ENTRY):
                yield start + at, raw[at : at + _ENTRY]

    def _first(self, node: Node) -> int:
        raw = self._storage.read(node.number, _ENTRY)
        high, low = struct.unpack_from("<H4xH", raw, 20)
        cluster: int = low | (high << 16 if self._bits == 32 else 0)
        return cluster

    def _chain(self, cluster: int) -> Iterator[int]:
        """Where the clusters are, in bytes; a chain longer than the disk is a circle."""
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0xFFFFFF8}[self._bits]
        for _ in range(self._clusters + 1):
            if cluster >= end or cluster == 0:
                return
            if not 2 <= cluster < self._clusters + 2:
                raise Damaged(f"a chain leads to cluster {cluster}")
            yield self._data + (cluster - 2) * self._cluster
            cluster = self._next(cluster)
        raise Damaged("a chain of clusters runs in a circle")

    def _next(self, cluster: int) -> int:
        at = self._fat + cluster * self._bits // 8
        if self._bits == 32:
            return int.from_bytes(self._storage.read(at, 4), "little") & 0x0FFFFFFF
        value = int.from_bytes(self._storage.read(at, 2), "little")
        if self._bits == 12:
            return value >> 4 if cluster & 1 else value & 0xFFF
        return value


def _short(raw: bytes) -> str:
    base = raw[:8].decode("cp437").rstrip()
    extension = raw[8:11].decode("cp437").rstrip()
    # bits that Windows NT and mtools set for names in lower case
    base = base.lower() if raw[12] & 0x08 else base
    extension = extension.lower() if raw[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base
