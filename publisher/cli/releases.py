"""What list and show print: the manifests in the state directory."""

from __future__ import annotations

import json as jsons
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from publisher.cli.tables import write, write_table
from publisher.cli.text import show_bytes, show_seconds
from publisher.cli.words import suggestion
from publisher.errors import UsageError
from publisher.journal import read_outcomes, release_directory
from publisher.manifest import Flavour, Manifest, manifest_path, manifests


def list_all(state: Path, *, variants: Sequence[str], archs: Sequence[str], json: bool) -> None:
    """All releases, the newest first; of several images, each."""
    found = _narrow(manifests(state), variants, archs)
    if json:
        print(jsons.dumps([manifest.to_json() for manifest in found], indent=2))  # noqa: T201
        return
    if not found:
        write(f"no releases in {state}")
        return
    write_table(
        ("name", "version", "created", "size", "images"),
        [
            (f.name, m.version, m.created, show_bytes(f.size), " ".join(_clouds(m, f)))
            for m in found
            for f in m.flavours
        ],
    )


def _narrow(
    found: Sequence[Manifest], variants: Sequence[str], archs: Sequence[str]
) -> list[Manifest]:
    """The manifests with only what is asked for, without those that have nothing of it.

    Raises UsageError for what none of them has."""
    flavours = [flavour for manifest in found for flavour in manifest.flavours]
    for what, asked, known in (
        ("variant", variants, {f.variant for f in flavours if f.variant}),
        ("architecture", archs, {f.arch for f in flavours}),
    ):
        for name in asked:
            if name not in known:
                hint = suggestion(name, sorted(known)) if known else "no image here has one"
                raise UsageError(f"there is no {what} {name!r}", hint=hint)
    if not (variants or archs):
        return list(found)
    narrowed = [
        manifest.only(
            {
                flavour.label
                for flavour in manifest.flavours
                if (not variants or flavour.variant in variants)
                and (not archs or flavour.arch in archs)
            }
        )
        for manifest in found
    ]
    return [manifest for manifest in narrowed if manifest.flavours]


def _clouds(manifest: Manifest, flavour: Flavour) -> list[str]:
    regions: dict[str, int] = {}
    for image in manifest.images:
        if image.reference in flavour.references:
            regions[image.provider] = regions.get(image.provider, 0) + 1
    return [name if count == 1 else f"{name}×{count}" for name, count in regions.items()]


def find(release: str, state: Path) -> Manifest:
    """The manifest of NAME@VERSION, or the newest of NAME; NAME may also be that of one
    image of a release, which is then the only one in it. Raises UsageError."""
    name, _, version = release.partition("@")
    known = manifests(state)
    for manifest in known:
        if manifest.name == name and version in ("", manifest.version):
            return manifest
    for manifest in known:
        labels = {flavour.label for flavour in manifest.flavours if flavour.name == name}
        if labels and version in ("", manifest.version):
            return manifest.only(labels)
    names = [f"{m.name}@{m.version}" if version else m.name for m in known]
    raise UsageError(
        f"there is no release {release!r}",
        hint=suggestion(release, dict.fromkeys(names)) if names else f"{state} holds no releases",
    )


def find_image(release: str, state: Path) -> tuple[Manifest, Flavour]:
    """The one image that NAME[@VERSION] names. Raises UsageError where they are several."""
    manifest = find(release, state)
    if len(manifest.flavours) != 1:
        names = ", ".join(flavour.name for flavour in manifest.flavours)
        raise UsageError(
            f"{manifest.name} {manifest.version} has several images", hint=f"name one: {names}"
        )
    return manifest, manifest.flavours[0]


def options_of(manifest: Manifest, flavour: Flavour, state: Path) -> dict[str, dict[str, Any]]:
    """The target options that an image was released with last, by provider; of earlier
    versions of this program's releases nothing is known."""
    from publisher.steps import OPTIONS

    prefix = f"{flavour.label}." if flavour.label else ""
    outcomes = read_outcomes(release_directory(state, manifest.name, manifest.version))
    found = {}
    for outcome in sorted(outcomes.values(), key=lambda outcome: outcome.finished):
        step, _, kind = outcome.step.removesuffix(".optional").rpartition(".")
        if kind == "release" and step.startswith(prefix) and OPTIONS in outcome.value:
            found[step.removeprefix(prefix)] = dict(outcome.value[OPTIONS])
    return found


def show(
    release: str, state: Path, *, variants: Sequence[str], archs: Sequence[str], json: bool
) -> None:
    """One release in full."""
    narrowed = _narrow([find(release, state)], variants, archs)
    if not narrowed:
        raise UsageError("nothing is left of the release", hint="leave out --variant or --arch")
    manifest = narrowed[0]
    if json:
        print(jsons.dumps(manifest.to_json(), indent=2))  # noqa: T201
        return
    write(f"{manifest.name} {manifest.version}", "bold")
    for flavour in manifest.flavours:
        if flavour.label:
            write()
            write(flavour.name, "bold")
        for reference in flavour.references:
            write(reference, "cyan")
        if flavour.label:
            _write_facts(_disk(flavour))
    write()
    facts = [
        ("created", manifest.created),
        ("run", manifest.run),
        *(fact for flavour in manifest.flavours if not flavour.label for fact in _disk(flavour)),
        *(("audience", f"{name}: {kind}") for name, kind in manifest.audience.items()),
        *(("tool", f"{name} {version}") for name, version in manifest.tools.items()),
        *(("failed", step) for step in manifest.failed),
        ("manifest", str(manifest_path(state, manifest.name, manifest.version))),
    ]
    _write_facts(facts)
    if manifest.timings:
        write()
        write_table(
            ("step", "time", ""),
            [
                (t.step, show_seconds(t.seconds), "reused" if t.reused else "")
                for t in manifest.timings
            ],
        )


def _disk(flavour: Flavour) -> list[tuple[str, str]]:
    return [
        ("arch", f"{flavour.arch}, {flavour.firmware}"),
        ("size", f"{show_bytes(flavour.size)}, {show_bytes(flavour.data)} of data"),
        ("sha256", flavour.digest),
    ]


def _write_facts(facts: Sequence[tuple[str, str]]) -> None:
    for name, value in facts:
        write(f"{name:<9} {value}")
