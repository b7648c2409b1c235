"""The second best network of a guest, where user namespaces are forbidden: QEMU
itself answers for the addresses of a cloud, and lets nothing else out.

https://www.qemu.org/docs/master/system/invocation.html (-netdev user: restrict,
guestfwd). The guest's own network is made so large that it holds 169.254.169.254
and 168.63.129.16, because QEMU forwards only from addresses of that network.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from publisher.closing import Closing
from publisher.vm import relay
from publisher.vm.board import comma
from publisher.vm.network import Network
from publisher.vm.web import WebServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

NET = ipaddress.ip_network("168.0.0.0/7")


class RestrictedNetwork(Network, Closing):
    """A context. Serves the IPv4 endpoints that lie in NET; names do not resolve."""

    address = "168.0.0.15"

    def __init__(self, endpoints: Mapping[tuple[str, int], WSGIApplication]) -> None:
        self._endpoints = endpoints
        self._servers: list[WebServer] = []

    def __enter__(self) -> Self:
        words = ["user", f"net={NET}", "restrict=on"]
        try:
            for (address, port), application in self._endpoints.items():
                if ipaddress.ip_address(address) in NET:
                    listening = socket.create_server(("127.0.0.1", 0))
                    self._servers.append(WebServer(listening, application))
                    program = [sys.executable, "-IS", relay.__file__]
                    # QEMU splits the words as a shell does
                    command = shlex.join([*program, str(listening.getsockname()[1])])
                    words.append(f"guestfwd=tcp:{address}:{port}-cmd:{comma(command)}")
        except BaseException:
            self.close()
            raise
        self.netdev = ",".join(words)
        return self

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
