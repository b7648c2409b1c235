"""Numbers and foreign lines as text that is safe to print."""

from __future__ import annotations

import re

from publisher.model import GIB, MIB

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings: titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(line: str) -> str:
    """A line from a guest, a tool or a cloud without what would steer a terminal.

    Of a line that was overwritten with carriage returns, the last state."""
    line = _ESCAPES.sub("", line).rstrip("\r\n")
    return _CONTROL.sub("", line.rpartition("\r")[2].expandtabs(4)).rstrip()


def show_bytes(count: float) -> str:
    """1.2 GiB, 48 MiB, 312 KiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if count >= unit:
            amount = count / unit
            return f"{amount:.1f} {name}" if amount < 10 else f"{amount:.0f} {name}"
    return f"{count:.0f} B"


def show_amount(done: int, total: int, unit: str) -> str:
    """Progress in words: 1.2 of 2.1 GiB, 3 of 7."""
    if unit != "bytes":
        return f"{done} of {total}" if total else f"{done}"
    if not total:
        return show_bytes(done)
    left, right = show_bytes(done), show_bytes(total)
    amount, _, scale = left.partition(" ")
    return f"{amount if scale == right.partition(' ')[2] else left} of {right}"


def show_seconds(seconds: float) -> str:
    """2.1 s, 42 s, 4 min 12 s, 1 h 03 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def show_clock(seconds: float) -> str:
    """0:42, 12:07, 1:02:59."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def encodable(text: str, encoding: str | None) -> str:
    """The text with what the stream cannot show written in ASCII, so that
    printing never fails. A stream without an encoding takes everything."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        for fancy, plain in _PLAIN.items():
            text = text.replace(fancy, plain)
        return text.encode("ascii", "replace").decode()
    return text


_PLAIN = {
    "✓": "ok",
    "✗": "x",
    "↻": "retry",
    "…": "...",
    "▶": ">",
    "·": "-",
    "—": "-",
    "×": "x",
    "│": "|",
    "•": "-",
    "“": '"',
    "”": '"',
    "’": "'",
}
