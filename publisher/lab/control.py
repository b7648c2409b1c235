"""The way into a machine of another process: a socket in its directory, one JSON
line each way; after "console" the bytes of the guest's console."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from publisher.closing import Closing
from publisher.errors import PublishError, StateError
from publisher.lab.machine import LabMachine

SOCKET = "control"
_POLL = 0.2
_PATIENCE = 660.0
"""Seconds for an answer: writing a snapshot to a slow disk takes minutes."""


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """A socket's path has at most 107 bytes; this one is short wherever it lies."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


class Control(Closing):
    """The server's side. A context; `serve_one` does what was asked in the thread
    that owns the machine."""

    def __init__(self, machine: LabMachine) -> None:
        self._machine = machine
        self._asked: queue.SimpleQueue[tuple[Callable[[], object], Future[object]]] = (
            queue.SimpleQueue()
        )
        self._listener = socket.socket(socket.AF_UNIX)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.stop = False

    def __enter__(self) -> Self:
        with _address(self._machine.directory) as address:
            self._listener.bind(address)
        self._listener.listen(8)
        self._listener.settimeout(_POLL)
        self._thread.start()
        return self

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        while not self._asked.empty():
            self._asked.get()[1].cancel()

    def serve_one(self, seconds: float) -> None:
        """Wait at most so long for something to do, and do it."""
        try:
            work, answer = self._asked.get(timeout=seconds)
        except queue.Empty:
            return
        try:
            answer.set_result(work())
        except PublishError as error:
            answer.set_exception(error)
        except BaseException as error:
            answer.set_exception(error)
            raise

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            asked = json.loads(_line(connection))
            if asked["do"] == "console":
                self._console(connection)
                return
            answer: Mapping[str, Any] = {}
            done: Future[object] = Future()
            self._asked.put((lambda: self._do(asked["do"], asked.get("name", "")), done))
            try:
                done.result()
            except PublishError as error:
                answer = {"error": str(error), "hint": error.hint}
            except BaseException:
                answer = {"error": "the machine has ended", "hint": ""}
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _do(self, action: str, name: str) -> None:
        if action == "save":
            self._machine.save(name)
        elif action == "restore":
            self._machine.restore(name)
        elif action == "stop":
            self.stop = True

    def _console(self, connection: socket.socket) -> None:
        def view(data: bytes) -> None:
            with contextlib.suppress(OSError):
                connection.sendall(data)

        connection.settimeout(_PATIENCE)
        with self._machine.machine.watching(view) as type_in:
            connection.sendall(b"\n")
            while not self._closing.is_set() and not self._machine.machine.ended:
                if select.select([connection], [], [], _POLL)[0]:
                    data = connection.recv(4096)
                    if not data:
                        return
                    type_in(data)


def _line(connection: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        data = connection.recv(1 if said else 4096)
        if not data:
            break
        said += data
    return said


def connect(directory: Path) -> socket.socket:
    """Raises StateError when nobody is there."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE)
    try:
        with _address(directory) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        raise StateError(f"the machine {directory.name} does not answer") from error
    return connection


def ask(directory: Path, action: str, name: str = "") -> None:
    """Let the process of the machine do something. Raises StateError with what it says."""
    with connect(directory) as connection:
        connection.sendall(json.dumps({"do": action, "name": name}).encode() + b"\n")
        said = _line(connection)
    answer = json.loads(said) if said else {"error": "the machine has ended", "hint": ""}
    if "error" in answer:
        raise StateError(answer["error"], hint=answer["hint"])


@contextlib.contextmanager
def console(directory: Path) -> Iterator[socket.socket]:
    """A connection that carries what the console prints, and what is typed into it."""
    with connect(directory) as connection:
        connection.sendall(b'{"do": "console"}\n')
        _line(connection)
        connection.settimeout(None)
        yield connection
