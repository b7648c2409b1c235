"""Timestamps as Google writes them."""

from __future__ import annotations

import datetime


def stamp() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(text: str) -> float:
    """Seconds since a timestamp."""
    then = datetime.datetime.fromisoformat(text)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
