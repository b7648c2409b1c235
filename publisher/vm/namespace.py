"""A network of a guest's own: the addresses and names that it is to find, and
nothing else. No root is needed, only user namespaces.

There is no route out of it, so that a guest reaches neither a real network nor
a real cloud, whatever it tries. QEMU's user network runs inside; the servers
behind the addresses run outside, on sockets that were opened inside.
https://man7.org/linux/man-pages/man7/user_namespaces.7.html
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from publisher.closing import Closing
from publisher.errors import HostError
from publisher.vm import inside, process
from publisher.vm.host import require, which
from publisher.vm.names import NameServer
from publisher.vm.network import Network
from publisher.vm.web import WebServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

READY = 20.0
"""Seconds that setting up a namespace may take on a busy machine."""
ALLOW = (
    "allow user namespaces (sysctl user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), "
    "or run as root"
)
_KINDS = (("--user", "--net", "--mount"), ("--net", "--mount"))
"""What is unshared: with a user namespace, or by a root user who may do without."""


class PrivateNetwork(Network, Closing):
    """A context. `endpoints` are served at their (address, port), `names` resolve by
    QEMU's name server. Raises HostError where the kernel forbids it. To be entered in a
    thread that lives as long as the network must."""

    # not QEMU's usual one, in which an image was built: an address of there must not do here
    netdev = "user,net=10.77.0.0/24"
    address = "10.77.0.15"

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        endpoints: Mapping[tuple[str, int], WSGIApplication],
        names: Mapping[str, str],
        unshare: Sequence[str] | None = None,
    ) -> None:
        self._addresses = tuple(dict.fromkeys((*addresses, *(a for a, _ in endpoints))))
        self._endpoints = endpoints
        self._names = names
        self._unshare = tuple(unshare) if unshare is not None else _kind()
        self.without_ipv6 = ""
        """Why the addresses and endpoints of IPv6 are left out, which some kernels lack."""
        self._holder: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._servers: list[WebServer | NameServer] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(READY)
        self._socket = ours
        mapped = ["--map-root-user"] if "--user" in self._unshare else []
        program = [sys.executable, "-IS", inside.__file__, str(theirs.fileno())]
        with theirs:
            self._holder = process.spawn(
                ["unshare", *self._unshare, *mapped, "--", *program],
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
        with tempfile.TemporaryDirectory(prefix="resolv-") as directory:
            resolv = Path(directory, "resolv.conf")
            resolv.write_text("nameserver 127.0.0.1\n")
            answer, sockets = self._ask(
                addresses=self._addresses,
                listen=list(self._endpoints),
                resolv=str(resolv),
                ip=require("ip"),
                mount=require("mount"),
            )
        self.without_ipv6 = answer["ipv6"]
        names, *listening = sockets
        self._servers.append(NameServer(names, self._names))
        served = [
            application
            for (address, _), application in self._endpoints.items()
            if not (self.without_ipv6 and ":" in address)
        ]
        for server, application in zip(listening, served, strict=True):
            self._servers.append(WebServer(server, application))

    def _ask(self, **request: Any) -> tuple[Mapping[str, Any], list[socket.socket]]:
        assert self._socket is not None
        try:
            self._socket.send(json.dumps(request).encode())
            data, handles, _, _ = socket.recv_fds(self._socket, inside.MESSAGE, 250)
        except TimeoutError:
            raise HostError(f"a network namespace was not ready within {READY:.0f} s") from None
        except OSError as error:
            raise self._refused(str(error)) from error
        sockets = [socket.socket(fileno=handle) for handle in handles]
        if not data:
            raise self._refused("")
        answer = json.loads(data)
        if "error" in answer:
            raise self._refused(answer["error"])
        return answer, sockets

    def _refused(self, why: str) -> HostError:
        holder = self._holder
        if not why and holder is not None and holder.stderr is not None:
            holder.wait()
            why = holder.stderr.read().decode(errors="replace").strip()
        return HostError(
            f"no private network for a guest: {why or 'the namespace ended'}",
            hint=ALLOW,
        )

    def close(self) -> None:
        """Nothing of the network stays: its namespaces end with their last process."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._holder is not None:
            process.kill(self._holder)
            if self._holder.stderr is not None:
                self._holder.stderr.close()
            self._holder = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- Network

    def _enter(self, kinds: Sequence[str], argv: Sequence[str]) -> list[str]:
        assert self._holder is not None
        # /proc names the processes of this machine's own namespace, where nsenter starts
        pid = self._holder.pid
        files = {"--user": "user", "--net": "net", "--mount": "mnt"}
        spaces = [f"{k}=/proc/{pid}/ns/{files[k]}" for k in kinds if k in self._unshare]
        keep = ["--preserve-credentials"] if "--user" in self._unshare else []
        return ["nsenter", *spaces, *keep, "--", *argv]

    def enclose(self, argv: Sequence[str]) -> list[str]:
        return self._enter(("--user", "--net", "--mount"), process.command(argv))

    def join(self, argv: Sequence[str]) -> list[str]:
        return self._enter(("--user", "--net"), argv)

    def connect(self, port: int, timeout: float) -> socket.socket:
        try:
            _, (connection,) = self._ask(connect=port)
        except HostError as error:
            raise OSError(error.message) from error
        connection.settimeout(timeout)
        return connection


def _missing() -> str:
    return next((name for name in ("unshare", "nsenter", "ip", "mount") if not which(name)), "")


def remedy() -> str:
    """What to do where there is no private network."""
    missing = _missing()
    return f"install {missing}" if missing else ALLOW


def refusal(kind: Sequence[str]) -> str:
    """Why a private network can't be made that way; empty when it can: tried."""
    missing = _missing()
    if missing:
        return f"{missing} is not installed"
    try:
        with PrivateNetwork(addresses=["169.254.169.254"], endpoints={}, names={}, unshare=kind):
            return ""
    except HostError as error:
        return error.message


@functools.lru_cache(maxsize=1)
def probe() -> tuple[tuple[str, ...], str]:
    """What has to be unshared here, and why not when nothing works."""
    why = ""
    for kind in _KINDS if os.geteuid() == 0 else _KINDS[:1]:
        said = refusal(kind)
        if not said:
            return kind, ""
        why = why or said
    return (), why


@functools.lru_cache(maxsize=1)
def ipv6_refusal() -> str:
    """Why a private network has no IPv6 here; empty when it has: tried."""
    kind, why = probe()
    if not kind:
        return why
    with PrivateNetwork(addresses=["fd00::1"], endpoints={}, names={}) as made:
        return made.without_ipv6


def _kind() -> tuple[str, ...]:
    kind, why = probe()
    if not kind:
        raise HostError(why)
    return kind
