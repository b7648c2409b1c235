"""How programs write a value down: quoted, escaped, encoded."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 8
"""Bytes; anything shorter also stands on a disk by chance."""


def written(value: bytes) -> dict[bytes, str]:
    """Each form ▶ what to say of it; "" for the value as it is."""
    found = {value: ""}
    for title, data in _forms(value):
        if len(data) >= SHORTEST:
            found.setdefault(data, f" ({title})")
    return found


def _forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    text = value.decode("utf-8", "replace")
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= 2 * SHORTEST]
    if len(lines) > 1:
        # as files of keys are indented or cut off; one line in the middle will do
        yield "a line of it", lines[len(lines) // 2]
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    for escaped in (plain, json.dumps(text)[1:-1]):
        yield "in JSON", escaped.encode()
        yield "in JSON", escaped.replace("/", "\\/").encode()
        # as Go writes it
        yield "in JSON", re.sub(r"[&<>]", lambda m: f"\\u{ord(m[0]):04x}", escaped).encode()
    for percent in (quote(value, safe=""), quote(value, safe="/"), quote_plus(value)):
        yield "in a URL", percent.encode()
        yield "in a URL", re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), percent).encode()
    yield "quoted for a shell", text.replace("'", "'\\''").encode()
    yield "quoted for a shell", text.replace("'", "'\"'\"'").encode()
    yield "quoted for a shell", re.sub(r"([\\\"$`])", r"\\\1", text).encode()
    yield "quoted for a shell", re.sub(r"([^\w@%+=:./~#\n-])", r"\\\1", text).encode()
    yield "in XML", html.escape(text, quote=False).encode()
    yield "in XML", html.escape(text).encode()
    yield "in hex", value.hex().encode()
    yield "in hex", value.hex().upper().encode()
    yield "in UTF-16", text.encode("utf-16-le")
    yield "in UTF-16", text.encode("utf-16-be")


def in_base64(value: bytes) -> dict[bytes, str]:
    """The groups that depend on nothing else, for each of the three places where the value
    may begin, in both alphabets; without breaks of lines."""
    found: dict[bytes, str] = {}
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + value)
        first = -(-shift * 4 // 3)
        last = (shift + len(value)) // 3 * 4
        text = whole[first:last]
        if len(text) >= 2 * SHORTEST:
            for data in (text, text.translate(bytes.maketrans(b"+/", b"-_"))):
                found.setdefault(data, " (in base64)")
    return found
