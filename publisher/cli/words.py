"""What the words of a command line mean before typer sees them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from publisher.errors import UsageError


def insert_run(args: list[str], commands: Sequence[str]) -> list[str]:
    """`FILE …` and `--option … FILE` as `run …`. Raises UsageError for a first
    word that is neither a command nor looks like a file."""
    if not args or args[0] in commands:
        return args
    first = args[0]
    if first.startswith("-"):
        own = first in ("-h", "--help", "--version")
        return args if own or not any(_is_file(word) for word in args) else ["run", *args]
    if _is_file(first):
        return ["run", *args]
    raise UsageError(f"there is no command or file {first!r}", hint=suggestion(first, commands))


def _is_file(word: str) -> bool:
    return word.endswith(".toml") or os.sep in word or os.path.exists(word)


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint towards the nearest known word."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known are: {', '.join(known)}"


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated option. Raises UsageError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {what} {name!r}", hint=suggestion(name, known))
    return names
