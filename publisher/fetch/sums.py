"""Digests, and the files that list them (SHA256SUMS in the styles of GNU and BSD)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from publisher.errors import BuildError
from publisher.model import MIB, Noun

Algorithm = Literal["sha256", "sha512"]
_LENGTHS: dict[int, Algorithm] = {64: "sha256", 128: "sha512"}
_GNU = re.compile(r"\\?([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})\s[ *]?(.+)")
_BSD = re.compile(r"SHA(?:256|512)\s?\((.+)\)\s?= ?([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})")


@dataclass(frozen=True, slots=True)
class Digest(Noun):
    """A file's digest; `value` is lower-case hex."""

    algorithm: Algorithm
    value: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From hex digits, whose number tells the algorithm. Raises ValueError."""
        algorithm = _LENGTHS.get(len(text))
        if algorithm is None or not re.fullmatch("[0-9A-Fa-f]+", text):
            raise ValueError("neither a sha256 nor a sha512 in hex digits")
        return cls(algorithm, text.lower())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def digest_file(
    path: Path, algorithm: str = "sha256", check: Callable[[], None] = lambda: None
) -> str:
    """The hex digest of a file's bytes, in pieces."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while data := file.read(4 * MIB):
            check()
            digest.update(data)
    return digest.hexdigest()


def lookup(text: str, name: str, where: str) -> Digest:
    """The digest that a list has for a file of that name; the longest wins.

    Raises BuildError when the list has none, or several that differ."""
    found: set[Digest] = set()
    names = []
    for line in text.splitlines():
        if match := _BSD.fullmatch(line.strip()):
            entry, value = match.groups()
        elif match := _GNU.fullmatch(line.strip()):
            value, entry = match.groups()
        else:
            continue
        names.append(entry)
        if entry.rpartition("/")[2] == name:
            found.add(Digest.parse(value))
    for algorithm in ("sha512", "sha256"):
        match [digest for digest in found if digest.algorithm == algorithm]:
            case [digest]:
                return digest
            case [_, _, *_]:
                raise BuildError(
                    f"{where} has several {algorithm} digests for {name}",
                    hint="write the right one as sha256 or sha512",
                )
    some = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    raise BuildError(
        f"{where} has no sha256 or sha512 digest for {name}",
        hint=f"it lists {some}" if names else "is it a list of digests at all?",
    )
