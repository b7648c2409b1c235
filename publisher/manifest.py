"""The manifest of a release: what was published where, in one JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from publisher.errors import HostError
from publisher.journal import release_directory
from publisher.model import Image, Noun

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Timing(Noun):
    """How long a step took when it last ran; `reused` says that this run did not run it."""

    step: str
    seconds: float
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Flavour(Noun):
    """One image of a release: a variant for an architecture, both told by `label`.

    `digest` is its disk's sha256, `size` its virtual size and `data` its bytes
    outside holes; `evidence` is what the build's checks printed; `by_hand` names
    build steps before which its machine was open to changes by hand, so that it
    can't be built again; `references` are those of its images.

    `source` is where its disk came from, `origin` what that was when it was built: the
    "pipeline" file, the "recipe" with its files' digests, and "materials" (name or URL ▶
    digest) that no recipe states.

    `proofs` is what was found out before the upload: "lint" and "secrets" with their
    "findings", "inventory" with its "documents" (format, path, sha256), "rehearsals"
    by provider (rehearse.verdict.Rehearsal)."""

    name: str
    arch: str
    firmware: str
    digest: str
    size: int
    data: int
    label: str = ""
    variant: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Mapping[str, Any], ...] = ()
    by_hand: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    proofs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        for name in ("evidence", "by_hand", "references"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Manifest(Noun):
    """`created` is a time in UTC as RFC 3339 and in-toto write it, with a Z; `images`
    are those of all flavours, `audience` is by lane; `failed` names optional steps that
    did not succeed."""

    name: str
    version: str
    run: str
    created: str
    flavours: tuple[Flavour, ...]
    images: tuple[Image, ...]
    audience: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    failed: tuple[str, ...] = ()
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        values["images"] = tuple(Image.from_json(image) for image in data["images"])
        values["timings"] = tuple(Timing.from_json(t) for t in data.get("timings", ()))
        values["failed"] = tuple(data.get("failed", ()))
        if "flavours" in data:
            values["flavours"] = tuple(Flavour.from_json(f) for f in data["flavours"])
        else:  # schema 1: one image, told at the top
            references = tuple(dict.fromkeys(image.reference for image in values["images"]))
            values["flavours"] = (Flavour.from_json({**data, "references": references}),)
        return cls(**values)

    def only(self, flavours: Collection[str]) -> Manifest:
        """The manifest of some of its flavours, by label."""
        kept = tuple(f for f in self.flavours if f.label in flavours)
        names = {reference for flavour in kept for reference in flavour.references}
        dropped = [f.label for f in self.flavours if f.label and f.label not in flavours]

        def stays(step: str) -> bool:
            return not any(step.startswith(f"{label}.") for label in dropped)

        return replace(
            self,
            flavours=kept,
            images=tuple(image for image in self.images if image.reference in names),
            audience={lane: kind for lane, kind in self.audience.items() if stays(lane)},
            timings=tuple(t for t in self.timings if stays(t.step)),
            failed=tuple(step for step in self.failed if stays(step)),
        )


def manifest_path(state: Path, name: str, version: str) -> Path:
    return release_directory(state, name, version) / "manifest.json"


def write(manifest: Manifest, path: Path) -> None:
    """Replace the file in one step. Raises HostError where it can't be written."""
    partial = path.with_suffix(".partial")
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise HostError(
            f"everything is published, but {path} could not be written: {error.strerror}",
            hint="free some space, then run the same command again: it only writes the manifest",
        ) from error


def read(path: Path) -> Manifest | None:
    """The manifest in a file, or None where there is none that can be read."""
    try:
        return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def manifests(state: Path) -> Sequence[Manifest]:
    """All releases of this state directory, the newest first."""
    found = [read(path) for path in state.glob("releases/*/*/manifest.json")]
    return sorted((m for m in found if m is not None), key=lambda m: m.created, reverse=True)
