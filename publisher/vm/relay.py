"""Runs as a program between QEMU's guestfwd (standard input and output) and a port of
loopback, or a socket in the file system, until that is closed. Only the standard
library, by path, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

_PIECE = 65536


def connect(where: str) -> socket.socket:
    """`where` is the number of a port, or a path."""
    if where.isdigit():
        return socket.create_connection(("127.0.0.1", int(where)))
    connection = socket.socket(socket.AF_UNIX)
    # a socket's address has at most 107 bytes: it is short from its own directory
    os.chdir(os.path.dirname(where) or ".")
    connection.connect(os.path.basename(where))
    return connection


def main(where: str) -> None:
    with connect(where) as there:
        sources: list[int | socket.socket] = [0, there]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if 0 in ready:
                request = os.read(0, _PIECE)
                if request:
                    there.sendall(request)
                else:
                    sources.remove(0)
                    there.shutdown(socket.SHUT_WR)
            if there in ready:
                answer = memoryview(there.recv(_PIECE))
                if not answer:
                    return
                while answer:
                    answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # either side may leave without a word
        main(sys.argv[1])
