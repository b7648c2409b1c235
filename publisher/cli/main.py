"""The program `publish`: parses, runs, and turns every error into an exit code."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
from collections.abc import Sequence
from functools import cache

import typer.main
from typer.core import TyperGroup
from typer.exceptions import TyperException

from publisher.cli import failure
from publisher.cli.app import app
from publisher.errors import Cancelled, PublishError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit."""
    status = run(sys.argv[1:] if arguments is None else arguments)
    gc.freeze()  # the interpreter would look for garbage before it lets go of all: 80 ms
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    _never_fail_to_print()
    debug, json = "--debug" in arguments, "--json" in arguments
    try:
        code = group().main(list(arguments), prog_name="publish", standalone_mode=False)
        sys.stdout.flush()
    except PublishError as error:
        return failure.report(error, debug=debug, json=json)
    except TyperException as error:
        return _usage(error, debug=debug, json=json)
    except KeyboardInterrupt:
        return failure.report(Cancelled(), debug=debug, json=json)
    except BrokenPipeError:
        # Nobody reads the output any more; the interpreter must not flush again.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.close()
        return 1
    except Exception as error:
        return failure.report(error, debug=debug, json=json)
    return code if isinstance(code, int) else 0


@cache
def group() -> TyperGroup:
    """The program's commands, made once: each call's state is in a context of its own."""
    made = typer.main.get_command(app)
    assert isinstance(made, TyperGroup)
    return made


def _usage(error: TyperException, *, debug: bool, json: bool) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "publish"
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help() if context is not None else str(error))
        return 2
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return failure.report(failure.usage(message, command), debug=debug, json=json)


def _never_fail_to_print() -> None:
    """Streams that cannot show a character write a question mark instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
