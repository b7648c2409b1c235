"""The one place that turns an error into words and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from publisher.errors import BootError, PublishError, UsageError

BUG = 70
"""Exit code of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)."""


def exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, PublishError) else BUG


def describe(error: BaseException) -> list[str]:
    """What is printed: where and what, the cause, the next action."""
    if not isinstance(error, PublishError):
        words = str(error).strip().splitlines()
        return [
            f"error: {': '.join([type(error).__name__, *words[:1]])}",
            "  hint: this is a bug in cloud-image-publisher; run with --debug and report it",
        ]
    first, *more = f"{_who(error)}{error}".splitlines() or [""]
    lines = [f"error: {first}", *(f"  {line}" for line in more)]
    if isinstance(error, BootError):
        lines.append(f"  phase: {error.phase}")
        lines += [f"  | {line}" for line in error.console.splitlines()[-15:]]
    cause = _cause(error)
    if cause:
        lines.append(f"  cause: {cause}")
    if error.hint:
        lines += [f"  hint: {line}" for line in error.hint.splitlines()[:1]]
        lines += [f"        {line}" for line in error.hint.splitlines()[1:]]
    return lines


def _who(error: PublishError) -> str:
    """The cloud that an error comes from, where the message does not name it."""
    name = str(getattr(error, "provider", ""))
    return f"{name}: " if name and name not in str(error) else ""


def _cause(error: BaseException) -> str:
    """The first line of what lies behind an error, unless the message says it already."""
    for cause in _chain(error):
        words = str(cause).strip().splitlines()
        if words and words[0] not in str(error):
            return words[0]
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause, seen = error.__cause__, {id(error)}
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def as_json(error: BaseException) -> dict[str, Any]:
    """The last line of --json."""
    return {
        "event": "Error",
        "error": type(error).__name__,
        "key": getattr(error, "key", ""),
        "message": getattr(error, "message", str(error)),
        "hint": getattr(error, "hint", ""),
        "code": getattr(error, "code", ""),
        "exit_code": exit_code(error),
    }


def report(error: BaseException, *, debug: bool, json: bool) -> int:
    """Print an error to stderr (and as JSON to stdout, and as an annotation in
    GitHub Actions); returns the exit code."""
    from publisher.cli.github import ANNOTATED, annotation, in_actions
    from publisher.cli.text import encodable

    if debug:
        traceback.print_exception(error, file=sys.stderr)
    lines = describe(error)
    for line in lines:
        print(encodable(line, sys.stderr.encoding), file=sys.stderr)  # noqa: T201
    if json:
        from publisher.cli.jsonl import write_line

        write_line(sys.stdout, as_json(error))
    elif in_actions(os.environ) and str(error) not in ANNOTATED:
        text = "\n".join([lines[0].removeprefix("error: "), *lines[1:]])
        print(annotation("error", text), flush=True)  # noqa: T201
    return exit_code(error)


def usage(message: str, command: str) -> UsageError:
    """A complaint of the command line parser as one of ours."""
    return UsageError(message[:1].lower() + message[1:].rstrip("."), hint=f"see {command} --help")
