"""Child processes that end with this program: streamed output, cancellation, no orphans."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from publisher.task import Task
from publisher.vm.host import require

POLL = 0.2
"""Seconds between two looks at the cancellation while a child is silent."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a child ended: exit status (negative: a signal), its last output lines,
    and whether a time limit ended it."""

    status: int
    tail: tuple[str, ...]
    late: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.tail)


def command(argv: Sequence[str]) -> list[str]:
    """The same command, killed by the kernel when the thread that starts it ends,
    so also when this program is killed (prctl(2), PR_SET_PDEATHSIG). A parent
    that died before the kernel knew is noticed by its number."""
    guard = 'if [ "$PPID" = "$0" ]; then exec "$@"; fi'
    bound = [require("setpriv"), "--pdeathsig", "KILL", "--", "/bin/sh", "-c", guard]
    return [*bound, str(os.getpid()), require(argv[0]), *argv[1:]]


def spawn(
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, away from the terminal's signals."""
    return subprocess.Popen(
        command(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child of `spawn` with its process group, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


def _feed(pipe: IO[bytes], chunks: Iterable[bytes], failures: list[BaseException]) -> None:
    try:
        for chunk in chunks:
            pipe.write(chunk)
    except BrokenPipeError:
        pass  # the child ended early; its status tells why
    except BaseException as error:  # raised again by `run`, in its own thread
        failures.append(error)
    finally:
        with contextlib.suppress(OSError):
            pipe.close()


def _read(pipe: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    for line in pipe:
        lines.put(line.decode(errors="replace").rstrip("\r\n"))
    lines.put(None)


def run(
    argv: Sequence[str],
    task: Task,
    *,
    on_line: Callable[[str], None] | None = None,
    stdin: Iterable[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep: int = 200,
    check: Callable[[], None] | None = None,
) -> Completed:
    """Run a child to its end; `on_line` gets each line of stdout and stderr.

    `stdin` is fed from a thread. Cancelling the task kills the child's process
    group and raises Cancelled; so does whatever `check`, called all the while,
    raises. Keeps the last `keep` lines.
    """
    check = check or task.check
    process = spawn(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
    )
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    failures: list[BaseException] = []
    threads = [threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)]
    if stdin is not None:
        assert process.stdin is not None
        threads.append(
            threading.Thread(target=_feed, args=(process.stdin, stdin, failures), daemon=True)
        )
    for thread in threads:
        thread.start()
    tail: deque[str] = deque(maxlen=keep)
    patience = 10
    try:
        while patience:
            check()
            try:
                line = lines.get(timeout=POLL)
            except queue.Empty:
                # a daemon that the child left behind may hold the pipe open
                patience -= process.poll() is not None
                continue
            if line is None:
                break
            tail.append(line)
            if on_line is not None:
                on_line(line)
        while process.poll() is None:
            check()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    finally:
        kill(process)
        for thread in threads:
            thread.join(2)
        if not threads[0].is_alive():
            process.stdout.close()
    if failures:
        raise failures[0]
    return Completed(process.returncode, tuple(tail))
