"""A file server on loopback that can cut answers, change files, redirect and fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served, how badly, and what was asked for.

    `cuts`: after how many body bytes each coming answer ends; `refusals`: statuses
    that the coming requests get; `redirects`: path ▶ new address.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    lengths: bool = True
    version: int = 1
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    silence: threading.Event | None = None
    """While it is not set, bodies stop after their first half."""
    url: str = ""


@contextmanager
def serve(files: Files) -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            files.requests.append((self.path, dict(self.headers)))
            self.close_connection = True
            path = self.path.partition("?")[0]
            if files.refusals:
                self._head(files.refusals.pop(0), {"Content-Length": "0", "Retry-After": "1"})
            elif path in files.redirects:
                self._head(302, {"Location": files.redirects[path], "Content-Length": "0"})
            elif path not in files.contents:
                self._head(404, {"Content-Length": "0"})
            else:
                self._content(files.contents[path])

        def _head(self, status: int, headers: dict[str, str]) -> None:
            files.statuses.append(status)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _content(self, data: bytes) -> None:
            etag = f'"{files.version}"'
            headers = {"ETag": etag} if files.validators else {}
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range", etag) == etag
            start, status = 0, 200
            if wanted and files.ranges and fresh:
                start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if start >= len(data):
                    length = {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}
                    return self._head(416, length)
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            body = data[start:]
            if files.lengths:
                headers["Content-Length"] = str(len(body))
            self._head(status, headers)
            if files.silence is not None:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                files.silence.wait(20)
                return None
            self.wfile.write(body[: files.cuts.pop(0)] if files.cuts else body)
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
