"""How a guest's packets leave QEMU, and how its ports are reached."""

from __future__ import annotations

import socket
from collections.abc import Sequence


class Network:
    """QEMU's user network in the host's own: the guest reaches what the host reaches."""

    netdev = "user"
    """The first words of QEMU's -netdev option."""
    address = "10.0.2.15"
    """What QEMU's DHCP server gives the guest."""

    def enclose(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs QEMU in this network. Paths must be absolute."""
        return list(argv)

    def join(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a client of the guest's forwarded ports."""
        return list(argv)

    def connect(self, port: int, timeout: float) -> socket.socket:
        """A connection to a port of loopback that QEMU forwards. Raises OSError."""
        return socket.create_connection(("127.0.0.1", port), timeout)


HOST = Network()
