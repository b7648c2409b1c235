"""Packages of Python and Node.js, wherever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.parser import HeaderParser
from email.utils import parseaddr

from packageurl import PackageURL

from publisher.model import MIB
from publisher.proof.inspect.tree import Tree
from publisher.proof.inventory import licenses
from publisher.proof.inventory.component import Component

_MOST = 1 * MIB


def describes(path: str) -> bool:
    """Whether a file at that path describes a package."""
    if path.endswith(("/METADATA", "/PKG-INFO")):
        return path.rsplit("/", 2)[1].endswith((".dist-info", ".egg-info"))
    if path.endswith(".egg-info"):
        return True
    parts = path.rsplit("/", 3)
    if not path.endswith("/package.json") or len(parts) < 4:
        return False
    scoped = parts[1].startswith("@") and parts[0].endswith("/node_modules")
    return parts[1] == "node_modules" or scoped


def component(tree: Tree, path: str) -> Component | None:
    """What the file describes; None where it is not what its name says."""
    text = tree.read(path, _MOST).decode(errors="replace")
    return _node(path, text) if path.endswith("/package.json") else _python(path, text)


def _python(path: str, text: str) -> Component | None:
    """https://packaging.python.org/en/latest/specifications/core-metadata/"""
    fields = HeaderParser().parsestr(text)
    name, version = str(fields.get("Name", "")).strip(), str(fields.get("Version", "")).strip()
    if not name or not version:
        return None
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
        path,
    )


def _node(path: str, text: str) -> Component | None:
    """https://docs.npmjs.com/cli/configuring-npm/package-json"""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
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
        path,
    )


def components(tree: Tree, owned: frozenset[str]) -> Iterator[Component]:
    """All that no package of the distribution brought."""
    for place in tree.walk("/"):
        if place.node.is_file and describes(place.path) and place.path not in owned:
            found = component(tree, place.path)
            if found is not None:
                yield found
