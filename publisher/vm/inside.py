"""Runs as a program inside a private network namespace: sets it up, opens its
sockets for the program outside, and ends with it.

A socket belongs to the namespace in which it was made, whoever uses it: so the
servers run outside, and nothing of them has to be brought in here. Only the
standard library, by path, so that it starts in milliseconds.
"""

from __future__ import annotations

import array
import ipaddress
import json
import os
import socket
import subprocess
import sys
from typing import Any

MESSAGE = 1 << 16
_IPV6_FREEBIND = 78
"""linux/in6.h; the socket module does not have it."""


def _run(*argv: str, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{argv[0]}: {done.stderr.strip() or done.returncode}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def _listen(address: str, port: int) -> socket.socket:
    server = socket.socket(_family(address), socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if server.family == socket.AF_INET6:
        # the kernel takes a new address for its own a moment after `ip` is done
        server.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    server.bind((address, port))
    server.listen(64)
    return server


def _set_up(wanted: dict[str, Any]) -> list[socket.socket]:
    """No route leads out: only what stands on `lo` can be reached."""
    lines = ["link set lo up"]
    for address in wanted["addresses"]:
        bits = ipaddress.ip_address(address).max_prefixlen
        lines.append(f"address add {address}/{bits} dev lo")
    _run(wanted["ip"], "-batch", "-", stdin="\n".join(lines) + "\n")
    resolver = os.path.realpath("/etc/resolv.conf")
    _run(wanted["mount"], "--bind", wanted["resolv"], resolver)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("", 53))  # clouds' name servers have addresses of theirs
    return [names, *(_listen(address, port) for address, port in wanted["listen"])]


def _say(outside: socket.socket, sockets: list[socket.socket], **message: object) -> None:
    handles = array.array("i", [s.fileno() for s in sockets])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)] if sockets else []
    outside.sendmsg([json.dumps(message).encode()], rights)
    for opened in sockets:
        opened.close()


def main(number: int) -> None:
    """Serve requests on the socket of that number until the other end closes."""
    outside = socket.socket(fileno=number)
    while data := outside.recv(MESSAGE):
        wanted = json.loads(data)
        try:
            if "connect" in wanted:
                address = ("127.0.0.1", wanted["connect"])
                _say(outside, [socket.create_connection(address, 5)])
            else:
                _say(outside, _set_up(wanted))
        except OSError as error:
            _say(outside, [], error=str(error))


if __name__ == "__main__":
    main(int(sys.argv[1]))
