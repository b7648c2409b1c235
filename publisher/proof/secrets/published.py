"""What everybody has already: secrets that Debian publishes with its packages; and
which package of whomever installed a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path

from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.filesystem import FileSystem, Node
from publisher.proof.inspect.tree import Tree

FILE = Path(__file__).with_name("published.txt")
"""Made by tools/published.py, which tells how."""
_SHORTENED = 16
_INFO = "/var/lib/dpkg/info"
_CONFFILE = re.compile(r"^ (/\S.*) ([0-9a-f]{32})(?: obsolete)?$")
_FILES_MOST = 2_000_000
"""What is beyond counts as installed by no package."""


def shortened(value: bytes) -> str:
    """A value's digest (Hit.value) as FILE has it."""
    return value[:_SHORTENED].hex()


@cache
def _published() -> Mapping[str, str]:
    """Debian's package by the digest of a value."""
    found: dict[str, str] = {}
    package = ""
    for line in FILE.read_text().splitlines():
        if line.startswith(" "):
            found[line[1:]] = package
        elif not line.startswith("#"):
            package = line
    return found


def published_in(value: bytes) -> str:
    """A package with which Debian publishes the secret of this digest, "" for none."""
    return _published().get(shortened(value), "")


class Packages:
    """The files that dpkg installed in a file system, with their MD5 sums. Anybody makes
    packages: that a file comes with one excuses nothing in it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @cached_property
    def _sums(self) -> Mapping[str, tuple[str, str]]:
        """(package, MD5) by path."""
        found: dict[str, tuple[str, str]] = {}
        for name in self._tree.names(_INFO):
            if not name.endswith(".md5sums"):
                continue
            package = name.removesuffix(".md5sums").partition(":")[0]
            for line in self._tree.text(f"{_INFO}/{name}").splitlines():
                digest, _, path = line.partition("  ")
                found[_merged("/" + path)] = (package, digest)
            if len(found) > _FILES_MOST:
                return found
        package = ""
        for line in self._tree.text("/var/lib/dpkg/status").splitlines():
            if line.startswith("Package: "):
                package = line[9:]
            elif conffile := _CONFFILE.match(line):
                found[_merged(conffile[1])] = (package, conffile[2])
        return found

    def owner(self, path: str, files: FileSystem, node: Node) -> str:
        """The package whose unchanged file this is, "" where there is none."""
        try:
            package, expected = self._sums.get(_merged(path), ("", ""))
            if not package:
                return ""
            digest = hashlib.md5(usedforsecurity=False)
            for piece in files.stream(node):
                digest.update(piece)
        except Unreadable:
            return ""
        return package if digest.hexdigest() == expected else ""


def _merged(path: str) -> str:
    """Packages still say /lib where the file is in /usr/lib (merged /usr)."""
    top = path.split("/", 2)[1]
    return f"/usr{path}" if top in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") else path
