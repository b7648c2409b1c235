"""`publish lint`: what is wrong with a disk, without booting it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Archs, Debug, Json, Set, State, Variants, state_directory


def command(
    disk: Annotated[
        Path | None, typer.Argument(help="A disk file in any format.", metavar="[DISK]")
    ] = None,
    clouds: Annotated[
        str, typer.Option("--for", help="Only for these clouds, by comma.", metavar="NAMES")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", help="Accept what this rule finds; repeatable.", metavar="RULE"),
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(help="Write a SARIF report, too.", metavar="FILE")
    ] = None,
    explain: Annotated[
        str, typer.Option(help="Print why a rule is there, and its fix.", metavar="RULE")
    ] = "",
    rules: Annotated[bool, typer.Option("--rules", help="List all rules.")] = False,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Compare with what FILE claims of the disk.", metavar="FILE"),
    ] = None,
    settings: Set = None,
    variants: Variants = None,
    archs: Archs = None,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Look through a disk for what keeps it from running in a cloud.

    Exit code 6 for errors, with --strict for warnings; notes never fail.
    """
    from publisher.cli import linting

    if rules or explain:
        linting.explain(explain, clouds=clouds, json=json)
        return
    linting.run(
        disk,
        clouds=clouds,
        strict=strict,
        ignore=ignore or [],
        sarif=sarif,
        pipeline=pipeline,
        settings=settings or [],
        variants=variants or [],
        archs=archs or [],
        state=state_directory(state),
        json=json,
    )
