"""The live console: what moves, what stays, and what is left out on small terminals."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from rich.text import Text

from publisher import events
from publisher.cli.lanes import Glyphs, draw
from publisher.cli.live import LiveConsole
from publisher.cli.progress import Board
from publisher.model import GIB
from tests.unit.cli_fakes import STORY


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def board() -> Board:
    """A build that is done, one cloud at 50 %, one that tries again, one that waits."""
    clock = Clock()
    board = Board(clock)
    lanes = (("a.upload", "a"), ("b.upload", "b"), ("build", "build"), ("barrier", "release"))
    board.apply(events.RunStarted("r", "web 1.2.0", (*lanes, ("a.copy", "a"))))
    board.apply(events.StepStarted("build", "build"))
    board.apply(events.StepFinished("build", "build", 61.0))
    for lane in "ab":
        board.apply(events.StepStarted(f"{lane}.upload", lane))
        board.apply(events.StepPhase(f"{lane}.upload", lane, "sending blocks"))
    board.apply(events.StepProgress("a.upload", "a", 0, 2 * GIB))
    clock.now = 8.0
    board.apply(events.StepProgress("a.upload", "a", GIB, 2 * GIB))
    board.apply(events.StepRetry("b.upload", "b", "503 busy", 2, 1.5))
    clock.now = 16.0
    return board


def rows(board: Board, width: int, height: int = 24, glyphs: Glyphs | None = None) -> list[str]:
    drawn = draw(board, 16.0, width, height, glyphs or Glyphs(spinner="⠋")).plain.splitlines()
    assert max(len(row) for row in drawn) <= width
    assert len(drawn) < max(height, 2)
    return drawn


def test_a_wide_terminal_shows_everything(board: Board) -> None:
    shown = rows(board, 100)
    assert shown[0] == ""
    assert shown[1] == "web 1.2.0" + " " * 87 + "0:16"
    assert shown[2] == " ✓ build    1/1  done in 1 min 01 s"
    lane = shown[3]
    assert lane.startswith(" ⠋ a        0/2  upload   ━━━━━━━━━━╸────")
    assert lane.endswith(" 50 %      1.0 of 2.0 GiB    64 MiB/s     0:16 left")
    assert shown[4] == "   sending blocks"
    assert shown[5].startswith(" ⠋ b        0/1  upload   sending blocks ")
    assert shown[5].endswith(" 0:16")
    assert shown[6] == "   ↻ attempt 2 failed, next in 1.5 s: 503 busy"
    assert shown[7] == " · release  0/1  waiting"


def test_the_build_stands_above_the_clouds_and_the_release_below(board: Board) -> None:
    assert [row[3:10].strip() for row in rows(board, 100, height=6)[1:]] == [
        "build",
        "a",
        "b",
        "release",
    ]


@pytest.mark.parametrize("width", [20, 30, 45, 60, 72, 80, 200])
def test_no_width_breaks_a_line(board: Board, width: int) -> None:
    assert any("50 %" in row for row in rows(board, width)) or width < 30


def test_a_narrow_terminal_leaves_out_the_least_important_first(board: Board) -> None:
    middle = next(row for row in rows(board, 70) if row.startswith(" ⠋ a"))
    assert "GiB" not in middle
    assert "━" in middle
    assert middle.endswith("50 %    64 MiB/s     0:16 left")
    small = next(row for row in rows(board, 44) if row.startswith(" ⠋ a"))
    assert small.endswith("50 %")
    assert "left" not in small


def test_a_low_terminal_leaves_out_the_details(board: Board) -> None:
    assert not any("sending blocks" in row and row.startswith("   ") for row in rows(board, 90, 6))
    assert len(rows(board, 90, 3)) == 2


def test_an_ascii_terminal_gets_ascii(board: Board) -> None:
    glyphs = Glyphs.for_encoding("ascii")
    text = "\n".join(rows(board, 100, glyphs=glyphs))
    assert text.isascii()
    assert "####" in text
    assert " retry attempt 2 failed" in text


def test_a_step_that_counts_no_bytes_has_no_rate(board: Board) -> None:
    board.apply(events.StepProgress("b.upload", "b", 3, 7, "items"))
    row = next(row for row in rows(board, 100) if row.startswith(" ⠋ b"))
    assert "3 of 7" in row
    assert "/s" not in row


def test_the_bar_goes_when_its_bytes_are_done_and_the_next_phase_comes(board: Board) -> None:
    board.apply(events.StepProgress("a.upload", "a", 2 * GIB, 2 * GIB))
    board.apply(events.StepPhase("a.upload", "a", "waiting for the snapshot"))
    row = next(row for row in rows(board, 100) if row.startswith(" ⠋ a"))
    assert "waiting for the snapshot" in row
    assert "━" not in row


def test_the_last_line_of_the_build_is_shown_clean(board: Board) -> None:
    board.apply(events.StepOutput("a.copy", "a", "\x1b[32mSetting up\x1b[0m nginx"))
    board.apply(events.StepFinished("a.upload", "a", 1.0))
    assert "   │ Setting up nginx" in rows(board, 100)


def test_ended_lanes_say_how(board: Board) -> None:
    board.apply(events.StepFailed("a.upload", "a", 2.0, "refused"))
    board.apply(events.StepReused("b.upload", "b", "done"))
    shown = rows(board, 100)
    assert " ✗ a        1/2  upload failed" in shown
    assert " ✓ b        1/1  reused" in shown


# -- on a terminal


class Screen:
    def __init__(self, encoding: str = "utf-8") -> None:
        self.raw = io.BytesIO()
        self.stream = io.TextIOWrapper(self.raw, encoding=encoding, errors="replace")
        self.out = io.StringIO()
        self.console = Console(
            file=self.stream, force_terminal=True, width=80, height=24, color_system="standard"
        )
        self.live = LiveConsole(self.out, self.stream, console=self.console)

    def text(self) -> str:
        self.stream.flush()
        return self.raw.getvalue().decode(self.stream.encoding)


def test_finished_steps_stay_and_the_cursor_comes_back() -> None:
    screen = Screen()
    for event in STORY[:-1]:
        screen.live(event)
    deadline = time.monotonic() + 2
    while "nimbus" not in screen.text() and time.monotonic() < deadline:
        time.sleep(0.01)
    screen.live(STORY[-1])
    screen.live.close()
    text = screen.text()
    assert "nimbus.upload    1 min 01 s" in Text.from_ansi(text).plain
    assert "snap-1" in text
    assert "attempt 1 failed, next in 2.5 s: 503 busy" in text
    assert "the disk is nearly full" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert screen.out.getvalue().splitlines()[1:3] == [
        "nimbus:north/img-1",
        "cirrus:demo/web-1-2-0",
    ]


def test_a_failed_step_shows_what_it_printed_last() -> None:
    screen = Screen()
    screen.live(events.StepOutput("build", "build", "E: Unable to locate package nginxx"))
    screen.live(events.StepOutput("build", "build", "exit status 100"))
    screen.live(events.StepFailed("build", "build", 3.0, "step 1 failed: exit status 100"))
    text = screen.text()
    assert "│ E: Unable to locate package nginxx" in text
    assert text.count("exit status 100") == 1


def test_what_a_step_made_is_cut_to_the_width() -> None:
    screen = Screen()
    screen.live(events.StepFinished("a.upload", "a", 1.0, "x" * 200))
    (line,) = Text.from_ansi(screen.text()).plain.splitlines()
    assert len(line) == 80
    assert line.endswith("x…")


def test_a_live_console_on_an_ascii_terminal_prints_ascii() -> None:
    screen = Screen("ascii")
    for event in STORY:
        screen.live(event)
    assert "?" not in screen.text().replace("\x1b[?25", "").replace("\x1b[?2026", "")


def test_a_terminal_gets_the_result_in_colour_and_a_pipe_does_not() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    console = Console(file=io.StringIO(), force_terminal=True)
    for stream, mark in ((Terminal(), "✓ web 1.2.0"), (io.StringIO(), "web 1.2.0")):
        live = LiveConsole(stream, stream, console=console)
        live(STORY[0])
        live(STORY[-1])
        lines = Text.from_ansi(stream.getvalue()).plain.splitlines()
        assert f"{mark}: published in 6 min 12 s" in lines
        assert "nimbus:north/img-1" in lines
        assert ("\x1b[" in stream.getvalue()) is stream.isatty()
