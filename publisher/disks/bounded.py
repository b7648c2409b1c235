"""qemu's tools on files that somebody else has made: bounded in memory, time and what
they say, and ended with this program."""

from __future__ import annotations

import selectors
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from publisher.errors import HostError
from publisher.model import GIB, MIB

_MEMORY = 2 * GIB
"""Of addresses: a qcow2 of 64 TiB is checked with 300 MB."""
_PROCESSOR, _SECONDS = 120, 600
"""What looking at a file may take; a conversion may take what it needs."""
_SAID_MOST = MIB
# a limit that can't be set is one that is lower already
_GUARD = 'ulimit -v "$0" 2>/dev/null; ulimit -t "$1" 2>/dev/null; shift; exec "$@"'


def command(*argv: str, seconds: int | None = None) -> list[str]:
    """The same command with bounds for memory and, if given, processor time."""
    time_limit = "unlimited" if seconds is None else str(seconds)
    return ["/bin/sh", "-c", _GUARD, str(_MEMORY // 1024), time_limit, *argv]


@dataclass(frozen=True, slots=True)
class Answer:
    """How it ended (negative: a signal), what it said, and why it was stopped."""

    status: int
    out: str
    err: str
    stopped: str = ""

    @property
    def complaint(self) -> str:
        """One line."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        killed = f"qemu-img was ended by signal {-self.status}" if self.status < 0 else ""
        return self.stopped or next(iter(lines), killed) or "no details"


def qemu_img(*arguments: str, check: Callable[[], None], endless: bool = False) -> Answer:
    """Run qemu-img; `check` is called all the while, and what it raises ends it.

    `endless`: for as long as it takes. Raises HostError where it is missing.
    """
    if shutil.which("qemu-img") is None:
        raise HostError(
            "qemu-img is not installed", hint="publish doctor --fix (package qemu-utils)"
        )
    bound = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
    argv = command(*bound, "qemu-img", *arguments, seconds=None if endless else _PROCESSOR)
    deadline = None if endless else time.monotonic() + _SECONDS
    # in a session of its own, where no Ctrl-C meant for this program ends it
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            said, stopped = _listen(process, check, deadline)
        except BaseException:
            process.kill()
            raise
        if stopped:
            process.kill()
    out, err = (text.decode(errors="replace") for text in said)
    return Answer(process.returncode, out, err, stopped)


def _listen(
    process: subprocess.Popen[bytes], check: Callable[[], None], deadline: float | None
) -> tuple[tuple[bytes, bytes], str]:
    """What it says until it ends or has to be stopped, and why that is."""
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    stopped = ""
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ, stream)
        while selector.get_map() and not stopped:
            check()
            for key, _ in selector.select(0.2):
                piece = key.data.read1(65536)
                if not piece:
                    selector.unregister(key.data)
                texts[key.data] += piece
            if any(len(text) > _SAID_MOST for text in texts.values()):
                stopped = f"qemu-img said more than {_SAID_MOST // MIB} MiB about it"
            elif deadline is not None and time.monotonic() > deadline:
                stopped = f"qemu-img took longer than {_SECONDS} s"
    return (bytes(texts[process.stdout]), bytes(texts[process.stderr])), stopped
