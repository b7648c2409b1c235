"""`publish secrets`: look through a disk for what must not leave with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Debug, Json, State, state_directory


def command(
    disk: Annotated[Path, typer.Argument(help="A disk file, in any format.", metavar="DISK")],
    public: Annotated[
        bool, typer.Option("--public", help="Refuse on any, as a public release does.")
    ] = False,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Look for secrets in all bytes of a disk, erased ones included."""
    from publisher.cli import searching

    searching.run(disk, public=public, state=state_directory(state), json=json)
