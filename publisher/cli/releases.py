"""What list and show print: the manifests in the state directory."""

from __future__ import annotations

import json as jsons
from pathlib import Path

from publisher.cli.tables import write, write_table
from publisher.cli.text import show_bytes, show_seconds
from publisher.cli.words import suggestion
from publisher.errors import UsageError
from publisher.manifest import Manifest, manifest_path, manifests


def list_all(state: Path, *, json: bool) -> None:
    """All releases, the newest first."""
    found = manifests(state)
    if json:
        print(jsons.dumps([manifest.to_json() for manifest in found], indent=2))  # noqa: T201
        return
    if not found:
        write(f"no releases in {state}")
        return
    write_table(
        ("name", "version", "created", "size", "images"),
        [(m.name, m.version, m.created, show_bytes(m.size), " ".join(_clouds(m))) for m in found],
    )


def _clouds(manifest: Manifest) -> list[str]:
    regions: dict[str, int] = {}
    for image in manifest.images:
        regions[image.provider] = regions.get(image.provider, 0) + 1
    return [name if count == 1 else f"{name}×{count}" for name, count in regions.items()]


def find(release: str, state: Path) -> Manifest:
    """The manifest of NAME@VERSION, or the newest of NAME. Raises UsageError."""
    name, _, version = release.partition("@")
    known = manifests(state)
    for manifest in known:
        if manifest.name == name and version in ("", manifest.version):
            return manifest
    names = [f"{m.name}@{m.version}" if version else m.name for m in known]
    raise UsageError(
        f"there is no release {release!r}",
        hint=suggestion(release, dict.fromkeys(names)) if names else f"{state} holds no releases",
    )


def show(release: str, state: Path, *, json: bool) -> None:
    """One release in full."""
    manifest = find(release, state)
    if json:
        print(jsons.dumps(manifest.to_json(), indent=2))  # noqa: T201
        return
    write(f"{manifest.name} {manifest.version}", "bold")
    for image in manifest.images:
        write(image.reference, "cyan")
    write()
    facts = [
        ("created", manifest.created),
        ("run", manifest.run),
        ("arch", f"{manifest.arch}, {manifest.firmware}"),
        ("size", f"{show_bytes(manifest.size)}, {show_bytes(manifest.data)} of data"),
        ("sha256", manifest.digest),
        *(("audience", f"{name}: {kind}") for name, kind in manifest.audience.items()),
        *(("tool", f"{name} {version}") for name, version in manifest.tools.items()),
        *(("failed", step) for step in manifest.failed),
        ("manifest", str(manifest_path(state, manifest.name, manifest.version))),
    ]
    for name, value in facts:
        write(f"{name:<9} {value}")
    if manifest.timings:
        write()
        write_table(
            ("step", "time", ""),
            [
                (t.step, show_seconds(t.seconds), "reused" if t.reused else "")
                for t in manifest.timings
            ],
        )
