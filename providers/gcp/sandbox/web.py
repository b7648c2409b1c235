"""HTTP for the stand-in: requests, answers, refusals in Google's form, routing."""

from __future__ import annotations

import http
import json
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from publisher.emulation import FULL

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOG = logging.getLogger(__name__)

PIECE = 1024 * 1024


class Refused(Exception):
    """An error answer, as https://cloud.google.com/apis/design/errors and the
    JSON APIs' "Status and error codes" pages describe it."""

    def __init__(self, status: int, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason

    def body(self) -> bytes:
        error = {"message": self.message, "domain": "global", "reason": self.reason}
        answer = {"code": self.status, "message": self.message, "errors": [error]}
        return json.dumps({"error": answer}).encode()


def not_found(what: str) -> Refused:
    return Refused(404, f"{what} was not found", "notFound")


@dataclass(slots=True)
class Answer:
    """`body` may be JSON, bytes, or pieces of bytes together with Content-Length."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Request:
    """One request; `path` is still percent-encoded, as object names need it."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ.get("PATH_INFO", "/")
        self.path = urllib.parse.urlsplit(raw).path
        pairs = urllib.parse.parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        self.query: dict[str, str] = dict(pairs)
        self.pairs = pairs
        self.whole = True
        """False once the client hung up before the end of the body."""
        self.arguments: dict[str, str] = {}

    @property
    def url(self) -> str:
        """The address that the client used, as far as the host."""
        return f"{self.environ.get('wsgi.url_scheme', 'http')}://{self.environ['HTTP_HOST']}"

    @property
    def length(self) -> int | None:
        length = self.environ.get("CONTENT_LENGTH")
        return int(length) if length else None

    def header(self, name: str) -> str:
        value: str = self.environ.get("HTTP_" + name.upper().replace("-", "_"), "")
        return value

    def pieces(self) -> Iterator[bytes]:
        """The body; ends early when the client hangs up."""
        from werkzeug.exceptions import ClientDisconnected

        source = self.environ["wsgi.input"]
        try:
            while data := source.read(PIECE):
                yield data
        except (OSError, ClientDisconnected):
            self.whole = False

    def json(self) -> dict[str, Any]:
        data = b"".join(self.pieces())
        try:
            value = json.loads(data or b"{}")
        except ValueError:
            raise Refused(400, "Parse Error", "parseError") from None
        if not isinstance(value, dict):
            raise Refused(400, "Parse Error", "parseError")
        return value


Handler: TypeAlias = Callable[[Request], Answer]


class Router:
    """Paths with {names}, matched on the encoded path; {names} are decoded."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
        self._routes.append((method, re.compile(pattern), handler))

    def find(self, request: Request) -> Handler:
        known = False
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(request.path):
                known = True
                if method == request.method:
                    found = {k: urllib.parse.unquote(v) for k, v in match.groupdict().items()}
                    request.arguments = found
                    return handler
        if known:
            raise Refused(405, "Method Not Allowed", "httpMethodNotAllowed")
        raise Refused(404, f"Not Found: {request.path}", "notFound")


class Application:
    """The WSGI application around a router. `admit` raises Refused for callers
    that may not do what they ask for."""

    def __init__(self, router: Router, admit: Callable[[Request], None]) -> None:
        self._router = router
        self._admit = admit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            self._admit(request)
            answer = self._router.find(request)(request)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            if isinstance(error, Refused):
                refusal = error
            else:
                LOG.exception("%s %s failed in the stand-in", request.method, request.path)
                refusal = Refused(500, f"Internal error: {error}", "internalError")
            headers = {"Content-Type": "application/json; charset=UTF-8"}
            if refusal.status == 401:
                headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/"'
            answer = Answer(refusal.body(), refusal.status, headers)
        for _ in request.pieces():
            pass
        body = answer.body
        headers = {"Content-Type": "application/json; charset=UTF-8", **answer.headers}
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
            body = [body]
        status = f"{answer.status} {_phrase(answer.status)}"
        start_response(status, list(headers.items()))
        pieces: Iterable[bytes] = body
        return pieces


def _phrase(status: int) -> str:
    if status == 499:
        return "Client Closed Request"
    return "Resume Incomplete" if status == 308 else http.HTTPStatus(status).phrase
