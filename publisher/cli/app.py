"""The commands and their options. Imports nothing that is slow; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli import attest, export, inventory, lab, lint, rehearse, secrets
from publisher.cli.help import Command, Group
from publisher.cli.options import (
    Archs,
    Builds,
    Debug,
    File,
    Json,
    OnError,
    Only,
    Plain,
    Sandbox,
    Set,
    State,
    Variants,
    Version,
    state_directory,
)

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


@app.callback()
def publish(_version: Version = False) -> None:
    """Build a VM image and publish it to AWS, Google Cloud and Azure.

    `publish FILE` is short for `publish run FILE`.
    """


@app.command(cls=Command)
def run(
    file: File,
    settings: Set = None,
    only: Only = "",
    variants: Variants = None,
    archs: Archs = None,
    builds: Builds = 1,
    sandbox: Sandbox = False,
    state: State = None,
    on_error: OnError = "cleanup",
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Build and publish; continue where the last run stopped."""
    from publisher.cli import actions

    actions.run(
        file,
        settings=settings or [],
        only=only,
        variants=variants or [],
        archs=archs or [],
        builds=builds,
        sandbox=sandbox,
        on_error=on_error,
        state=state_directory(state),
        json=json,
        plain=plain,
    )


@app.command(cls=Command)
def build(
    file: File,
    settings: Set = None,
    variants: Variants = None,
    archs: Archs = None,
    builds: Builds = 1,
    verify: Annotated[
        bool, typer.Option("--verify", help="Build twice; say what differs.")
    ] = False,
    on_error: OnError = "cleanup",
    state: State = None,
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Build the disk alone; print its path, digest and size."""
    from publisher.cli import building

    building.run(
        file,
        settings=settings or [],
        variants=variants or [],
        archs=archs or [],
        builds=builds,
        verify=verify,
        on_error=on_error,
        state=state_directory(state),
        json=json,
        plain=plain,
    )


@app.command(cls=Command)
def plan(
    file: File,
    settings: Set = None,
    only: Only = "",
    variants: Variants = None,
    archs: Archs = None,
    sandbox: Sandbox = False,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show what a run would do and why; touch nothing."""
    from publisher.cli import actions

    actions.plan(
        file,
        settings=settings or [],
        only=only,
        variants=variants or [],
        archs=archs or [],
        sandbox=sandbox,
        state=state_directory(state),
        json=json,
    )


@app.command(cls=Command)
def migrate(
    source: Annotated[str, typer.Argument(help="PROVIDER:IMAGE, or file:DISK.", metavar="SOURCE")],
    targets: Annotated[
        list[str], typer.Argument(help="PROVIDER:PLACE, or PROVIDER.", metavar="TARGET...")
    ],
    name: Annotated[str, typer.Option(help="Name of the new images.", metavar="NAME")] = "",
    version: Annotated[
        str, typer.Option(help="Version of the new images.", metavar="VERSION")
    ] = "",
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
    """Bring an image of one cloud, or a disk file, to other clouds."""
    from publisher.cli import actions

    actions.migrate(
        source,
        targets,
        name=name,
        version=version,
        pipeline=pipeline,
        settings=settings or [],
        sandbox=sandbox,
        state=state_directory(state),
        json=json,
        plain=plain,
    )


app.command("export", cls=Command)(export.command)
app.command("rehearse", cls=Command)(rehearse.command)
app.command("secrets", cls=Command)(secrets.command)
app.command("lint", cls=Command)(lint.command)
app.command("inventory", cls=Command)(inventory.command)
app.add_typer(attest.app, name="attest")


@app.command("list", cls=Command)
def list_(
    variants: Variants = None,
    archs: Archs = None,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """List the releases that were made from here."""
    from publisher.cli import releases

    releases.list_all(state_directory(state), variants=variants or [], archs=archs or [], json=json)


@app.command(cls=Command)
def show(
    release: Annotated[
        str, typer.Argument(help="The newest, or one version.", metavar="NAME[@VERSION]")
    ],
    variants: Variants = None,
    archs: Archs = None,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show one release: images, digests, tools, timings."""
    from publisher.cli import releases

    releases.show(
        release,
        state_directory(state),
        variants=variants or [],
        archs=archs or [],
        json=json,
    )


@app.command(cls=Command)
def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="Check the clouds of this pipeline.", metavar="[FILE]")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Install missing Debian packages.")] = False,
    settings: Set = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Check host tools, the accelerator and credentials."""
    from publisher.cli import doctor as checkup

    checkup.run(file, settings=settings or [], fix=fix, json=json)


@app.command(cls=Command)
def sandbox(
    only: Only = "",
    port: Annotated[
        list[str] | None,
        typer.Option("--port", help="Fix a port; repeatable.", metavar="NAME=PORT"),
    ] = None,
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Run local stand-ins of the clouds; print their environment."""
    from publisher.cli import stand_ins

    stand_ins.serve(only=only, ports=port or [], state=state_directory(state))


@app.command(cls=Command)
def cache(
    action: Annotated[str, typer.Argument(help="ls, rm or prune.", metavar="ACTION")],
    keys: Annotated[
        list[str] | None, typer.Argument(help="What to remove, for rm.", metavar="[KEY]...")
    ] = None,
    limit: Annotated[str, typer.Option(help="Keep at most this, for prune.", metavar="SIZE")] = "",
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """List or remove what builds keep: checkpoints, downloads."""
    from publisher.cli import caches

    caches.run(action, keys or [], limit=limit, state=state_directory(state), json=json)


app.add_typer(lab.app, name="lab")


@app.command(cls=Command)
def schema(_debug: Debug = False) -> None:
    """Print the JSON Schema of a pipeline file, for editors."""
    from publisher.cli import actions

    actions.schema()
