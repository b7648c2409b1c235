"""Tables on stdout: as wide as the terminal, whole lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table
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
_LINES = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


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
    table = Table(box=_LINES, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, heading in enumerate(headings):
        last = index == len(headings) - 1
        table.add_column(heading, no_wrap=not last, overflow="fold")
    for row in rows:
        cells = [encodable(clean(cell), screen.encoding) for cell in row]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    lines = screen.render_lines(table, pad=False)
    for line in lines:
        text = Text.assemble(*((s.text, s.style or "") for s in line))
        text.rstrip()
        screen.print(text, soft_wrap=True)


def write_plan(title: str, steps: Sequence[tuple[str, str, str]]) -> None:
    """The steps of a plan with what a run would do, and a line that counts."""
    write(title, "bold")
    write()
    write_table(("step", "action", "reason"), steps)
    write()
    todo = sum(action == "run" for _, action, _ in steps)
    reused = sum(action == "reuse" for _, action, _ in steps)
    write(f"{todo} to run, {reused} to reuse" if todo else "up to date")
