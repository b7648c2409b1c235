"""The disk host: its rules, and our client for it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from providers.azure.disks import Disks
from providers.azure.pages import Pages, pieces
from providers.azure.upload import covered
from publisher.disks import vhd
from publisher.errors import Cancelled, ProviderError, PublishError
from publisher.model import MIB, Extent
from publisher.task import Cancellation
from tests.conformance.test_azure_sandbox import DISK, SIZE
from tests.unit.azure_world import AzureWorld, azure_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureWorld]:
    with azure_world(tmp_path_factory.mktemp("azure")) as world:
        yield world


@pytest.fixture
def name(world: AzureWorld, request: pytest.FixtureRequest) -> str:
    """A fresh disk that waits for its upload."""
    made = f"disk{abs(hash(request.node.name)) % 10**9}"
    Disks(world.api, "images").create(made, DISK, world.task())
    return made


@pytest.fixture
def sas(world: AzureWorld, name: str) -> str:
    return Disks(world.api, "images").grant(name, "Write", world.task())


def send(
    sas: str, method: str, query: str = "", body: bytes | None = None, **headers: str
) -> tuple[int, str]:
    """(status, error code) of one request as any client could send it."""
    parts = urlsplit(sas)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    target = f"{parts.path}?{query + '&' if query else ''}{parts.query}"
    try:
        connection.request(
            method, target, body, {k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("x-ms-error-code", "") or ""
    finally:
        connection.close()


def put(sas: str, start: int, end: int, body: bytes, kind: str = "update") -> tuple[int, str]:
    headers = {"x_ms_page_write": kind, "x_ms_range": f"bytes={start}-{end}"}
    return send(sas, "PUT", "comp=page", body, **headers)


def test_pages_are_written_and_cleared(sas: str) -> None:
    assert put(sas, 0, 511, b"x" * 512) == (201, "")
    assert put(sas, 4096, 4096 + 4 * MIB - 1, b"y" * 4 * MIB) == (201, "")
    assert put(sas, 0, 16 * MIB - 1, b"", "clear") == (201, "")


@pytest.mark.parametrize(
    ("start", "end", "length", "expected"),
    [
        (0, 4 * MIB + 511, 4 * MIB + 512, (413, "RequestBodyTooLarge")),
        (1, 512, 512, (416, "InvalidPageRange")),
        (0, 510, 511, (416, "InvalidPageRange")),
        (SIZE, SIZE + 511, 512, (416, "InvalidPageRange")),
        (0, 1023, 512, (400, "InvalidHeaderValue")),
    ],
)
def test_a_page_write_against_the_rules_is_refused(
    sas: str, start: int, end: int, length: int, expected: tuple[int, str]
) -> None:
    assert put(sas, start, end, b"x" * length) == expected


def test_only_updates_and_clears_with_a_range_are_page_writes(sas: str) -> None:
    assert put(sas, 0, 511, b"x" * 512, "append")[0] == 400
    assert put(sas, 0, 511, b"x" * 512, "clear")[0] == 400
    assert send(sas, "PUT", "comp=page", b"x" * 512, x_ms_page_write="update")[0] == 400
    assert (
        send(
            sas, "PUT", "comp=page", b"x" * 512, x_ms_page_write="update",
            x_ms_range="bytes=0-511", x_ms_blob_content_md5="abc",
        )[0]
        == 400
    )  # fmt: skip


def test_a_managed_disk_takes_no_put_blob_no_delete_and_no_conditions(sas: str) -> None:
    assert send(sas, "PUT", "", b"", x_ms_blob_type="PageBlob")[0] == 403
    assert send(sas, "DELETE")[0] == 403
    assert send(sas, "PUT", "comp=properties", b"")[0] == 403
    assert send(sas, "GET", "", None, If_Match='"etag"')[0] == 400


def test_a_wrong_signature_is_refused(sas: str) -> None:
    wrong = sas[:-6] + ("AAAAAA" if not sas.endswith("AAAAAA") else "BBBBBB")
    assert send(wrong, "HEAD")[0] == 403
    assert send(sas.partition("&sig=")[0] + "&sig=%AA", "HEAD")[0] == 403
    assert send(sas.split("?")[0] + "?", "HEAD")[0] == 403


def test_a_revoked_sas_is_refused(world: AzureWorld, name: str, sas: str) -> None:
    assert send(sas, "HEAD")[0] == 200
    Disks(world.api, "images").revoke(name, world.task())
    assert send(sas, "HEAD") == (403, "AuthenticationFailed")


def test_an_expired_sas_is_refused(world: AzureWorld, sas: str) -> None:
    grants = world.sandbox.manager._state.grants
    policy = next(policy for policy in grants if policy in sas)
    grants[policy]["expires"] = time.time() - 1
    assert send(sas, "HEAD") == (403, "AuthenticationFailed")


def test_a_sas_for_reading_does_not_write(world: AzureWorld, name: str, sas: str) -> None:
    disks, task = Disks(world.api, "images"), world.task()
    size = SIZE - vhd.FOOTER
    assert put(sas, size, SIZE - 1, vhd.footer(size, "x"))[0] == 201
    disks.revoke(name, task)
    reading = disks.grant(name, "Read", task)
    assert send(reading, "HEAD")[0] == 200
    assert put(reading, 0, 511, b"x" * 512)[0] == 403
    disks.revoke(name, task)


def test_our_client_writes_reads_and_lists(world: AzureWorld, sas: str) -> None:
    with Pages(sas, world.task()) as pages:
        assert pages.length() == SIZE
        assert pages.ranges() == ()
        pages.put(8192, b"b" * 512)
        pages.put(1024, b"a" * 1024)
        pages.put(2048, b"c" * 512)
        assert pages.ranges() == (Extent(1024, 1536), Extent(8192, 512))
        assert pages.read(1536, 1024) == b"a" * 512 + b"c" * 512
        assert pages.read(4096, 512) == bytes(512)


def test_long_lists_of_ranges_are_followed(world: AzureWorld, sas: str) -> None:
    world.sandbox.manager.pages.list_limit = 3
    try:
        with Pages(sas, world.task()) as pages:
            for number in range(8):
                pages.put(number * 4096, b"x" * 512)
            assert pages.ranges() == tuple(Extent(n * 4096, 512) for n in range(8))
    finally:
        world.sandbox.manager.pages.list_limit = 10_000


def test_no_message_holds_the_sas(world: AzureWorld, name: str, sas: str) -> None:
    secret = urlsplit(sas).query.partition("sig=")[2]
    with Pages(sas, world.task()) as pages:
        Disks(world.api, "images").revoke(name, world.task())
        with pytest.raises(ProviderError) as caught:
            pages.length()
    world.sandbox.faults.add("drop", pattern="/md-", times=100)
    with Pages(sas, world.task()) as pages, pytest.raises(ProviderError) as dropped:
        pages.length()
    world.sandbox.faults.clear()
    for error in (caught.value, dropped.value):
        assert error.hint
        assert secret not in repr((str(error), error.hint, error.__cause__))


def test_a_host_without_tls_is_not_talked_to(world: AzureWorld) -> None:
    with pytest.raises(PublishError, match="TLS"):
        Pages("http://disks.example/x/abcd?sig=y", world.task())


def test_cancelling_breaks_a_transfer_that_hangs(world: AzureWorld, sas: str) -> None:
    cancellation = Cancellation()
    world.sandbox.faults.add("stall", pattern="/md-", seconds=30.0)
    threading.Timer(0.2, cancellation.cancel).start()
    started = time.monotonic()
    with Pages(sas, world.task("other", cancellation)) as pages, pytest.raises(Cancelled):
        pages.put(0, b"x" * 512)
    assert time.monotonic() - started < 2
    world.sandbox.faults.clear()


def test_pieces_end_at_multiples_of_the_limit() -> None:
    assert list(pieces([Extent(3, 10)], limit=4)) == [
        Extent(3, 1),
        Extent(4, 4),
        Extent(8, 4),
        Extent(12, 1),
    ]
    assert list(pieces([])) == []


def test_pieces_join_near_neighbours_only() -> None:
    near = [Extent(0, 10), Extent(14, 6), Extent(40, 1)]
    assert list(pieces(near, limit=100, gap=5)) == [Extent(0, 20), Extent(40, 1)]
    assert list(pieces(near, limit=100)) == near


def test_a_piece_is_there_only_when_all_of_it_is() -> None:
    there = (Extent(0, 10), Extent(20, 10))
    assert covered(Extent(20, 10), there)
    assert covered(Extent(2, 3), there)
    assert not covered(Extent(8, 4), there)
    assert not covered(Extent(12, 2), there)
    assert not covered(Extent(5, 20), there)
    assert not covered(Extent(5, 1), ())


def test_an_answer_that_breaks_off_leaves_no_socket_open(world: AzureWorld) -> None:
    """Not even while its error is held, with all that its frames refer to."""

    def break_off() -> None:
        with contextlib.suppress(OSError):
            while True:
                guest = host.accept()[0]
                with guest:
                    guest.recv(65536)
                    guest.sendall(
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
                    )
                    time.sleep(0.02)  # the head is read before the reset comes
                    guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        threading.Thread(target=break_off, daemon=True).start()
        before = sockets()
        with (
            Pages(f"http://127.0.0.1:{port}/x/abcd?sig=y", world.task("cut")) as pages,
            pytest.raises(PublishError, match="ConnectionResetError") as caught,
        ):
            pages.read(0, 9)
        assert caught.value.__cause__ is not None
        assert sockets() <= before
        host.shutdown(socket.SHUT_RDWR)


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found
