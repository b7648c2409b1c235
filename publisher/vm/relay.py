"""Run by QEMU for each connection of a guest: joins it, on standard input and output,
with the Unix socket that is the only argument. Needs nothing but Python itself."""

from __future__ import annotations

import os
import select
import socket
import sys


def connect(path: str) -> socket.socket:
    """Through the directory's descriptor: the path of a socket has at most 107 bytes."""
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        return connection
    finally:
        os.close(directory)


def join(guest: socket.socket, host: socket.socket) -> None:
    """Pass bytes on, both ways, until both have said all."""
    other = {guest: host, host: guest}
    while other:
        for source in select.select(list(other), [], [])[0]:
            target = guest if source is host else host
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
