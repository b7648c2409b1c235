"""`publish rehearse`: boot a disk as on each cloud, here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Debug, Json, Plain, Set, State, state_directory


def command(
    disk: Annotated[
        str,
        typer.Argument(
            help="A disk file in any format, or NAME[@VERSION] of a release.", metavar="DISK"
        ),
    ],
    clouds: Annotated[
        str, typer.Option("--as", help="Only as on these clouds, by comma.", metavar="NAMES")
    ] = "",
    firmware: Annotated[
        str,
        typer.Option(
            help="What a disk file boots by: bios, uefi, bios+uefi; else what it can.",
            metavar="KIND",
        ),
    ] = "",
    arch: Annotated[
        str,
        typer.Option(
            help="What a disk file is for: x86_64, aarch64; else what it has.", metavar="ARCH"
        ),
    ] = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the console logs of passed boots, too.")
    ] = False,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            help="Take [rehearse] and the options of [targets.*] from FILE; else a release's own.",
            metavar="FILE",
        ),
    ] = None,
    settings: Set = None,
    state: State = None,
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Boot a disk as a machine of each cloud, without any cloud."""
    from publisher.cli import rehearsing

    rehearsing.run(
        disk,
        clouds=clouds,
        firmware=firmware,
        arch=arch,
        keep=keep,
        pipeline=pipeline,
        settings=settings or [],
        state=state_directory(state),
        json=json,
        plain=plain,
    )
