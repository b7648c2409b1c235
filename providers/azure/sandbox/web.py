"""Requests, answers and Resource Manager's form of errors, over plain WSGI."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refused(Exception):
    """A refusal in Resource Manager's form."""

    def __init__(self, status: int, code: str, message: str, target: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.target = target

    def body(self) -> dict[str, Any]:
        error = {"code": self.code, "message": self.message}
        if self.target:
            error["target"] = self.target
        return {"error": error}


@dataclass(slots=True)
class Answer:
    """`body`: JSON for a dict, bytes as they are, or a stream of pieces."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Request:
    """What a handler sees of a request."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "")
        self.query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        self.root = f"http://{environ['HTTP_HOST']}"
        self._environ = environ

    def header(self, name: str) -> str:
        key = name.upper().replace("-", "_")
        plain = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}"
        return str(self._environ.get(plain, ""))

    def read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length > 0:
            piece = self._environ["wsgi.input"].read(length)
            if not piece:
                break
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def json(self) -> Any:
        length = self.header("Content-Length")
        data = self.read(int(length) if length else 0)
        try:
            return json.loads(data or b"null")
        except ValueError:
            raise Refused(
                400, "InvalidRequestContent", "The request content was invalid: no JSON."
            ) from None


Handler = Callable[[Request], Answer]


def application(handle: Handler) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """A WSGI application around one handler."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            answer = handle(Request(environ))
        except Refused as refused:
            answer = Answer(refused.status, refused.body())
        headers = {"x-ms-request-id": str(uuid.uuid4()), **answer.headers}
        body: Iterator[bytes] | list[bytes]
        if isinstance(answer.body, dict):
            data = json.dumps(answer.body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
            headers["Content-Length"] = str(len(data))
            body = [data]
        elif isinstance(answer.body, bytes) or answer.body is None:
            data = answer.body or b""
            if answer.status != 204:
                headers.setdefault("Content-Length", str(len(data)))
            body = [data]
        else:
            body = answer.body
        start_response(f"{answer.status} {_REASONS[answer.status]}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    return serve
