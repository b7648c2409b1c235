"""Run by QEMU (guestfwd) for each connection of a guest: joins it, on standard input
and output, with a port of loopback or a Unix socket, which is the only argument.

Only the standard library, by path, so that it starts in milliseconds.
"""

from __future__ import annotations

import os
import select
import socket
import sys


def connect(where: str) -> socket.socket:
    """A port's number, or the path of a socket."""
    if where.isdigit():
        return socket.create_connection(("127.0.0.1", int(where)))
    # through the directory's descriptor: the path of a socket has at most 107 bytes
    directory = os.open(os.path.dirname(where) or ".", os.O_PATH)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(where)}")
        return connection
    finally:
        os.close(directory)


def join(guest: socket.socket, host: socket.socket) -> None:
    """Pass bytes on, both ways, until both have said all."""
    other = {guest: host, host: guest}
    while other:
        for source in select.select(list(other), [], [])[0]:
            target = other[source]
            try:
                data = source.recv(65536)
                if data:
                    target.sendall(data)
                    continue
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return
            del other[source]


if __name__ == "__main__":
    join(socket.socket(fileno=0), connect(sys.argv[1]))
