"""Packages of dpkg: /var/lib/dpkg/status, or status.d where there is no dpkg."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parseaddr

from packageurl import PackageURL

from publisher.proof.inspect.tree import Tree
from publisher.proof.inventory import licenses
from publisher.proof.inventory.component import Component, System

STATUS = "/var/lib/dpkg/status"
_PARTS = "/var/lib/dpkg/status.d"
_INFO = "/var/lib/dpkg/info"
_ABSENT = ("config-files", "not-installed")
"""The states, of those in dpkg(1), in which a package's own files are not there."""

_FIELDS = frozenset(
    {
        *("Package", "Version", "Status", "Source", "Architecture", "Maintainer", "Homepage"),
        *("Files", "Format", "License"),
    }
)


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields that are asked for here, by name; what follows on further lines is
    left out."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            if name in _FIELDS:
                fields[name] = value.strip()
    if fields:
        yield fields


def components(tree: Tree, system: System) -> Iterator[Component]:
    sources = [STATUS] if tree.exists(STATUS) else []
    # distroless images: one file a package, besides their lists of files
    sources += [f"{_PARTS}/{n}" for n in tree.names(_PARTS) if not n.endswith(".md5sums")]
    for source in sources:
        for fields in stanzas(tree.text(source)):
            state = fields.get("Status", "install ok installed").split()
            if "Package" in fields and state and state[-1] not in _ABSENT:
                yield _component(tree, system, fields, source)


def _component(tree: Tree, system: System, fields: dict[str, str], path: str) -> Component:
    name, version = fields["Package"], fields.get("Version", "")
    source, _, source_version = fields.get("Source", "").partition(" ")
    upstream = source and f"{source}@{source_version.strip('()')}".rstrip("@")
    qualifiers = {
        "arch": fields.get("Architecture", ""),
        "distro": system.distro,
        "upstream": upstream,
    }
    return Component(
        "deb",
        name,
        version,
        PackageURL("deb", system.id or "debian", name, version, qualifiers).to_string(),
        tuple(_licenses(tree, name)),
        parseaddr(fields.get("Maintainer", ""))[0],
        fields.get("Homepage", ""),
        (path,),
    )


def _licenses(tree: Tree, package: str) -> list[str]:
    """Of a copyright file that machines can read.
    https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"""
    text = tree.read(f"/usr/share/doc/{package}/copyright", 256 * 1024).decode(errors="replace")
    if not text.lstrip().startswith(("Format:", "Format-Specification:")):
        return []
    found: dict[str, None] = {}
    for fields in stanzas(text):
        if "Files" in fields or "Format" in fields:
            found.update(dict.fromkeys(licenses.parts(fields.get("License", ""))))
    return sorted(found)


def owned(tree: Tree) -> Iterator[str]:
    """The paths that dpkg's packages brought."""
    for name in tree.names(_INFO):
        if name.endswith(".list"):
            yield from tree.text(f"{_INFO}/{name}").splitlines()
