"""Which inputs decide each point of a build: the keys of its checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from publisher.build.answers import used
from publisher.build.checkpoints import Level, chain
from publisher.errors import BuildError
from publisher.model import Spec
from publisher.recipe import Recipe, fingerprint, step_files
from publisher.vm.accelerator import Accelerator, cpus
from publisher.vm.arch import platform_of
from publisher.vm.host import require

_CPU = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features"),
)
FORMAT = 4
"""Changes when machines of older checkpoints are of no use any more."""
INSTALLED = 2
"""The same for what installers left."""


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
        "CPU": _cpu() if accelerator.kind == "kvm" else "",
        "format": FORMAT,
    }
    parts: list[tuple[str, Mapping[str, Any]]] = [("boot", base)]
    for number, step in enumerate(whole["steps"]):
        given = {name: value for name, value in step.items() if name != "name"}
        changed = {"files": _below(files, f"build.steps[{number}]")}
        parts.append((recipe.steps[number].title(), {**given, **changed}))
    # what JSON can't tell apart must not differ between a new level and a stored one
    return chain([(title, json.loads(json.dumps(inputs))) for title, inputs in parts])


def installation(
    recipe: Recipe, spec: Spec, state: Mapping[str, str], directory: Path
) -> Level | None:
    """What an installer leaves on the disk; None for the other sources. Neither the
    steps nor, unless the answer files ask for them, name and version decide it."""
    source = recipe.source.installer
    if source is None:
        return None
    whole = fingerprint(recipe, directory)
    given = dict(whole["source"]["installer"])
    for name in ("timeout", "user"):
        del given[name]
    named = {"name": spec.name, "version": spec.version}
    asked = used(source, directory)
    platform = platform_of(spec.arch)
    inputs: dict[str, Any] = {
        **{f"source.installer.{name}": value for name, value in given.items()},
        "source files": _below(whole.get("files", {}), "build.source"),
        "archive": dict(state),
        "values": {name: value for name, value in named.items() if name in asked},
        "size": recipe.size,
        "booted by": "BIOS" if platform.bios and "bios" in recipe.firmware else "UEFI",
        "arch": spec.arch,
        "QEMU": _version(platform.qemu),
        "format": INSTALLED,
    }
    (level,) = chain([("installation", json.loads(json.dumps(inputs)))])
    return level


def _below(files: Mapping[str, str], key: str) -> dict[str, str]:
    return {
        name: digest
        for name, digest in files.items()
        if name == key or name.startswith((f"{key}.", f"{key}["))
    }


def check_planned(path: Sequence[Level], files: Mapping[str, str] | None) -> None:
    """Raise BuildError when a file is not what it was when the build was planned: the
    disk would be recorded under the key of another one."""
    for number, level in enumerate(path if files is not None else ()):
        for name, digest in level.inputs["files" if number else "source files"].items():
            if files is not None and files.get(name) != digest:
                raise BuildError(
                    f"a file of {level.title} changed since the run began",
                    key=name.partition(":")[0],
                    hint="run the same command again",
                )


def check_files(recipe: Recipe, number: int, directory: Path, level: Level) -> None:
    """Raise BuildError when the files of a step are not those of its level any more:
    nobody knows which ones it has read."""
    if step_files(recipe.steps[number], number, directory) != level.inputs["files"]:
        raise BuildError(
            f"files of {level.title} changed while it ran",
            key=f"build.steps[{number}]",
            hint="run the same command again",
        )


def _cpu() -> str:
    """What a machine saw of the host's processor under KVM: its kernel adapted to it."""
    with contextlib.suppress(OSError):
        first, *_ = Path("/proc/cpuinfo").read_text().partition("\n\n")
        lines = [line for line in first.splitlines() if line.partition(":")[0].strip() in _CPU]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return ""


def _version(qemu: str) -> str:
    asked = subprocess.run(
        [require(qemu), "--version"], capture_output=True, text=True, check=False
    )
    return asked.stdout.partition("\n")[0]
