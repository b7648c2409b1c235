"""What a build would resume from a checkpoint and what it would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from publisher.build.builder import MEMORY
from publisher.build.checkpoints import Checkpoints, Level
from publisher.build.levels import installation, levels
from publisher.disks.store import Store
from publisher.model import Spec
from publisher.recipe import Recipe
from publisher.vm import accelerator, host
from publisher.vm.arch import platform_of


def explain(
    recipe: Recipe,
    spec: Spec,
    directory: Path,
    store: Store,
    before: MutableMapping[str, str],
    build: str,
) -> tuple[tuple[str, str, str], ...]:
    """(title, "reuse" or "run", reason) for the installer, the boot and every step.

    Asks nobody: the archive is taken to be as it was for the newest checkpoint.
    `before` has what builds that are done before this one will leave: the keys of
    checkpoints, and the build that makes them; those of this `build` are added.
    Empty where this machine can't build, or nothing would be booted.
    """
    if host.which(platform_of(spec.arch).qemu) is None:
        return ()
    if not recipe.boots:
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
    made = max((n for n, level in enumerate(path) if level.key in before), default=-1)
    if made > resumed:
        resumed = made
        reasons = [*("" for _ in path[: made + 1]), *("not built yet" for _ in path[made + 1 :])]
        where = f"resumed from here, which {before[path[made].key]} makes"
    else:
        where = "resumed from here"
    for level in path:
        before.setdefault(level.key, build)
    first = installation(recipe, spec, archive, directory)
    rows = _installer(first, resumed, kept, spec.name, before, build) if first else ()
    return rows + tuple(
        (title, "reuse", "in the checkpoint" if index < resumed else where)
        if index <= resumed
        else (title, "run", reason or "what comes before is done again")
        for index, (title, reason) in enumerate(zip(titles, reasons, strict=True))
    )


def _installer(
    level: Level,
    resumed: int,
    kept: Checkpoints,
    name: str,
    before: MutableMapping[str, str],
    build: str,
) -> tuple[tuple[str, str, str], ...]:
    """The row for what an installer leaves, given the level that is `resumed`."""
    maker = before.setdefault(level.key, build)
    if resumed >= 0:
        return ((level.title, "reuse", "in the checkpoint"),)
    if kept.get(level.key) is not None:
        return ((level.title, "reuse", "installed before"),)
    if maker != build:
        return ((level.title, "reuse", f"{maker} makes it"),)
    earlier = next((c for c in kept.all() if c.name == name and not c.running), None)
    changed = ", ".join(earlier.path_of()[-1].changes(level)) if earlier else ""
    return ((level.title, "run", f"changed: {changed}" if changed else "not installed yet"),)
