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
_RESOLVER = "/etc/resolv.conf"
_IPV6_FREEBIND = 78
"""linux/in6.h; the socket module does not have it."""


def _run(*argv: str, stdin: str = "", cwd: str | None = None) -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, cwd=cwd)
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


def _add(ip: str, addresses: list[str]) -> None:
    lines = ["link set lo up"]
    for address in addresses:
        bits = ipaddress.ip_address(address).max_prefixlen
        lines.append(f"address add {address}/{bits} dev lo")
    _run(ip, "-batch", "-", stdin="\n".join(lines) + "\n")


def _resolve(file: str, mount: str) -> None:
    """The file as the namespace's /etc/resolv.conf. Where there is none, or its link
    leads nowhere, there is nothing to bind it on and nobody here may write in /etc:
    then another directory lies over that."""
    if os.path.exists(_RESOLVER):
        _run(mount, "--bind", file, os.path.realpath(_RESOLVER))
        return
    with open(file) as opened:
        text = opened.read()
    over = os.path.dirname(file)
    _run(mount, "-t", "tmpfs", "none", over)  # the file is removed outside
    with open(file, "w") as opened:
        opened.write(text)
    # a path in these options could not have every character
    _run(mount, "-t", "overlay", "-o", "ro,lowerdir=.:/etc", "overlay", "/etc", cwd=over)


def _set_up(wanted: dict[str, Any]) -> tuple[list[socket.socket], str]:
    """No route leads out: only what stands on `lo` can be reached. The sockets, and why
    there are none of IPv6 where the kernel has none."""
    addresses: dict[bool, list[str]] = {False: [], True: []}
    for address in wanted["addresses"]:
        addresses[_family(address) == socket.AF_INET6].append(address)
    _add(wanted["ip"], addresses[False])
    refusal = ""
    if addresses[True]:
        try:
            _add(wanted["ip"], addresses[True])
        except OSError as error:
            refusal = str(error)
    _resolve(wanted["resolv"], wanted["mount"])
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("", 53))  # clouds' name servers have addresses of theirs
    listen = [at for at in wanted["listen"] if not refusal or _family(at[0]) == socket.AF_INET]
    return [names, *(_listen(address, port) for address, port in listen)], refusal


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
                sockets, refusal = _set_up(wanted)
                _say(outside, sockets, ipv6=refusal)
        except OSError as error:
            _say(outside, [], error=str(error))


if __name__ == "__main__":
    main(int(sys.argv[1]))
