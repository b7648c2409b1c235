"""The locale that every login starts in."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import WARNING, Evidence, Rule

_SETTINGS = ("/etc/default/locale", "/etc/locale.conf")
_SETTING = re.compile(r"""(LANG|LC_[A-Z]+)=(["']?)([^"']*)\2""")
_WHERE = "/usr/lib/locale"
_ARCHIVE = f"{_WHERE}/locale-archive"
_ARCHIVE_MAGIC = 0xDE020109
_NAMES_MOST = 1024 * 1024
_BUILT_IN = frozenset({"", "C", "POSIX", "C.utf8"})


def _default(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    if tree.glob("/lib/ld-musl-*"):  # musl takes any name
        return
    known: frozenset[str] | None = None
    seen = set()
    for path in _SETTINGS:
        place = tree.find(path)
        if place is None or place.path in seen:
            continue
        seen.add(place.path)
        for number, line in tree.lines(path):
            found = _SETTING.fullmatch(line)
            if found is None or _plain(found[3]) in _BUILT_IN:
                continue
            known = _installed(tree) if known is None else known
            if _plain(found[3]) not in known:
                yield Evidence(f"{found[1]}={found[3]} is not in {_WHERE}", path, number)


def _installed(tree: Tree) -> frozenset[str]:
    names = [name for name in tree.names(_WHERE) if not name.startswith("locale-archive")]
    return frozenset(_plain(name) for name in (*names, *_archived(tree)))


def _archived(tree: Tree) -> Iterator[str]:
    """The names in glibc's archive: its header says where they stand, each ended by
    a zero (locarchive.h of glibc). Raises Unreadable where it is something else."""
    head = tree.read(_ARCHIVE, 28)
    if not head:
        return
    if len(head) < 28 or struct.unpack_from("<I", head)[0] != _ARCHIVE_MAGIC:
        raise Unreadable(f"{_ARCHIVE} is no archive of locales")
    start, used = struct.unpack_from("<II", head, 20)
    for name in tree.read_at(_ARCHIVE, start, min(used, _NAMES_MOST)).split(b"\0"):
        yield name.decode(errors="replace")


def _plain(name: str) -> str:
    """A locale's name with its character set as glibc compares it: UTF-8 is utf8."""
    rest, at, modifier = name.strip().partition("@")
    language, dot, codeset = rest.partition(".")
    codeset = re.sub(r"[^0-9a-z]", "", codeset.lower())
    return f"{language}{dot}{'iso' if codeset.isdigit() else ''}{codeset}{at}{modifier}"


RULES = (
    Rule(
        "locale.default",
        WARNING,
        "The default locale is in the image",
        "Every login, and every program that asks, warns that it cannot set the locale, and falls "
        "back to ASCII.",
        "https://wiki.debian.org/Locale",
        "generate it (locale-gen, or a glibc-langpack), or write LANG=C.UTF-8",
        _default,
    ),
)
