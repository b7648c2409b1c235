"""`publish inventory`: list the packages of a disk as an SBOM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Debug, State, state_directory


def command(
    disk: Annotated[Path, typer.Argument(help="A disk file, in any format.", metavar="DISK")],
    form: Annotated[
        str, typer.Option("--format", help="cyclonedx (1.6) or spdx (2.3).", metavar="FORMAT")
    ] = "cyclonedx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.", metavar="FILE")
    ] = None,
    state: State = None,
    _debug: Debug = False,
) -> None:
    """List the packages of a disk as CycloneDX or SPDX."""
    from publisher.cli import listing

    listing.run(disk, form, output, state=state_directory(state))
