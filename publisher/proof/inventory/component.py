"""The nouns of an inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from publisher.model import Noun


@dataclass(frozen=True, slots=True)
class System(Noun):
    """The operating system, as its os-release says; empty where there is none. `like`
    are the ids of those that it derives from, with spaces between them."""

    id: str = ""
    version: str = ""
    title: str = ""
    codename: str = ""
    like: str = ""

    @property
    def distro(self) -> str:
        """As package URLs name it: debian-12."""
        return "-".join(filter(None, (self.id, self.version or self.codename)))


@dataclass(frozen=True, slots=True)
class Component(Noun):
    """One installed package. `purl` is its package URL and tells it from all others;
    `licenses` are SPDX identifiers where the package's own names are known to be
    such, else those names; `paths` are where it is described on the disk."""

    kind: str
    name: str
    version: str
    purl: str
    licenses: tuple[str, ...] = ()
    supplier: str = ""
    homepage: str = ""
    paths: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        lists = {name: tuple(data.get(name, ())) for name in ("licenses", "paths")}
        return cls(**{**data, **lists})


@dataclass(frozen=True, slots=True)
class Inventory(Noun):
    """`components` are sorted by package URL; `gaps` say what could not be read.
    `written` is when the disk was last written, in seconds since the epoch."""

    digest: str
    size: int
    system: System
    components: tuple[Component, ...]
    gaps: tuple[str, ...] = ()
    written: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
