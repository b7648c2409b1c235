"""Tables on stdout: as wide as the terminal, whole lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from publisher.cli.text import clean, encodable

_STYLES = {
    "run": "bold yellow",
    "check": "cyan",
    "reuse": "green",
    "ok": "green",
    "missing": "bold red",
    "warning": "yellow",
}
_LEAST_LAST_COLUMN = 20


def console() -> Console:
    """stdout; a pipe gets lines of any length, and no colour."""
    if sys.stdout.isatty():
        return Console(file=sys.stdout, highlight=False, emoji=False)
    return Console(file=sys.stdout, highlight=False, emoji=False, width=10_000, color_system=None)


def write(line: str = "", style: str = "") -> None:
    """One line that is not cut."""
    screen = console()
    screen.print(Text(encodable(clean(line), screen.encoding), style=style), soft_wrap=True)


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns. Only the last one is wrapped where there is no room."""
    screen = console()
    cells = [[encodable(clean(cell), screen.encoding) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)][:-1]
    start = sum(widths) + 2 * len(widths)
    room = max(screen.width - start, _LEAST_LAST_COLUMN)
    for style, row in [("bold", list(headings)), *(("", row) for row in cells)]:
        line = Text()
        for cell, width in zip(row, widths, strict=False):
            line.append(cell, style=style or _STYLES.get(cell, ""))
            line.append(" " * (width - cell_len(cell) + 2))
        for number, part in enumerate(wrap(row[-1], room) or [""]):
            if number:
                line.append("\n" + " " * start)
            line.append(part, style=style or _STYLES.get(part, ""))
        line.rstrip()
        screen.print(line, soft_wrap=True)


Row: TypeAlias = tuple[str, str, str]


def write_plan(title: str, steps: Sequence[tuple[str, str, str, Sequence[Row]]]) -> None:
    """The steps of a plan with what a run would do, those of a build beneath it, and
    a line that counts."""
    write(title, "bold")
    write()
    rows: list[Row] = []
    for name, action, reason, parts in steps:
        rows.append((name, action, reason))
        rows += [(f"  {short(part)}", done, why) for part, done, why in parts]
    write_table(("step", "action", "reason"), rows)
    write()
    todo = sum(action == "run" for _, action, _, _ in steps)
    reused = sum(action == "reuse" for _, action, _, _ in steps)
    write(f"{todo} to run, {reused} to reuse" if todo else "up to date")


def short(text: str, most: int = 40) -> str:
    """A title that leaves room for the columns behind it."""
    return text if cell_len(text) <= most else text[: most - 1] + "…"
