"""The options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from publisher import __version__


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"publish {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
    ),
]
File = Annotated[Path, typer.Argument(help="The pipeline file.", metavar="FILE")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value; repeatable.", metavar="KEY=VALUE"),
]
Only = Annotated[str, typer.Option(help="Only these targets, by comma.", metavar="NAMES")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", help="Only this variant; repeatable.", metavar="NAME"),
]
Archs = Annotated[
    list[str] | None,
    typer.Option("--arch", help="Only this architecture; repeatable.", metavar="ARCH"),
]
Builds = Annotated[
    int,
    typer.Option(
        "--builds", help="Build so many images at once, not one.", metavar="N", show_default=False
    ),
]
Sandbox = Annotated[bool, typer.Option("--sandbox", help="Use local stand-ins of the clouds.")]
State = Annotated[
    Path | None,
    typer.Option(help="State directory [env: PUBLISH_STATE_DIR].", metavar="DIR"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines, no live display.")]
OnError = Annotated[
    str,
    typer.Option(
        "--on-error",
        help="When a build step fails: cleanup, keep or shell.",
        metavar="ACTION",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def state_directory(given: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Where the journal, the disks and the stand-ins are kept."""
    environ = os.environ if environ is None else environ
    chosen = str(given or "") or environ.get("PUBLISH_STATE_DIR", "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and is ignored.
    parent = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return parent / "cloud-image-publisher"
