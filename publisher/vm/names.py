"""A name server for a handful of names: every other name does not exist."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Mapping


def answer(query: bytes, names: Mapping[str, str]) -> bytes:
    """The reply to one DNS query; `names` maps host names to an IPv4 or IPv6
    address. Raises dns.exception.DNSException when it is none."""
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rdatatype
    import dns.rrset

    asked = dns.message.from_wire(query)
    reply = dns.message.make_response(asked, recursion_available=True)
    reply.flags |= dns.flags.AA
    if len(asked.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
        return reply.to_wire()
    (question,) = asked.question
    address = names.get(question.name.to_text(omit_final_dot=True).lower())
    if address is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()
    kind = "AAAA" if ipaddress.ip_address(address).version == 6 else "A"
    if question.rdtype in (dns.rdatatype.from_text(kind), dns.rdatatype.ANY):
        reply.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, address))
    return reply.to_wire()


class NameServer:
    """Answers on a bound UDP socket from a thread, until `close`; keeps what was asked."""

    def __init__(self, bound: socket.socket, names: Mapping[str, str]) -> None:
        self._socket = bound
        self._names = {name.lower(): address for name, address in names.items()}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="names", daemon=True)
        self._socket.settimeout(0.5)
        self._thread.start()

    def _serve(self) -> None:
        from dns.exception import DNSException

        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError, OSError, DNSException):
                query, peer = self._socket.recvfrom(4096)
                self._socket.sendto(answer(query, self._names), peer)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._socket.close()
