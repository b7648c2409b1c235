"""The faults that a sandbox can be told to have."""

from __future__ import annotations

import errno
import http.client
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from publisher.emulation import FaultKind, Faults, FaultyApplication, Refusal, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Counter:
    """A service that counts what had an effect."""

    def __init__(self) -> None:
        self.count = 0
        self.error: OSError | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        self.count += 1
        if self.error is not None:
            raise self.error
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


def refuse(kind: FaultKind, environ: WSGIEnvironment) -> Refusal:
    status = "429 Too Many Requests" if kind == "throttle" else "500 Internal Server Error"
    return status, [("Retry-After", "1")], b"no"


class Lab:
    def __init__(self) -> None:
        self.service = Counter()
        self.faults = Faults()
        self.server = Server(FaultyApplication(self.service, self.faults, refuse))

    def put(self, path: str = "/block") -> Any:
        client = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        try:
            client.request("PUT", path, body=b"x" * 100_000)
            return client.getresponse().status
        except (http.client.RemoteDisconnected, ConnectionError):
            return "hung up"
        finally:
            client.close()


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    lab.server.start()
    yield lab
    lab.server.stop()


@pytest.mark.parametrize(
    ("kind", "answer", "effects"),
    [("throttle", 429, 1), ("fail", 500, 1), ("drop", "hung up", 1), ("lose", "hung up", 2)],
)
def test_a_fault_fires_once_and_only_lost_answers_have_an_effect(
    lab: Lab, kind: FaultKind, answer: object, effects: int
) -> None:
    lab.faults.add(kind, "PUT /block")
    assert lab.put("/other") == 200
    lab.service.count = 0
    assert lab.put() == answer
    assert lab.put() == 200
    assert lab.service.count == effects


def test_a_fault_skips_the_requests_that_it_is_told_to(lab: Lab) -> None:
    lab.faults.add("fail", skip=2, times=2)
    assert [lab.put() for _ in range(5)] == [200, 200, 500, 500, 200]
    assert lab.faults.requests == ["PUT /block"] * 5


def test_a_body_that_the_service_did_not_read_does_not_spoil_the_connection(lab: Lab) -> None:
    client = http.client.HTTPConnection("127.0.0.1", lab.server.port, timeout=5)
    lab.faults.add("throttle", skip=1)
    for status in (200, 429, 200):
        client.request("PUT", "/block", body=b"GET / HTTP/1.1\r\n" * 10_000)
        answer = client.getresponse()
        assert answer.status == status
        answer.read()
    chunks = iter([b"x" * 70_000, b"y" * 70_000])
    client.request("PUT", "/block", body=chunks, encode_chunked=True)
    assert client.getresponse().read() == b"ok"
    client.request("PUT", "/block", body=b"")
    assert client.getresponse().status == 200
    client.close()


def test_a_stall_answers_late(lab: Lab) -> None:
    lab.faults.add("stall", seconds=0.2)
    started = time.monotonic()
    assert lab.put() == 200
    assert time.monotonic() - started >= 0.2


def test_a_full_disk_is_the_clouds_own_failure_without_a_traceback(
    lab: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    lab.service.error = OSError(errno.ENOSPC, "No space left on device")
    assert lab.put() == 500
    assert "Traceback" not in capfd.readouterr().err
    lab.service.error = None
    assert lab.put() == 200


def test_a_port_that_is_taken_is_an_error_and_not_the_end(lab: Lab) -> None:
    second = Server(lab.service, lab.server.port)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()


def test_a_preferred_port_is_taken_where_it_is_free_and_is_no_error_elsewhere(lab: Lab) -> None:
    elsewhere = Server(lab.service, preferred=lab.server.port)
    elsewhere.start()
    port = elsewhere.port
    elsewhere.stop()
    assert port != lab.server.port
    again = Server(lab.service, preferred=port)
    again.start()
    again.stop()
    assert again.port == port


def test_a_port_that_was_asked_for_is_not_replaced_by_a_preferred_one(lab: Lab) -> None:
    second = Server(lab.service, lab.server.port, preferred=1)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()
