"""What build does: the build part of a pipeline, without any cloud."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from publisher.cli import tables, terminal
from publisher.cli.actions import sandbox_defaults
from publisher.cli.screen import screen
from publisher.cli.signals import cancelling
from publisher.cli.text import show_bytes
from publisher.events import DiskBuilt
from publisher.pipeline import load, validate


def run(
    file: Path,
    *,
    settings: Sequence[str],
    variants: Sequence[str],
    archs: Sequence[str],
    builds: int,
    on_error: str,
    verify: bool,
    state: Path,
    json: bool,
    plain: bool,
) -> None:
    import publisher.plan
    import publisher.run
    from publisher import digests
    from publisher.executors.slots import check_builds

    terminal.check(on_error, json=json)
    state.mkdir(parents=True, exist_ok=True)
    digests.keep(state)
    # a variable that only a cloud's options need may be missing: no cloud is asked
    pipeline = load(file, settings=settings, environ=os.environ, defaults=sandbox_defaults)
    pipeline = pipeline.choose(variants, archs)
    validate(pipeline)
    check_builds(builds, interactive=on_error == "shell")
    drawn = publisher.plan.builds(publisher.plan.plan(pipeline))
    with cancelling() as cancellation, screen(json=json, plain=plain) as sink:
        made = publisher.run.build(
            drawn,
            state=state,
            sink=sink,
            cancellation=cancellation,
            on_error=terminal.on_error(on_error, sink),
            builds=builds,
        )
        if verify:
            from publisher import repeat  # and with it all that reads disks

            repeat.verify(
                drawn,
                made,
                state=state,
                sink=sink,
                cancellation=cancellation,
                builds=builds,
            )
    if not json:
        for disk in made:
            if len(made) > 1:
                tables.write(disk.step.removesuffix(".build"), "bold")
            _write(disk)
        if verify:
            tables.write("built twice: the same bits")


def _write(disk: DiskBuilt) -> None:
    tables.write(disk.path)
    tables.write(f"sha256 {disk.sha256}")
    tables.write(f"size {disk.size} ({show_bytes(disk.size)}, {show_bytes(disk.data)} of data)")
    for step in disk.by_hand:
        tables.write(f"open to changes by hand before {step}")
