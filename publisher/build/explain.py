"""What a build would resume from a checkpoint and what it would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publisher.build.builder import MEMORY
from publisher.build.checkpoints import Checkpoints
from publisher.build.levels import levels
from publisher.disks.store import Store
from publisher.model import Spec
from publisher.recipe import Recipe
from publisher.vm import accelerator, host
from publisher.vm.arch import platform_of


def explain(
    recipe: Recipe, spec: Spec, directory: Path, store: Store
) -> tuple[tuple[str, str, str], ...]:
    """(title, "reuse" or "run", reason) for the boot and for every step.

    Asks nobody: the archive is taken to be as it was for the newest checkpoint.
    Empty where this machine can't build, or nothing would be booted.
    """
    if host.which(platform_of(spec.arch).qemu) is None:
        return ()
    if recipe.source.debian is None and not recipe.steps:
        return ()
    kept = Checkpoints(store.directory.parent)
    newest = next((c for c in kept.all() if c.name == spec.name), None)
    archive: Mapping[str, str] = newest.levels[0]["inputs"]["archive"] if newest else {}
    chosen = accelerator.probe(spec.arch)
    path = levels(recipe, spec, archive, chosen, MEMORY, directory)
    found = kept.deepest(path)
    resumed = found[0] if found is not None else -1
    titles = ["boot", *(f"step {n}: {level.title}" for n, level in enumerate(path[1:], 1))]
    reasons = kept.why(spec.name, path)
    return tuple(
        (title, "reuse", "in the checkpoint" if index < resumed else "resumed from here")
        if index <= resumed
        else (title, "run", reason or "what comes before is done again")
        for index, (title, reason) in enumerate(zip(titles, reasons, strict=True))
    )
