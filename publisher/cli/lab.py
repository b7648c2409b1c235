"""`publish lab`: an image in throwaway machines on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from publisher.cli.help import Command, Group
from publisher.cli.options import Debug, Json, Plain, Sandbox, Set, State, state_directory


class LabGroup(Group):
    """`publish lab IMAGE` means `publish lab start IMAGE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = (*self.commands, "-h", "--help")
        given = args if not args or args[0] in known else ["start", *args]
        return super(Group, self).parse_args(ctx, given)


app = typer.Typer(
    cls=LabGroup,
    help="Run an image in throwaway machines; save and restore them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
Machine = Annotated[str, typer.Argument(help="A running machine.", metavar="MACHINE")]


@app.command(cls=Command)
def start(
    image: Annotated[
        str,
        typer.Argument(
            help="A disk file, NAME[@VERSION] of a release, PROVIDER:REFERENCE, or "
            "checkpoint:KEY of a build.",
            metavar="[IMAGE]",
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Of the machine.", metavar="NAME")] = "",
    count: Annotated[int, typer.Option(help="Machines.", metavar="COUNT", min=1, max=64)] = 1,
    restore: Annotated[
        str, typer.Option(help="Begin at a snapshot instead of booting.", metavar="SNAPSHOT")
    ] = "",
    save: Annotated[
        str, typer.Option(help="Keep the machine at the end.", metavar="SNAPSHOT")
    ] = "",
    execute: Annotated[
        str, typer.Option("--exec", help="Run a command in each, and end.", metavar="COMMAND")
    ] = "",
    console: Annotated[
        bool, typer.Option("--console", help="The serial console; no login by ssh.")
    ] = False,
    user: Annotated[str, typer.Option(help="Who logs in.", metavar="NAME")] = "lab",
    memory: Annotated[int, typer.Option(help="In MiB.", metavar="MIB", min=64)] = 1024,
    firmware: Annotated[
        str, typer.Option(help="bios, uefi or uefi-secure; found out if not given.", metavar="KIND")
    ] = "",
    arch: Annotated[str, typer.Option(help="x86_64 or aarch64.", metavar="ARCH")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Without any network.")] = False,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Take options from the [targets.*] of FILE.", metavar="FILE"),
    ] = None,
    settings: Set = None,
    sandbox: Sandbox = False,
    state: State = None,
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Start machines and log in; they are gone when you leave."""
    from publisher.cli import labs

    labs.start(
        labs.Wanted(
            image=image,
            name=name,
            count=count,
            restore=restore,
            save=save,
            execute=execute,
            console=console,
            user=user,
            memory=memory,
            firmware=firmware,
            arch=arch,
            offline=offline,
            pipeline=pipeline,
            settings=tuple(settings or ()),
            sandbox=sandbox,
        ),
        state=state_directory(state),
        json=json,
        plain=plain,
    )


@app.command("ls", cls=Command)
def show(state: State = None, json: Json = False, _debug: Debug = False) -> None:
    """Show the machines that run, and the snapshots."""
    from publisher.cli import labs

    labs.show(state_directory(state), json=json)


@app.command(cls=Command)
def ssh(
    machine: Machine,
    command: Annotated[
        list[str] | None, typer.Argument(help="Instead of a shell.", metavar="[COMMAND]...")
    ] = None,
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Log in to a running machine."""
    from publisher.cli import labs

    labs.ssh(machine, command or [], state_directory(state))


@app.command(cls=Command)
def console(machine: Machine, state: State = None, _debug: Debug = False) -> None:
    """Show a running machine's serial console; Ctrl-] leaves it."""
    from publisher.cli import labs

    labs.console(machine, state_directory(state))


@app.command(cls=Command)
def save(
    machine: Machine,
    snapshot: Annotated[str, typer.Argument(help="Its new name.", metavar="SNAPSHOT")],
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Keep a running machine, memory included, under a name."""
    from publisher.cli import labs

    labs.tell(machine, "save", snapshot, state_directory(state))


@app.command(cls=Command)
def restore(
    machine: Machine,
    snapshot: Annotated[str, typer.Argument(help="One of its own.", metavar="SNAPSHOT")],
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Put a running machine back to a snapshot, at once."""
    from publisher.cli import labs

    labs.tell(machine, "restore", snapshot, state_directory(state))


@app.command(cls=Command)
def stop(machine: Machine, state: State = None, _debug: Debug = False) -> None:
    """End a running machine."""
    from publisher.cli import labs

    labs.tell(machine, "stop", "", state_directory(state))


@app.command(cls=Command)
def rm(
    snapshots: Annotated[list[str], typer.Argument(help="To remove.", metavar="SNAPSHOT...")],
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Remove snapshots."""
    from publisher.cli import labs

    labs.remove(snapshots, state_directory(state))
