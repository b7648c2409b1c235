"""Files for one guest: over a private socket, through the program that QEMU runs."""

from __future__ import annotations

import http.client
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.vm.guest_files import ADDRESS, REPORT, GuestFiles


class World:
    def __init__(self, directory: Path) -> None:
        self.asked: list[tuple[str, int]] = []
        self.reported: list[tuple[str, str]] = []
        (directory / "blob").write_bytes(b"\0" * 300_000)
        self.server = GuestFiles(
            directory,
            {"preseed.cfg": b"answers\n", "blob": directory / "blob"},
            reports=("done", "failed"),
            on_report=lambda name, said: self.reported.append((name, said)),
            on_request=lambda name, status: self.asked.append((name, status)),
        )

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """As a guest does: QEMU runs the command for its connection."""
        (command,) = self.server.forward.values()
        ours, theirs = socket.socketpair()
        with theirs:
            child = subprocess.Popen(
                shlex.split(command), stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        connection = http.client.HTTPConnection(ADDRESS)
        connection.sock = ours
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        answer.close()
        connection.close()
        assert child.wait(5) == 0
        return answer.status, content


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # longer than the path of a socket may be
    directory = tmp_path / ("deep" * 30)
    directory.mkdir(mode=0o700)
    made = World(directory)
    with made.server:
        yield made
    assert not made.server.socket.exists()


def test_a_guest_fetches_what_is_there_and_nothing_else(world: World) -> None:
    assert world.ask("GET", "/preseed.cfg") == (200, b"answers\n")
    assert world.ask("HEAD", "/preseed.cfg") == (200, b"")
    assert world.ask("GET", "/blob") == (200, b"\0" * 300_000)
    assert world.ask("GET", "/../../etc/passwd")[0] == 404
    assert world.asked[-1] == ("../../etc/passwd", 404)


def test_a_guest_reports_by_fetching_or_with_a_text(world: World) -> None:
    assert world.ask("GET", "/done") == (200, b"")
    assert world.ask("POST", "/failed", b"no space") == (200, b"")
    assert world.reported == [("done", ""), ("failed", "no space")]


def test_a_report_without_end_is_cut(world: World) -> None:
    world.ask("POST", "/failed", b"x" * (3 * REPORT))
    assert world.reported == [("failed", "x" * REPORT)]


def test_nobody_else_can_reach_it(world: World) -> None:
    assert world.server.socket.stat().st_mode & 0o077 == 0
    assert list(world.server.forward) == [f"{ADDRESS}:80"]
