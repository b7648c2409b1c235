"""Renders events as JSON, one object a line."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from publisher import events


def write_line(stream: TextIO, data: Mapping[str, Any]) -> None:
    """One object with the time in front, in ASCII, flushed."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    stream.write(json.dumps({"time": now, **data}) + "\n")
    stream.flush()


class JsonLines:
    """A sink for programs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            write_line(self._stream, events.event_to_json(event))

    def close(self) -> None:
        """Nothing is left to write."""
