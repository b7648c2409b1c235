"""Packages of rpm: its databases in SQLite, ndb and Berkeley DB."""

from __future__ import annotations

import contextlib
import mmap
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packageurl import PackageURL

from publisher.model import MIB
from publisher.proof.inspect.budget import Damaged
from publisher.proof.inspect.tree import Tree
from publisher.proof.inventory import berkeley, licenses
from publisher.proof.inventory.component import Component, System

DIRECTORIES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
_MOST = 512 * MIB
_HEADER_MOST = 32 * MIB
_SLOTS_MOST = 16 * MIB
_FILES_MOST = 1_000_000
"""Of one package."""
_TEXT_TYPES = (6, 8, 9)  # string, string array, translated strings
_INT32 = 4

# rpmtag.h of rpm
_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR, _LICENSE, _URL, _ARCH = (
    *(1000, 1001, 1002, 1003, 1011, 1014, 1020, 1022),
)
_SOURCE, _DIR_INDEXES, _BASE_NAMES, _DIR_NAMES = 1044, 1116, 1117, 1118
_WANTED = frozenset(
    {
        *(_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR, _LICENSE, _URL, _ARCH, _SOURCE),
        *(_DIR_INDEXES, _BASE_NAMES, _DIR_NAMES),
    }
)


@dataclass(frozen=True, slots=True)
class Header:
    """The wanted fields of one package by tag."""

    texts: Mapping[int, list[str]]
    numbers: Mapping[int, list[int]]

    def first(self, tag: int) -> str:
        values = self.texts.get(tag) or self.numbers.get(tag)
        return str(values[0]) if values else ""


def headers(tree: Tree) -> Iterator[Header]:
    """One for each installed package."""
    for directory in DIRECTORIES:
        for name, reader in _READERS:
            path = f"{directory}/{name}"
            if tree.is_file(path):
                for blob in reader(tree, path):
                    yield _header(blob)
                return


def _sqlite(tree: Tree, path: str) -> Iterator[bytes]:
    with _copied(tree, path, "-wal") as copy:
        try:
            with contextlib.closing(sqlite3.connect(copy)) as database:
                # a view may compute rows without end
                database.execute("PRAGMA trusted_schema = OFF")
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER_MOST)
                kind = "SELECT type FROM sqlite_schema WHERE name = 'Packages'"
                if database.execute(kind).fetchall() != [("table",)]:
                    raise Damaged(f"{path} has no table Packages")
                # sorted by the key that it is stored by: nothing to keep meanwhile
                for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY rowid"):
                    yield bytes(blob)
        except (sqlite3.Error, TypeError) as error:
            raise Damaged(f"{path} can't be read: {error}") from error


@contextlib.contextmanager
def _copied(tree: Tree, path: str, *more: str) -> Iterator[Path]:
    """A copy of a database, and of the files beside it with these endings."""
    with tempfile.TemporaryDirectory(prefix="rpmdb-") as directory:
        copy = Path(directory, "db")
        for suffix in ("", *more):
            size = 0
            with Path(f"{copy}{suffix}").open("wb") as file:
                for piece in tree.stream(path + suffix):
                    size += len(piece)
                    if size > _MOST:
                        raise Damaged(f"{path}{suffix} has more than {_MOST} bytes")
                    file.write(piece)
        yield copy


@contextlib.contextmanager
def _mapped(tree: Tree, path: str) -> Iterator[mmap.mmap]:
    with _copied(tree, path) as copy, copy.open("rb") as file:
        size = copy.stat().st_size
        if not size:  # there are no maps of nothing
            raise Damaged(f"{path} is empty")
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            yield data


def _ndb(tree: Tree, path: str) -> Iterator[bytes]:
    """rpm's lib/backend/ndb/rpmpkg.c: slots of 16 bytes, blobs in blocks of 16."""
    with _mapped(tree, path) as data:
        yield from _blobs(data, path)


def _berkeley(tree: Tree, path: str) -> Iterator[bytes]:
    with _mapped(tree, path) as data:
        yield from berkeley.values(data, path, _HEADER_MOST)


_READERS = (("rpmdb.sqlite", _sqlite), ("Packages.db", _ndb), ("Packages", _berkeley))


def _blobs(data: mmap.mmap, path: str) -> Iterator[bytes]:
    magic, version, _, pages = struct.unpack_from("<4sIII", data)
    if magic != b"RpmP" or version != 0 or pages * 4096 > min(len(data), _SLOTS_MOST):
        raise Damaged(f"{path} is no database of rpm")
    seen: set[int] = set()
    for at in range(32, pages * 4096, 16):
        magic, package, block, _ = struct.unpack_from("<4sIII", data, at)
        if magic != b"Slot" or not package or not block:
            continue
        magic, owner, _, length = struct.unpack_from("<4sIII", data, block * 16)
        if magic != b"BlbS" or owner != package or package in seen or length > _HEADER_MOST:
            raise Damaged(f"{path} has a package whose header is not there")
        seen.add(package)
        yield data[block * 16 + 16 : block * 16 + 16 + length]


def _header(blob: bytes) -> Header:
    """https://rpm-software-management.github.io/rpm/manual/format_header.html, without
    its magic: two counts, the index, the data."""
    entries, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    if entries > 65536 or start + size > len(blob):
        raise Damaged("the header of an rpm package is damaged")
    texts: dict[int, list[str]] = {}
    numbers: dict[int, list[int]] = {}
    for number in range(entries):
        tag, kind, offset, count = struct.unpack_from(">IIII", blob, 8 + 16 * number)
        if tag not in _WANTED or offset > size:
            continue
        if tag in texts or tag in numbers or count > _FILES_MOST:
            raise Damaged("the header of an rpm package tells things twice, or without end")
        data = memoryview(blob)[start + offset : start + size]
        if kind in _TEXT_TYPES:
            pieces = bytes(data).split(b"\0", count)[:count]
            texts[tag] = [piece.decode(errors="replace") for piece in pieces]
        elif kind == _INT32 and offset + 4 * count <= size:
            numbers[tag] = list(struct.unpack_from(f">{count}i", data))
    return Header(texts, numbers)


def components(tree: Tree, system: System) -> Iterator[Component]:
    for header in headers(tree):
        name = header.first(_NAME)
        if not name or name == "gpg-pubkey":  # keys that rpm trusts, kept as packages
            continue
        version = f"{header.first(_VERSION)}-{header.first(_RELEASE)}"
        qualifiers = {
            "arch": header.first(_ARCH),
            "epoch": header.first(_EPOCH),
            "upstream": header.first(_SOURCE),
            "distro": system.distro,
        }
        yield Component(
            "rpm",
            name,
            version,
            PackageURL("rpm", system.id, name, version, qualifiers).to_string(),
            tuple(sorted(set(licenses.parts(header.first(_LICENSE))))),
            header.first(_VENDOR),
            header.first(_URL),
        )


def owned(tree: Tree) -> Iterator[str]:
    """The paths that rpm's packages brought."""
    for header in headers(tree):
        directories = header.texts.get(_DIR_NAMES, [])
        names, indexes = header.texts.get(_BASE_NAMES, []), header.numbers.get(_DIR_INDEXES, [])
        for name, index in zip(names, indexes, strict=False):
            if 0 <= index < len(directories):
                yield f"{directories[index]}{name}"
