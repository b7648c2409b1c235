"""`publish attest`: sign what was made and proved, and check it against the clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from publisher.cli.help import Command, Group
from publisher.cli.options import Debug, Json, Sandbox, Set, State, state_directory


class AttestGroup(Group):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super(Group, self).parse_args(ctx, args)


app = typer.Typer(
    cls=AttestGroup,
    help="Sign what a release is made of; check it against the clouds.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
Passphrase = Annotated[
    str, typer.Option(help="Variable with the passphrase of the key.", metavar="NAME")
]


@app.command(cls=Command)
def sign(
    release: Annotated[
        str, typer.Argument(help="A manifest.json, or NAME[@VERSION].", metavar="RELEASE")
    ],
    key: Annotated[str, typer.Option(help="PEM file, key in a KMS, or sigstore.", metavar="KEY")],
    passphrase: Passphrase = "PUBLISH_ATTEST_PASSPHRASE",  # noqa: S107 (it names a variable)
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: beside the manifest.", metavar="FILE"),
    ] = None,
    state: State = None,
    _debug: Debug = False,
) -> None:
    """Sign statements about the disks of a release and their images."""
    from publisher.cli import attesting

    attesting.sign(release, key, passphrase, output, state=state_directory(state))


@app.command(cls=Command)
def verify(
    file: Annotated[Path, typer.Argument(help="What sign wrote.", metavar="FILE")],
    key: Annotated[
        str, typer.Option(help="Public key in PEM, key in a KMS, or sigstore.", metavar="KEY")
    ],
    identity: Annotated[
        str, typer.Option(help="Of the signer, with sigstore.", metavar="NAME")
    ] = "",
    issuer: Annotated[
        str, typer.Option(help="Who vouches for it, with sigstore.", metavar="URL")
    ] = "",
    release: Annotated[
        str, typer.Option(help="The release that it must be of.", metavar="NAME@VERSION")
    ] = "",
    digest: Annotated[
        list[str] | None,
        typer.Option(help="A disk that must be in it; repeatable.", metavar="SHA256"),
    ] = None,
    require: Annotated[
        str,
        typer.Option(
            help="Proofs that must have passed, by comma: lint, secrets, inventory, rehearsals.",
            metavar="NAMES",
        ),
    ] = "",
    content: Annotated[bool, typer.Option("--bytes", help="Read every image back, too.")] = False,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Take options from the [targets.*] of FILE.", metavar="FILE"),
    ] = None,
    settings: Set = None,
    sandbox: Sandbox = False,
    state: State = None,
    json: Json = False,
    _debug: Debug = False,
) -> None:
    """Check signatures, and every image in its cloud."""
    from publisher.cli import attesting

    attesting.verify(
        file,
        key,
        identity=identity,
        issuer=issuer,
        release=release,
        digests=digest or [],
        required=require,
        content=content,
        pipeline=pipeline,
        settings=settings or [],
        sandbox=sandbox,
        state=state_directory(state),
        json=json,
    )
