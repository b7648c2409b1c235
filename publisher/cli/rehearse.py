"""`publish rehearse`: boot a disk as on each cloud, here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Debug, Json, Plain, Set, State, Variants, state_directory


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="A pipeline file, a disk file in any format, or NAME[@VERSION] of a release.",
            metavar="FILE|DISK",
        ),
    ],
    clouds: Annotated[
        str, typer.Option("--as", help="Only as on these clouds, by comma.", metavar="NAMES")
    ] = "",
    variants: Variants = None,
    archs: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            help="Only this architecture, repeatable; of a disk file, what it is for.",
            metavar="ARCH",
        ),
    ] = None,
    firmware: Annotated[
        str,
        typer.Option(
            help="What a disk file boots by: bios, uefi, bios+uefi; else what it can.",
            metavar="KIND",
        ),
    ] = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the console logs of passed boots, too.")
    ] = False,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            help="Of a disk: take [rehearse] and the options of [targets.*] from FILE.",
            metavar="FILE",
        ),
    ] = None,
    settings: Set = None,
    state: State = None,
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Boot a disk as a machine of each cloud, without any cloud.

    That of a pipeline file is built first, where it is not.
    """
    from publisher.cli import rehearsing
    from publisher.cli.subjects import Wanted

    rehearsing.run(
        Wanted(
            source,
            clouds=clouds,
            firmware=firmware,
            variants=variants or (),
            archs=archs or (),
            pipeline=pipeline,
            settings=settings or (),
        ),
        keep=keep,
        state=state_directory(state),
        json=json,
        plain=plain,
    )
