"""Draws the lanes of a run for a given width and height."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from publisher.cli.progress import Board, Lane, StepState
from publisher.cli.text import encodable, show_amount, show_bytes, show_clock, show_seconds

_FIRST, _LAST = ("source", "build"), ("release",)
_LEAST_BAR, _MOST_BAR = 8, 40


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of a terminal: UTF-8, or ASCII where that is all there is."""

    done: str = "✓"
    failed: str = "✗"
    waiting: str = "·"
    output: str = "│"
    full: str = "━"
    half: str = "╸"
    empty: str = "─"
    cut: str = "…"
    spinner: str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
    encoding: str = "utf-8"

    @classmethod
    def for_encoding(cls, encoding: str) -> Glyphs:
        if encoding.lower().replace("-", "").startswith("utf"):
            return cls()
        return cls("+", "x", ".", "|", "#", "#", "-", ">", "|/-\\", encoding)


def draw(board: Board, now: float, width: int, height: int, glyphs: Glyphs) -> Text:
    """All lanes, each on a line, below it a line of detail where there is room."""
    lanes = _ordered(board.lanes.values())
    name_width = max((cell_len(lane.name) for lane in lanes), default=0)
    step_width = max((len(lane.label(s)) for lane in lanes for s in lane.steps), default=0)
    rows: list[Text] = [_header(board, width)]
    spare = height - 2 - len(lanes)
    if spare > len(lanes):
        rows.insert(0, Text())
    details = spare - len(rows) + 1
    for lane in lanes:
        rows.append(_lane(lane, now, width, name_width, min(step_width, 18), glyphs))
        detail = _detail(lane, glyphs)
        if detail is not None and details > 0:
            details -= 1
            rows.append(detail)
    for row in rows:
        cut(row, width, glyphs)
    return Text("\n").join(rows[: max(height - 1, 1)])


def _ordered(lanes: Iterable[Lane]) -> list[Lane]:
    def place(lane: Lane) -> int:
        kind = lane.name.rpartition(".")[2]
        return 0 if kind in _FIRST else 2 if kind in _LAST else 1

    return sorted(lanes, key=place)


def cut(row: Text, width: int, glyphs: Glyphs) -> None:
    """Shorten a line to a width, with a sign that something is missing."""
    if row.cell_len > width:
        row.truncate(width - 1)
        row.append(glyphs.cut, style="dim")


def _header(board: Board, width: int) -> Text:
    clock = show_clock(board.elapsed())
    title = Text(board.title, style="bold", no_wrap=True)
    title.truncate(max(width - len(clock) - 2, 1))
    title.append(" " * max(width - title.cell_len - len(clock), 1))
    return title.append(clock, style="dim")


def _lane(
    lane: Lane, now: float, width: int, name_width: int, step_width: int, glyphs: Glyphs
) -> Text:
    mark, style = _mark(lane, now, glyphs)
    row = Text(f" {mark} ", style=style, no_wrap=True)
    row.append(f"{lane.name:<{name_width}}", style="bold")
    if width >= 40:
        row.append(f"  {len(lane.ended)}/{len(lane.steps)}", style="dim")
    state = _current(lane)
    row.append("  ")
    if state is None:
        return row.append(_rest(lane), style="dim" if not lane.failed else "red")
    label = lane.label(state.id)
    if len(lane.running) > 1:
        label += f" +{len(lane.running) - 1}"
    if label != lane.name:
        row.append(f"{label:<{step_width}}  ")
    room = width - row.cell_len
    if state.total:
        return row.append_text(_measured(state, now, room, glyphs))
    clock = show_clock(now - state.started)
    words = state.phase or "running"
    if state.done:
        words += f", {show_amount(state.done, 0, state.unit)}"
    text = Text(encodable(words, glyphs.encoding))
    if text.cell_len > room - len(clock) - 2:
        text.truncate(max(room - len(clock) - 3, 1))
        text.append(glyphs.cut)
    row.append_text(text)
    row.append(" " * max(width - row.cell_len - len(clock), 1))
    return row.append(clock, style="dim")


def _mark(lane: Lane, now: float, glyphs: Glyphs) -> tuple[str, str]:
    if lane.running:
        return glyphs.spinner[int(now * 8) % len(glyphs.spinner)], "cyan"
    if lane.failed:
        return glyphs.failed, "bold red"
    if lane.steps and len(lane.ended) >= len(lane.steps):
        return glyphs.done, "green"
    return glyphs.waiting, "dim"


def _current(lane: Lane) -> StepState | None:
    """The step to show of those that run: the one that measures itself, else the newest."""
    newest_first = list(lane.running.values())[::-1]
    measured = [state for state in newest_first if state.total]
    return next(iter(measured or newest_first), None)


def _rest(lane: Lane) -> str:
    if lane.failed:
        return f"{lane.label(lane.failed)} failed"
    if len(lane.ended) < len(lane.steps):
        return "waiting"
    if lane.reused >= set(lane.steps):
        return "reused"
    return f"done in {show_seconds(lane.seconds)}"


def _measured(state: StepState, now: float, room: int, glyphs: Glyphs) -> Text:
    """A bar and numbers; what does not fit is left out, the least important first."""
    speed = state.rate.per_second(now)
    left = state.remaining(now)
    percent = f"{min(state.done * 100 // state.total, 100):3} %"
    amount = f"{show_amount(state.done, state.total, state.unit):>18}"
    rate = f"{show_bytes(speed)}/s" if speed and state.unit == "bytes" else ""
    remaining = f"{show_clock(left)} left" if left is not None else ""
    choices = (
        [percent, amount, f"{rate:>10}", f"{remaining:>12}"],
        [percent, f"{rate:>10}", f"{remaining:>12}"],
        [percent, f"{remaining:>12}"],
        [percent],
    )
    for parts in choices:
        numbers = "  ".join(parts)
        bar = room - len(numbers) - 2
        if bar >= _LEAST_BAR:
            row = _bar(state.done / state.total, min(bar, _MOST_BAR), glyphs)
            row.append(" " * (room - min(bar, _MOST_BAR) - len(numbers)))
            return row.append(numbers)
    return Text(percent.strip())


def _bar(share: float, width: int, glyphs: Glyphs) -> Text:
    halves = int(min(max(share, 0.0), 1.0) * width * 2)
    full, half = divmod(halves, 2)
    bar = Text(glyphs.full * full + glyphs.half * half, style="green")
    return bar.append(glyphs.empty * (width - full - half), style="dim")


def _detail(lane: Lane, glyphs: Glyphs) -> Text | None:
    """The line below a lane: a retry, what was printed last, or the phase of a bar."""
    state = _current(lane)
    if state is None:
        return None
    if state.trouble:
        return Text(f"   {encodable(state.trouble, glyphs.encoding)}", style="yellow", no_wrap=True)
    if state.line:
        words = f"{glyphs.output} {state.line}"
    elif state.total and state.phase:
        words = state.phase
    else:
        return None
    return Text(f"   {encodable(words, glyphs.encoding)}", style="dim", no_wrap=True)
