"""What all readers of file systems offer."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from publisher.model import Extent

LINK_MOST = 4096
"""The longest target of a symbolic link (PATH_MAX)."""
NAMES_MOST = 200_000
"""The most names that a directory may have."""


@dataclass(frozen=True, slots=True)
class Node:
    """A file, directory or anything else; `number` tells it from all others of its
    file system, `mode` is stat(2)'s st_mode."""

    number: int
    mode: int
    size: int
    owner: int = 0

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class FileSystem(Protocol):
    """All methods raise Damaged where the bytes contradict the format."""

    kind: str
    """As mount names it: ext4, vfat, xfs."""
    uuid: str
    """As /dev/disk/by-uuid names it."""
    label: str
    folds_case: bool
    """Whether README and readme are one file."""
    remarks: tuple[str, ...]
    """What is readable and not as it should be."""

    def __hash__(self) -> int: ...

    def root(self) -> Node: ...

    def node(self, number: int) -> Node: ...

    def names(self, directory: Node) -> Mapping[str, int]:
        """The entries of a directory, without . and ..: name ▶ number."""

    def link(self, node: Node) -> str:
        """Where a symbolic link points."""

    def stream(self, node: Node, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, in pieces; holes come as zeros."""

    def extents(self, node: Node) -> Iterator[Extent]:
        """Where the content lies, in bytes from the start of the file system, in the
        order of the file; to the ends of its blocks, holes left out."""
