"""Files for one guest over HTTP, and what it reports.

The server listens on a Unix socket in a private directory. QEMU's user network
leads to it the connections that this guest makes to one address; so there is no
port that others of this computer could ask, and the address is always the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, Self

from publisher.closing import Closing
from publisher.vm import relay

ADDRESS = "10.0.2.100"
"""Of the server in QEMU's user network 10.0.2.0/24."""
URL = f"http://{ADDRESS}"
REPORT = 64 * 1024
"""Bytes of a report that are read; the rest is let go."""
_IDLE = 600
"""Seconds after which a silent connection is closed."""


class GuestFiles(Closing):
    """A context around the server. `files` are served below URL by their names, as
    bytes or from a path;
    `reports` are names that the guest may fetch or send a text to, which
    `on_report` gets, from a thread; `on_request` gets every name that was asked for
    and the answer's status."""

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, bytes | Path],
        *,
        reports: tuple[str, ...] = (),
        on_report: Callable[[str, str], None] = lambda *_: None,
        on_request: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self.socket = directory / "web"
        self._directory = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        handler = type(
            "_Handler",
            (_Answers,),
            {
                "files": dict(files),
                "reports": reports,
                "on_report": staticmethod(on_report),
                "on_request": staticmethod(on_request),
            },
        )
        # a socket's path has at most 107 bytes, its directory's may have more
        short = f"/proc/self/fd/{self._directory}/{self.socket.name}"
        self._server = _Server(short, handler)
        self.socket.chmod(0o600)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="guest files", daemon=True
        )

    @property
    def forward(self) -> dict[str, str]:
        """For Hardware.forwards: address and port in the guest's network, and the
        command that QEMU runs for a connection to it."""
        command = [sys.executable, "-I", "-S", relay.__file__, str(self.socket)]
        return {f"{ADDRESS}:80": shlex.join(command)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.socket.unlink(missing_ok=True)
        os.close(self._directory)


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A guest that powers off leaves requests behind."""


class _Answers(BaseHTTPRequestHandler):
    timeout = _IDLE
    files: Mapping[str, bytes | Path]
    reports: tuple[str, ...]
    on_report: Callable[[str, str], None]
    on_request: Callable[[str, int], None]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name = self.path.partition("?")[0].strip("/")
        said = self._read() if self.command in ("POST", "PUT") else ""
        found = b"" if name in self.reports else self.files.get(name)
        self._send(404 if found is None else 200, found or b"")
        self.on_request(name, 404 if found is None else 200)
        if name in self.reports:
            self.on_report(name, said)

    def _send(self, status: int, content: bytes | Path) -> None:
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as body:
            size = body.seek(0, os.SEEK_END)
            body.seek(0)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(body, self.wfile, 1 << 18)

    def _read(self) -> str:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            return ""
        size = int(length)
        said = self.rfile.read(min(size, REPORT))
        left = size - len(said)
        while left > 0 and (more := self.rfile.read(min(left, REPORT))):
            left -= len(more)
        return said.decode(errors="replace")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base's name
        """Nothing: who listens is told by on_request."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()
