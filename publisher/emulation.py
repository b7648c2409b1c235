"""What every sandbox shares: a WSGI application on loopback, and faults to order."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from publisher.model import MIB

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FaultKind: TypeAlias = Literal["throttle", "fail", "stall", "drop", "lose"]


@dataclass(slots=True)
class Fault:
    """One ordered misbehaviour.

    `throttle` and `fail` answer with the cloud's own 429 and 5xx; `stall` waits
    `seconds` first; `drop` closes the connection before the request has any
    effect; `lose` carries the request out and closes the connection instead of
    answering. It concerns requests whose "METHOD /path?query" contains a match
    of `pattern`, skips the first `skip` of them and fires `times` times.
    """

    kind: FaultKind
    pattern: str = ""
    skip: int = 0
    times: int = 1
    seconds: float = 0.0
    fired: Callable[[], None] | None = None
    seen: int = field(default=0, init=False)

    def fires(self, line: str) -> bool:
        if not re.search(self.pattern, line):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


class Faults:
    """The faults of one sandbox, and a record of its requests ("METHOD /path?query").

    `visibility_delay`: seconds during which a new resource is not seen by
    reads; the sandbox honours it where its cloud is eventually consistent.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.requests: list[str] = []
        self.visibility_delay = 0.0

    def add(self, kind: FaultKind, pattern: str = "", **options: Any) -> Fault:
        fault = Fault(kind, pattern, **options)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self.visibility_delay = 0.0

    def due(self, line: str) -> Fault | None:
        with self._lock:
            self.requests.append(line)
            due = [fault for fault in self._faults if fault.fires(line)]
        return due[0] if due else None


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write to a full disk says."""
Refusal: TypeAlias = tuple[str, list[tuple[str, str]], bytes]


class FaultyApplication:
    """WSGI middleware that applies Faults. `refuse` gives the cloud's own answer
    (status line, headers, body) to a "throttle" or "fail"."""

    def __init__(
        self,
        application: WSGIApplication,
        faults: Faults,
        refuse: Callable[[FaultKind, WSGIEnvironment], Refusal],
    ) -> None:
        self._application = application
        self._faults = faults
        self._refuse = refuse

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        line = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
        fault = self._faults.due(f"{line}?{query}" if query else line)
        if fault is None:
            return self._serve(environ, start_response)
        if fault.fired is not None:
            fault.fired()
        if fault.kind == "stall":
            time.sleep(fault.seconds)
            return self._serve(environ, start_response)
        if fault.kind in ("throttle", "fail"):
            return self._fail(fault.kind, environ, start_response)
        if fault.kind == "lose":
            for _ in self._application(environ, lambda *_: lambda _: None):
                pass
        self._hang_up(environ)
        start_response("500 Dropped", [("Content-Length", "0")])
        return []

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application's answer; a full disk is a failure of the cloud, not of its code."""
        try:
            return self._application(environ, start_response)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return self._fail("fail", environ, start_response)

    def _fail(
        self, kind: FaultKind, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        status, headers, body = self._refuse(kind, environ)
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    @staticmethod
    def _hang_up(environ: WSGIEnvironment) -> None:
        connection: socket.socket | None = environ.get("werkzeug.socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def write_whole(handle: int, data: bytes, offset: int | None = None) -> None:
    """Write all of `data` at `offset`, or append it.

    A full disk takes a part without an error; here it is an OSError, and nothing
    stays appended by halves."""
    written = os.write(handle, data) if offset is None else os.pwrite(handle, data, offset)
    if written != len(data):
        if offset is None:
            os.ftruncate(handle, os.fstat(handle).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bounded(application: WSGIApplication) -> WSGIApplication:
    """Middleware: the body ends where the request does, and what the application
    leaves unread is drained, or it would be taken for the next request."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        from werkzeug.exceptions import ClientDisconnected
        from werkzeug.wsgi import get_input_stream

        body = get_input_stream(environ, safe_fallback=True)
        environ["wsgi.input"] = body
        environ["wsgi.input_terminated"] = True
        pieces = application(environ, start_response)
        try:
            yield from pieces
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
            with contextlib.suppress(OSError, ClientDisconnected):
                while body.read(MIB):
                    pass

    return serve


class Server:
    """A threaded HTTP/1.1 server on 127.0.0.1 around a WSGI application.

    It listens on `port`, or on any where that is 0: on `preferred` if nobody else does."""

    def __init__(self, application: WSGIApplication, port: int = 0, preferred: int = 0) -> None:
        self._application = bounded(application)
        self._wanted_port = self._port = port
        self._preferred_port = 0 if port else preferred
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve in a daemon thread. Raises OSError when the port is taken."""
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 600

            def log(self, level: str, message: str, *args: Any) -> None:
                logging.getLogger(f"publisher.emulation.{level}").debug(message, *args)

        # bound here, because werkzeug ends the program when a port is taken
        listening = self._listen()
        self._port = int(listening.getsockname()[1])
        with listening:
            self._server = make_server(
                "127.0.0.1",
                self._port,
                self._application,
                threaded=True,
                request_handler=Handler,
                fd=listening.fileno(),
            )
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="sandbox", daemon=True
        )
        self._thread.start()

    def _listen(self) -> socket.socket:
        if self._preferred_port:
            with contextlib.suppress(OSError):
                return socket.create_server(("127.0.0.1", self._preferred_port))
        return socket.create_server(("127.0.0.1", self._wanted_port))

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """Of the form http://127.0.0.1:PORT, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"
