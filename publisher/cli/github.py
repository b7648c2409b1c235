"""Renders events for the log of GitHub Actions: groups, annotations, the step summary.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TextIO

from publisher import events
from publisher.cli.plain import INTERVAL, describe, progress_text
from publisher.cli.progress import Board, result_lines, was_cancelled
from publisher.cli.text import clean, encodable, show_seconds
from publisher.model import Image, Severity

ANNOTATED: set[str] = set()
"""Errors that a failed step has announced, so that the end does not repeat them."""

AnnotationKind = Literal["error", "warning", "notice"]


def in_actions(environ: Mapping[str, str]) -> bool:
    """Whether this is a job of GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def annotation(kind: AnnotationKind, message: str, title: str = "") -> str:
    """The workflow command for an annotation, on one line."""
    properties = f" title={_property(title)}" if title else ""
    return f"::{kind}{properties}::{_data(message)}"


def inert(line: str) -> str:
    """A foreign line that the runner does not take for a command, in the old
    form (`##[name]` anywhere) or the new one (`::name::` in front)."""
    line = line.replace("##[", "# #[")
    return f"| {line}" if line.lstrip().startswith("::") else line


class Actions:
    """A sink that keeps parallel steps apart.

    Groups cannot nest, so one running step at a time has the floor and its
    lines come at once; the others wait in memory until it ends.
    """

    def __init__(
        self,
        out: TextIO,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._summary = environ.get("GITHUB_STEP_SUMMARY", "")
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board(clock)
        self._floor = ""
        self._waiting: dict[str, list[str]] = {}
        self._ended: dict[str, list[str]] = {}
        self._results: dict[str, tuple[str, str]] = {}
        self._last_progress: dict[str, float] = {}
        self._headline = ""
        self._images: tuple[Image, ...] = ()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            self._board.apply(event)
            match event:
                case events.RunStarted():
                    self._headline = f"{event.title}: not finished"
                    self._print(f"{event.title}: run {event.run}")
                case events.RunFinished():
                    self._finish(event)
                case events.Note():
                    self._note(event)
                case events.StepReused():
                    self._results[event.step] = ("reused", "")
                case events.StepStarted():
                    self._waiting[event.step] = []
                    self._give_floor()
                case events.StepProgress():
                    self._progress(event)
                case _:
                    self._line(event.step, describe(event))
            match event:
                case events.StepFinding() if event.finding.severity is not Severity.NOTE:
                    kind: AnnotationKind = (
                        "error" if event.finding.severity is Severity.ERROR else "warning"
                    )
                    fix = f"\n{event.finding.fix}" if event.finding.fix else ""
                    self._print(annotation(kind, clean(event.finding.evidence) + fix, event.step))
                case events.StepFinished():
                    self._end(event.step, "✓", show_seconds(event.seconds))
                case events.StepFailed():
                    self._end(event.step, "✗", show_seconds(event.seconds))
                    ANNOTATED.add(event.error)
                    hint = f"\n{event.hint}" if event.hint else ""
                    if not was_cancelled(event):
                        self._print(annotation("error", event.error + hint, event.step))
                case _:
                    pass

    def close(self) -> None:
        """End open groups and write the summary, also after a failure."""
        with self._lock:
            for step in list(self._waiting):
                self._end(step, "✗", "stopped")
            if self._headline:
                self._write_summary()

    def _note(self, event: events.Note) -> None:
        match event.level:
            case "error" | "warning":
                self._print(annotation(event.level, clean(event.text)))
            case "info":
                self._print(inert(clean(event.text)))

    def _progress(self, event: events.StepProgress) -> None:
        now = self._clock()
        if now - self._last_progress.setdefault(event.step, now) >= INTERVAL:
            self._last_progress[event.step] = now
            state = self._board.state(event.step, event.lane)
            self._line(event.step, progress_text(state, now))

    def _line(self, step: str, text: str) -> None:
        if not text:
            return
        if step == self._floor or step not in self._waiting:
            self._print(inert(text))
        else:
            self._waiting[step].append(inert(text))

    def _give_floor(self) -> None:
        if self._floor or not self._waiting:
            return
        self._floor = next(iter(self._waiting))
        self._print(f"::group::{_data(self._floor)}")
        for line in self._waiting[self._floor]:
            self._print(line)
        self._waiting[self._floor] = []

    def _end(self, step: str, mark: str, time_taken: str) -> None:
        self._results[step] = (mark, time_taken)
        lines = self._waiting.pop(step, [])
        if step != self._floor:
            self._ended[f"{mark} {step} ({time_taken})"] = lines
            if self._floor:
                return
        else:
            self._print("::endgroup::")
            self._floor = ""
        for title, buffered in self._ended.items():
            self._print(f"::group::{_data(title)}")
            for line in buffered:
                self._print(line)
            self._print("::endgroup::")
        self._ended.clear()
        self._give_floor()

    def _finish(self, event: events.RunFinished) -> None:
        headline, *rest = result_lines(self._board.title, event, show_seconds(event.seconds))
        self._headline = headline
        self._images = event.images
        for line in (headline, *rest):
            self._print(inert(line))

    def _write_summary(self) -> None:
        if not self._summary:
            return
        lines = [f"### {_cell(self._headline)}", ""]
        if self._images:
            several = len({image.name for image in self._images}) > 1
            headings = [*(["Name"] if several else []), "Cloud", "Region", "Image"]
            lines += [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
            for image in self._images:
                cells = [*([image.name] if several else []), image.provider, image.region]
                lines.append(f"| {' | '.join(map(_cell, cells))} | `{_cell(image.reference)}` |")
            lines.append("")
        if self._results:
            lines += ["| Step | Result | Time |", "|---|---|---|"]
            lines += [f"| {_cell(s)} | {r} | {t} |" for s, (r, t) in self._results.items()]
            lines.append("")
        try:
            with Path(self._summary).open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        except OSError as error:
            self._print(annotation("warning", f"cannot write the step summary: {error.strerror}"))
        self._headline = ""

    def _print(self, line: str) -> None:
        self._out.write(encodable(line, self._out.encoding) + "\n")
        self._out.flush()


def _cell(text: str) -> str:
    return clean(text).replace("|", "\\|").replace("<", "&lt;")
