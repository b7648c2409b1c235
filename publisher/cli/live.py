"""Renders events on a terminal: finished steps scroll by, below them one lane a cloud moves."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from publisher import events
from publisher.cli.lanes import Glyphs, cut, draw
from publisher.cli.plain import describe
from publisher.cli.progress import Board, result_lines, retry_text, was_cancelled
from publisher.cli.text import clean, encodable, show_seconds
from publisher.model import Severity

TAIL = 20
"""Lines of a step's output that are shown when it fails."""

_NOTE_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}


class LiveConsole:
    """A sink that draws on `terminal` and writes the result to `out`."""

    def __init__(
        self,
        out: TextIO,
        terminal: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        console: Console | None = None,
    ) -> None:
        self._out = out
        self._console = console or Console(file=terminal, highlight=False, emoji=False)
        self._glyphs = Glyphs.for_encoding(self._console.encoding)
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board(clock)
        self._tails: dict[str, deque[str]] = {}
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._running = False
        self._width = 0

    def __call__(self, event: events.Event) -> None:
        # rich draws under its own lock and calls _draw, which takes ours: so
        # nothing is printed while ours is held.
        with self._lock:
            self._board.apply(event)
            lines = self._lines(event)
        if isinstance(event, events.RunStarted) and not self._running:
            self._running = True
            self._width = max((len(step) for step, _ in event.steps), default=0)
            self._live.start()
        if isinstance(event, events.RunFinished):
            self.close()
            self._result(event)
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Take the lanes away and give the cursor back."""
        if self._running:
            self._running = False
            self._live.stop()

    def pause(self) -> None:
        """Let go of the terminal."""
        if self._running:
            self._live.stop()

    def resume(self) -> None:
        """Draw again."""
        if self._running:
            self._live.start()

    def _draw(self) -> Text:
        with self._lock:
            width, height = self._console.size
            return draw(self._board, self._clock(), width, height, self._glyphs)

    def _text(self, mark: str, style: str, step: str, *parts: str) -> Text:
        """A line that stays: its mark in colour, the step, what it took, and in dim the rest."""
        encoding = self._console.encoding
        line = Text.assemble((encodable(mark, encoding), style), f" {step:<{self._width}}")
        for number, part in enumerate(parts):
            line.append(f"  {encodable(part, encoding)}", style="dim" if number else "")
        line.rstrip()
        return line

    def _lines(self, event: events.Event) -> list[Text]:
        """What stays on the screen of an event."""
        match event:
            case events.StepOutput():
                tail = self._tails.setdefault(event.step, deque(maxlen=TAIL))
                tail.append(clean(event.line))
            case events.StepRetry():
                text = retry_text(event).removeprefix("↻ ")
                return [self._text("↻", "yellow", event.step, text)]
            case events.StepFinding() if event.finding.severity is not Severity.NOTE:
                style = "red" if event.finding.severity is Severity.ERROR else "yellow"
                return [self._text("•", style, event.step, describe(event))]
            case events.StepFinished():
                self._tails.pop(event.step, None)
                took = f"{show_seconds(event.seconds):>12}"
                done = self._text("✓", "green", event.step, took, clean(event.summary))
                cut(done, self._console.width, self._glyphs)
                return [done]
            case events.StepFailed() if was_cancelled(event):
                return [self._text("✗", "yellow", event.step, describe(event).removeprefix("✗ "))]
            case events.StepFailed():
                shown = describe(event).removeprefix("✗ ")
                tail = self._tails.pop(event.step, deque())
                said = [
                    Text(f"  {encodable('│', self._console.encoding)} {line}", style="dim")
                    for line in tail
                    if line and line not in event.error
                ]
                return [*said, self._text("✗", "bold red", event.step, shown)]
            case events.Note() if event.level != "debug":
                return [Text(clean(event.text), style=_NOTE_STYLES[event.level])]
        return []

    def _result(self, event: events.RunFinished) -> None:
        lines = result_lines(self._board.title, event, show_seconds(event.seconds))
        if not self._out.isatty():
            for line in lines:
                self._out.write(encodable(line, self._out.encoding) + "\n")
            self._out.flush()
            return
        console = Console(file=self._out, highlight=False, emoji=False)
        mark = "✓ " if encodable("✓", self._out.encoding) == "✓" else ""
        headline = Text.assemble("\n", (mark, "bold green"), (lines[0], "bold"))
        console.print(headline, soft_wrap=True)
        for line in lines[1:]:
            style = "dim" if line.startswith("manifest: ") else "cyan"
            console.print(Text(line, style=style), soft_wrap=True)
