"""A TPM 2.0 for one guest, by swtpm; its state goes with its directory.

https://www.qemu.org/docs/master/specs/tpm.html
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from publisher.vm import process


@contextlib.contextmanager
def emulated(directory: Path) -> Iterator[int]:
    """The number of a socket for `Board.tpm`. Raises HostError without swtpm. To be
    entered in a thread that lives as long as the guest."""
    directory.mkdir(mode=0o700)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            swtpm = process.spawn(
                [
                    *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}"),
                    *("--ctrl", f"type=unixio,clientfd={theirs.fileno()}"),
                    *("--flags", "not-need-init,startup-clear"),
                ],
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        try:
            yield ours.fileno()
        finally:
            process.kill(swtpm)
