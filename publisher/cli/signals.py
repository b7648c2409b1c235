"""SIGINT and SIGTERM cancel a run; a second one, or five seconds, end the process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from publisher.errors import Cancelled
from publisher.task import Cancellation

GRACE = 4.8
"""Seconds that a run has to stop by itself."""


def _leave(reason: str) -> None:
    """End at once. The journal survives this as it survives kill -9."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # rich hides the cursor
        os.write(sys.stderr.fileno(), f"publish: {reason}\n".encode())
    os._exit(Cancelled.exit_code)


@contextlib.contextmanager
def cancelling() -> Iterator[Cancellation]:
    """A cancellation that the signals set. Afterwards they do what they did before."""
    cancellation = Cancellation()
    watchdog = threading.Timer(
        GRACE, _leave, ["stopped hard after 5 s; run the same command again to continue"]
    )
    watchdog.daemon = True

    asked: list[int] = []

    def cancel(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            _leave("stopped at once; run the same command again to continue")
        watchdog.start()
        # not in this thread, which may hold the very lock that the event needs
        threading.Thread(target=cancellation.cancel, daemon=True).start()

    before = {name: signal.signal(name, cancel) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancellation
    finally:
        watchdog.cancel()
        for name, handler in before.items():
            signal.signal(name, handler)
