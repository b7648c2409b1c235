"""Chooses how events are shown, and keeps a broken pipe from breaking a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Protocol, TextIO

from publisher import events
from publisher.cli.github import in_actions


class Renderer(Protocol):
    """Shows events; called from several threads."""

    def __call__(self, event: events.Event) -> None: ...

    def close(self) -> None:
        """The run is over, well or not; may be called twice."""


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
def screen(*, json: bool = False, plain: bool = False) -> Iterator[events.Sink]:
    """A sink for the length of a run. When nobody reads any more, it goes on
    without a word: the run matters more than its log."""
    renderer = choose(json=json, plain=plain, out=sys.stdout, log=sys.stderr, environ=os.environ)
    heard = True

    def sink(event: events.Event) -> None:
        nonlocal heard
        if heard:
            try:
                renderer(event)
            except OSError:
                heard = False

    try:
        yield sink
    finally:
        with contextlib.suppress(OSError):
            renderer.close()
