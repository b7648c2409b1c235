"""Chooses how events are shown, and keeps a broken pipe from breaking a run."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Protocol, TextIO, runtime_checkable

from publisher import events
from publisher.cli.github import in_actions


class Renderer(Protocol):
    """Shows events; called from several threads."""

    def __call__(self, event: events.Event) -> None: ...

    def close(self) -> None:
        """The run is over, well or not; may be called twice."""


@runtime_checkable
class Drawing(Protocol):
    """A renderer that holds a part of the terminal."""

    def pause(self) -> None:
        """Let go of the terminal."""

    def resume(self) -> None:
        """Draw again."""


class Screen:
    """A sink for the length of a run. When nobody reads any more, the run goes on
    without a word: it matters more than its log."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._heard = True
        self._lock = threading.Lock()
        self._waiting: list[events.Event] | None = None

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if self._waiting is not None:
                self._waiting.append(event)
                return
        self._show(event)

    def _show(self, event: events.Event) -> None:
        if self._heard:
            try:
                self._renderer(event)
            except OSError:
                self._heard = False

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to the user: what happens meanwhile is shown afterwards."""
        with self._lock:
            self._waiting = []
        if isinstance(self._renderer, Drawing):
            self._renderer.pause()
        try:
            yield
        finally:
            if isinstance(self._renderer, Drawing):
                self._renderer.resume()
            with self._lock:
                missed, self._waiting = self._waiting, None
            for event in missed:
                self._show(event)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._renderer.close()


def choose(
    *, json: bool, plain: bool, out: TextIO, log: TextIO, environ: Mapping[str, str]
) -> Renderer:
    """`out` receives results (and JSON), `log` the progress."""
    if json:
        from publisher.cli.jsonl import JsonLines

        return JsonLines(out)
    if in_actions(environ):
        from publisher.cli.github import Actions

        return Actions(out, environ)
    if plain or not log.isatty() or environ.get("TERM", "dumb") == "dumb":
        from publisher.cli.plain import Plain

        return Plain(out, log)
    from publisher.cli.live import LiveConsole

    return LiveConsole(out, log)


@contextlib.contextmanager
def screen(*, json: bool = False, plain: bool = False) -> Iterator[Screen]:
    """A Screen that is closed at the end."""
    shown = Screen(
        choose(json=json, plain=plain, out=sys.stdout, log=sys.stderr, environ=os.environ)
    )
    try:
        yield shown
    finally:
        shown.close()
