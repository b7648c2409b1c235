"""A directory that goes away with its user, also when that is killed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# the second round is for files of programs that were killed at the same moment
_KEEPER = 'read -r _; rm -rf -- "$0"; sleep 1; exec rm -rf -- "$0"'


@contextlib.contextmanager
def vanishing(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty directory, private to the user, in `parent`. A shell outside of our
    session waits until we close our end of a pipe, which the kernel does in any case."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        # gone already, so the shell has nothing to wait for
        keeper.kill()
        keeper.wait()
        keeper.stdin.close()
