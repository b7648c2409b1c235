"""Packages of apk (https://wiki.alpinelinux.org/wiki/Apk_spec#Installed_database)."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parseaddr

from packageurl import PackageURL

from publisher.proof.inspect.tree import Tree
from publisher.proof.inventory import licenses
from publisher.proof.inventory.component import Component, System

DATABASES = ("/usr/lib/apk/db/installed", "/lib/apk/db/installed")


def _database(tree: Tree) -> str:
    return next((path for path in DATABASES if tree.exists(path)), "")


def components(tree: Tree, system: System) -> Iterator[Component]:
    path = _database(tree)
    if not path:
        return
    for stanza in tree.text(path).split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if line[1:2] == ":")
        if "P" not in fields:
            continue
        name, version = fields["P"], fields.get("V", "")
        origin = fields.get("o", "")
        qualifiers = {
            "arch": fields.get("A", ""),
            "distro": system.distro,
            "upstream": origin if origin != name else "",
        }
        yield Component(
            "apk",
            name,
            version,
            PackageURL("apk", system.id or "alpine", name, version, qualifiers).to_string(),
            tuple(sorted(set(licenses.parts(fields.get("L", ""))))),
            parseaddr(fields.get("m", ""))[0],
            fields.get("U", ""),
            (path,),
        )


def owned(tree: Tree) -> Iterator[str]:
    """The paths that apk's packages brought."""
    path, directory = _database(tree), ""
    for line in tree.text(path).splitlines() if path else ():
        if line.startswith("F:"):
            directory = line[2:]
        elif line.startswith("R:"):
            yield f"/{directory}/{line[2:]}"
