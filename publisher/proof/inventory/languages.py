"""Packages of Python and Node.js, wherever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from email.utils import parseaddr
from typing import Any

from packageurl import PackageURL

from publisher.model import MIB
from publisher.proof.inspect.tree import Tree
from publisher.proof.inventory import licenses
from publisher.proof.inventory.component import Component

_MOST = 1 * MIB
_TOLD = 20
"""Paths that one gap names."""


class Unread:
    """The files that should describe a package, and do not."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._more = 0

    def add(self, path: str) -> None:
        if len(self._first) < _TOLD:
            self._first.append(path)
        else:
            self._more += 1

    def told(self) -> Iterator[str]:
        if self._first:
            more = f" and {self._more} more" if self._more else ""
            yield f"no package can be read from {', '.join(self._first)}{more}"


def describes(path: str) -> bool:
    """Whether a file at that path describes a package."""
    top, above, directory, name = ["", "", "", *path.split("/")][-4:]
    if name in ("METADATA", "PKG-INFO"):
        in_egg = directory == "EGG-INFO" and above.endswith(".egg")
        return in_egg or directory.endswith((".dist-info", ".egg-info"))
    if name.endswith((".egg-info", ".egg")):
        return True
    if directory == "conda-meta":
        return name.endswith(".json")
    scoped = above.startswith("@") and top == "node_modules"
    return name == "package.json" and (above == "node_modules" or scoped)


def component(tree: Tree, path: str) -> Component | None:
    """What the file describes; None for a package.json that names no package. Raises
    ValueError where it is not what its name says."""
    data = tree.read(path, _MOST)
    if path.endswith(".json"):
        try:
            fields = json.loads(data.decode("utf-8-sig"))
        except RecursionError as error:
            raise ValueError(str(error)) from error
        if not isinstance(fields, dict):
            raise ValueError("it holds no table")
        return _node(path, fields) if path.endswith("/package.json") else _conda(path, fields)
    return _python(path, data.decode(errors="replace"))


def _python(path: str, text: str) -> Component:
    """https://packaging.python.org/en/latest/specifications/core-metadata/"""
    fields = HeaderParser().parsestr(text)
    name, version = str(fields.get("Name", "")).strip(), str(fields.get("Version", "")).strip()
    if not name or not version:
        raise ValueError("it names no package or version")
    named = str(fields.get("License-Expression") or fields.get("License") or "").strip()
    author = parseaddr(str(fields.get("Author-email") or ""))[0] or str(fields.get("Author") or "")
    return Component(
        "pypi",
        name,
        version,
        PackageURL("pypi", None, name, version).to_string(),
        tuple(sorted(set(licenses.parts(named)))) if "\n" not in named else (),
        author.strip(),
        str(fields.get("Home-page") or "").strip(),
        (path,),
    )


def _conda(path: str, data: Mapping[str, Any]) -> Component:
    """https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html"""
    name, version = data.get("name"), data.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise ValueError("it names no package or version")
    qualifiers = {
        key: value
        for key in ("build", "channel", "subdir")
        if isinstance(value := data.get(key), str) and value
    }
    license_ = data.get("license")
    return Component(
        "conda",
        name,
        version,
        PackageURL("conda", None, name, version, qualifiers).to_string(),
        tuple(sorted(set(licenses.parts(license_)))) if isinstance(license_, str) else (),
        paths=(path,),
    )


def _node(path: str, data: Mapping[str, Any]) -> Component | None:
    """https://docs.npmjs.com/cli/configuring-npm/package-json"""
    name, version = data.get("name"), data.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        return None
    scope, _, base = name.rpartition("/")
    license_, author = data.get("license"), data.get("author")
    homepage = data.get("homepage")
    if isinstance(author, dict):
        author = author.get("name")
    return Component(
        "npm",
        name,
        version,
        PackageURL("npm", scope or None, base, version).to_string(),
        tuple(sorted(set(licenses.parts(license_)))) if isinstance(license_, str) else (),
        parseaddr(author)[0] or author if isinstance(author, str) else "",
        homepage if isinstance(homepage, str) else "",
        (path,),
    )


def components(tree: Tree, owned: frozenset[str], unread: Unread) -> Iterator[Component]:
    """All that no package of the distribution brought."""
    for place in tree.walk("/"):
        if place.node.is_file and describes(place.path) and place.path not in owned:
            try:
                found = component(tree, place.path)
            except ValueError:
                unread.add(place.path)
                continue
            if found is not None:
                yield found
