"""The terminal between the run's display and the user."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from publisher import events
from publisher.build.rescue import OnError
from publisher.cli import terminal
from publisher.cli.screen import Screen
from publisher.cli.terminal import UserTerminal
from publisher.errors import BootError, Cancelled, UsageError
from publisher.task import Cancellation
from publisher.vm.shell import Shell

NOTE = events.Note("info", "hello")


class Renderer:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def __call__(self, event: events.Event) -> None:
        self.seen.append(event)

    def close(self) -> None:
        self.seen.append("closed")

    def pause(self) -> None:
        self.seen.append("paused")

    def resume(self) -> None:
        self.seen.append("resumed")


def test_the_display_steps_aside_and_shows_afterwards_what_it_missed() -> None:
    renderer = Renderer()
    screen = Screen(renderer)
    with screen.aside():
        screen(NOTE)
        assert renderer.seen == ["paused"]
    assert renderer.seen == ["paused", "resumed", NOTE]
    screen(NOTE)
    assert renderer.seen[-1] == NOTE


@pytest.mark.parametrize(
    ("action", "json", "message"),
    [
        ("shel", False, "there is no --on-error=shel"),
        ("shell", True, "--json is for programs"),
        ("shell", False, "needs a terminal"),
    ],
)
def test_a_shell_without_a_terminal_is_refused(
    action: str, json: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError, match=message):
        terminal.check(action, json=json)


def test_only_a_shell_needs_the_terminal() -> None:
    terminal.check("keep", json=True)
    made = terminal.on_error("shell", Screen(Renderer()))
    assert (made.action, type(made.terminal)) == ("shell", UserTerminal)
    assert terminal.on_error("keep", Screen(Renderer())) == OnError("keep")


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The user's end of a terminal whose other end is standard input."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
    os.close(ours)


def test_the_user_is_asked_and_can_be_interrupted(
    keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    user = UserTerminal(Screen(Renderer()))
    os.write(keyboard, b"r\n")
    assert user.ask("What next? ", lambda: None) == "r\n"
    assert capsys.readouterr().err == "What next? "
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        user.ask("What next? ", cancellation.check)


# -- the shell on it


class Guest(Shell):
    """A shell on this computer in place of ssh."""

    def __init__(self, directory: Path, command: str) -> None:
        self._directory, self._here = directory, command
        self._master = cast(Any, type("Master", (), {"poll": lambda _: None}))()
        self._machine = cast(Any, self)
        self.dead = False

    def check(self) -> None:
        if self.dead:
            raise BootError("it powered off", phase="ready")

    def _ssh(self, *options: str) -> list[str]:
        assert "-tt" in options
        return ["sh", "-c", self._here]


def test_the_users_shell_has_the_terminal_and_its_status_counts(
    keyboard: int, tmp_path: Path
) -> None:
    guest = Guest(tmp_path, "test -t 0 && test -t 1 || exit 9; read word; test $word = hello")
    os.write(keyboard, b"hello\n")
    assert guest.interact(sys.stdin.fileno(), sys.stdin.fileno()) == 0
    os.write(keyboard, b"else\n")
    assert guest.interact(sys.stdin.fileno(), sys.stdin.fileno()) == 1


def test_a_guest_that_dies_gives_the_terminal_back(keyboard: int, tmp_path: Path) -> None:
    import termios

    guest = Guest(tmp_path, "stty raw -echo; sleep 60")
    before = termios.tcgetattr(keyboard)

    def die() -> None:
        until = time.monotonic() + 10
        while termios.tcgetattr(keyboard) == before and time.monotonic() < until:
            time.sleep(0.01)
        guest.dead = True

    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(BootError, match="powered off"):
        guest.interact(sys.stdin.fileno(), sys.stdin.fileno())
    thread.join()
    assert termios.tcgetattr(keyboard) == before
