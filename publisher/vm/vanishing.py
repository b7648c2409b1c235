"""A directory that goes away with its user, also when that is killed."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from publisher.vm import locks

# the second round is for files of programs that were killed at the same moment
_KEEPER = 'read -r _; rm -rf -- "$0"; sleep 1; rm -rf -- "$0"; exec rm -f -- "$1"'


@contextlib.contextmanager
def vanishing(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty directory, private to the user, in `parent`. A shell outside of our
    session waits until we close our end of a pipe, which the kernel does in any case;
    when the shell was killed, too, the next one of that prefix removes it."""
    parent.mkdir(parents=True, exist_ok=True)
    locks.sweep(parent, prefix)
    directory = parent / f"{prefix}{secrets.token_hex(4)}"
    lock = locks.take(directory)
    try:
        directory.mkdir(mode=0o700)
        with _keeper(directory):
            yield directory
    finally:
        locks.drop(directory, lock)


@contextlib.contextmanager
def _keeper(directory: Path) -> Iterator[None]:
    """Removes the directory at the end, whichever way that comes."""
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, str(directory), str(locks.lock_file(directory))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    try:
        yield
    finally:
        locks.remove(directory)
        # gone already, so the shell has nothing to wait for
        keeper.kill()
        keeper.wait()
        keeper.stdin.close()
