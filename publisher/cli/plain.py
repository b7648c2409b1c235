"""Renders events as plain lines: logs, pipes, dumb terminals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

from publisher import events
from publisher.cli.progress import Board, StepState, result_lines, retry_text, was_cancelled
from publisher.cli.text import (
    clean,
    encodable,
    show_amount,
    show_bytes,
    show_clock,
    show_seconds,
)
from publisher.model import Severity

INTERVAL = 10.0
"""Seconds between two progress lines of one step."""


def progress_text(state: StepState, now: float) -> str:
    """12 %, 250 MiB of 2.1 GiB, 48 MiB/s, 0:39 left."""
    parts = [f"{state.done * 100 // state.total:3} %"] if state.total else []
    parts.append(show_amount(state.done, state.total, state.unit))
    speed = state.rate.per_second(now)
    if speed and state.unit == "bytes":
        parts.append(f"{show_bytes(speed)}/s")
    left = state.remaining(now)
    if left is not None and left >= 1:
        parts.append(f"{show_clock(left)} left")
    return ", ".join(parts)


def describe(event: events.Event) -> str:
    """What a log says about an event, or "" where it says nothing."""
    match event:
        case events.StepReused():
            return f"reused: {clean(event.reason)}"
        case events.StepPhase():
            return clean(event.phase)
        case events.StepOutput():
            return f"| {clean(event.line)}"
        case events.StepRetry():
            return retry_text(event)
        case events.StepFinished():
            done = f"✓ done in {show_seconds(event.seconds)}"
            return f"{done}: {clean(event.summary)}" if event.summary else done
        case events.StepFailed() if was_cancelled(event):
            return f"✗ cancelled after {show_seconds(event.seconds)}"
        case events.StepFailed():
            first = clean(event.error.partition("\n")[0])
            return f"✗ failed after {show_seconds(event.seconds)}: {first}"
        case events.StepFinding():
            finding = event.finding
            fix = f" ({clean(finding.fix)})" if finding.fix else ""
            return f"{finding.severity}: {clean(finding.evidence)}{fix} [{finding.rule}]"
    return ""


class Plain:
    """A sink that writes progress to `log` and the result to `out`."""

    def __init__(
        self, out: TextIO, log: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board(clock)
        self._last_progress: dict[str, float] = {}
        self._phases: dict[str, str] = {}
        self._width = 0

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            self._board.apply(event)
            match event:
                case events.RunStarted():
                    self._width = max((len(step) for step, _ in event.steps), default=0)
                    self._print(f"{event.title}: run {event.run}")
                case events.RunFinished():
                    for line in result_lines(self._board.title, event, show_seconds(event.seconds)):
                        self._print(line, self._out)
                case events.Note():
                    if event.level != "debug":
                        self._print(f"{event.level}: {clean(event.text)}")
                case events.StepProgress():
                    self._progress(event)
                case events.StepFinding() if event.finding.severity is Severity.NOTE:
                    pass
                case events.StepPhase() if self._phases.get(event.step) == event.phase:
                    pass
                case _:
                    if isinstance(event, events.StepPhase):
                        self._phases[event.step] = event.phase
                    text = describe(event)
                    if text:
                        self._step(event.step, text)

    def close(self) -> None:
        """Nothing is left to write."""

    def _progress(self, event: events.StepProgress) -> None:
        now = self._clock()
        last = self._last_progress.setdefault(event.step, now)
        if now - last < INTERVAL:
            return
        self._last_progress[event.step] = now
        self._step(event.step, progress_text(self._board.state(event.step, event.lane), now))

    def _step(self, step: str, text: str) -> None:
        clock = show_clock(self._board.elapsed())
        self._print(f"[{clock:>5}] {step:<{self._width}}  {text}")

    def _print(self, line: str, stream: TextIO | None = None) -> None:
        stream = stream or self._log
        stream.write(encodable(line, stream.encoding) + "\n")
        stream.flush()
