"""The user's terminal, for `--on-error=shell`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from publisher.build.rescue import ACTIONS, OnError
from publisher.cli.screen import Screen
from publisher.cli.text import encodable
from publisher.cli.words import suggestion
from publisher.errors import UsageError

_POLL = 0.2


def check(action: str, *, json: bool) -> None:
    """Raise UsageError for an action that does not exist, or a shell without a terminal."""
    if action not in ACTIONS:
        raise UsageError(f"there is no --on-error={action}", hint=suggestion(action, ACTIONS))
    if action != "shell":
        return
    if json:
        raise UsageError("--on-error=shell needs a terminal, and --json is for programs")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--on-error=shell needs a terminal",
            hint="write --on-error=keep, and open the machine from a terminal later",
        )


def on_error(action: str, screen: Screen) -> OnError:
    """What a checked action is to a build."""
    for known in ACTIONS:
        if known == action:
            return OnError(known, UserTerminal(screen) if known == "shell" else None)
    raise AssertionError(action)


class UserTerminal:
    """Standard input and standard error, which are a terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    @property
    def files(self) -> tuple[int, int]:
        return sys.stdin.fileno(), sys.stderr.fileno()

    def aside(self) -> AbstractContextManager[None]:
        return self._screen.aside()

    def write(self, text: str) -> None:
        sys.stderr.write(encodable(text, sys.stderr.encoding))
        sys.stderr.flush()

    def ask(self, question: str, check: Callable[[], None]) -> str | None:
        self.write(question)
        keyboard = sys.stdin.fileno()
        # not sys.stdin, whose buffer could hold what is meant for the next shell
        while not select.select([keyboard], [], [], _POLL)[0]:
            check()
        said = os.read(keyboard, 4096)
        return said.decode(errors="replace") if said else None
