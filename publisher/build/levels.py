"""Which inputs decide each point of a build: the keys of its checkpoints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher.build.checkpoints import Level, chain
from publisher.model import Spec
from publisher.recipe import Recipe, fingerprint
from publisher.vm.accelerator import Accelerator, cpus
from publisher.vm.arch import platform_of
from publisher.vm.host import require

FORMAT = 1
"""Changes when older checkpoints can't be resumed any more."""


def levels(
    recipe: Recipe,
    spec: Spec,
    installed: Mapping[str, str],
    accelerator: Accelerator,
    memory: int,
    directory: Path,
) -> tuple[Level, ...]:
    """The booted machine, then one level a step.

    `installed` tells the state of the archive that the source was installed
    from; `memory` is the guest's, in MiB."""
    whole = fingerprint(recipe, directory)
    files: Mapping[str, str] = whole.get("files", {})
    (kind, source), *_ = whole["source"].items()
    base: dict[str, Any] = {
        **{f"source.{kind}.{name}": value for name, value in source.items()},
        "source files": _below(files, "build.source"),
        "archive": dict(installed),
        "size": recipe.size,
        "firmware": recipe.firmware,
        "name and version": [spec.name, spec.version],
        "arch": spec.arch,
        "QEMU": _version(platform_of(spec.arch).qemu),
        "machine": [accelerator.kind, list(accelerator.arguments), cpus(), memory],
        "format": FORMAT,
    }
    parts: list[tuple[str, Mapping[str, Any]]] = [("boot", base)]
    for number, step in enumerate(whole["steps"]):
        given = {name: value for name, value in step.items() if name != "name"}
        changed = {"files": _below(files, f"build.steps[{number}]")}
        parts.append((recipe.steps[number].title(), {**given, **changed}))
    # what JSON can't tell apart must not differ between a new level and a stored one
    return chain([(title, json.loads(json.dumps(inputs))) for title, inputs in parts])


def _below(files: Mapping[str, str], key: str) -> dict[str, str]:
    return {
        name: digest
        for name, digest in files.items()
        if name == key or name.startswith((f"{key}.", f"{key}["))
    }


def _version(qemu: str) -> str:
    asked = subprocess.run(
        [require(qemu), "--version"], capture_output=True, text=True, check=False
    )
    return asked.stdout.partition("\n")[0]
