"""One HTTP request whose connection another thread can cut, and what its failures mean."""

from __future__ import annotations

import contextlib
import email.message
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Protocol, TypeVar, cast

from publisher.errors import BuildError, UnreachableError
from publisher.fetch.location import Url
from publisher.task import Task

T = TypeVar("T")

TIMEOUT = 30.0
"""Seconds that a connection may take to open, or stay silent."""
REDIRECTS = 10
_CURABLE = {408, 425, 429, 500, 502, 503, 504}


class Answer(Protocol):
    """The slice of http.client.HTTPResponse that is used."""

    status: int
    headers: email.message.Message

    def read(self, amount: int) -> bytes: ...

    def close(self) -> None: ...


class Line:
    """The socket of a request, for the thread that may have to hang up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cut = False

    def adopt(self, connected: socket.socket) -> None:
        with self._lock:
            self._socket = connected
        if self.cut:
            self.hang_up()

    def hang_up(self) -> None:
        self.cut = True
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # not the SSL socket's own: it would wait for the other side
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def interruptible(task: Task, work: Callable[[Line], T]) -> T:
    """`work` in a thread of its own, so that cancelling never waits for a silent server."""
    line = Line()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(line))
        except BaseException as error:  # raised again below, in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name=f"{task.step}-fetch", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if task.cancellation.cancelled:
            line.hang_up()
            thread.join(2)
            task.check()
    if failures:
        raise failures[0]
    return results[0]


def _connections(line: Line) -> tuple[urllib.request.BaseHandler, ...]:
    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            line.adopt(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            line.adopt(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req, context=ssl.create_default_context())

    return PlainHandler(), SecureHandler()


def _request(url: Url, headers: Mapping[str, str]) -> urllib.request.Request:
    request = urllib.request.Request(url.text, headers=dict(headers))  # noqa: S310 checked in locate
    if authorization := url.authorization():
        request.add_unredirected_header("Authorization", authorization)
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    """At most REDIRECTS; credentials go to the origin that they were given for, only."""

    max_redirections = REDIRECTS

    def __init__(self, url: Url) -> None:
        self._url = url

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],  # noqa: ARG002 the standard library's signature
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: email.message.Message,  # noqa: ARG002
        newurl: str,
    ) -> urllib.request.Request | None:
        found = Url.parse(newurl)
        credentials = self._url.credentials if found.origin == self._url.origin else ""
        return _request(Url(found.text, credentials), req.headers)


@contextlib.contextmanager
def opened(url: Url, headers: Mapping[str, str], line: Line) -> Iterator[Answer]:
    """The answer to a GET, by the proxies that the environment names.

    Raises UnreachableError for what a retry may cure, BuildError otherwise."""
    common = {"User-Agent": "cloud-image-publisher", "Accept-Encoding": "identity"}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(url),
        *_connections(line),
    ):
        opener.add_handler(handler)
    with failures_of(url):
        answer = opener.open(_request(url, {**common, **headers}), timeout=TIMEOUT)
        if answer is None:
            raise BuildError(f"{url} leads to an address that is not http or https")
        response = cast("Answer", answer)
        with contextlib.closing(response):
            yield response


@contextlib.contextmanager
def failures_of(url: Url) -> Iterator[None]:
    """The standard library's exceptions as ours, without anything secret."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(url, error) from None
    except ssl.SSLCertVerificationError as error:
        raise BuildError(f"{url}: the certificate is not valid: {error.verify_message}") from None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise BuildError(
                f"{url}: the certificate is not valid: {reason.verify_message}"
            ) from None
        if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
            raise BuildError(f"{url}: there is no such host", hint="check the address") from None
        raise _unreachable(url, reason) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _unreachable(url, error) from None
    except ValueError as error:
        if isinstance(error, UnicodeError) or "URL" in str(error):
            raise BuildError(f"{url} is not a valid address", hint="check the address") from None
        raise


def _unreachable(url: Url, reason: object) -> UnreachableError:
    said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return UnreachableError(f"{url}: {said}", transient=True)


def _refusal(url: Url, error: urllib.error.HTTPError) -> Exception:
    if error.code in _CURABLE:
        wait = error.headers.get("Retry-After", "")
        return UnreachableError(
            f"{url}: {error.code} {error.reason}",
            code=str(error.code),
            transient=True,
            retry_after=float(wait) if wait.isdigit() else None,
        )
    if error.code in (301, 302, 303, 307, 308):
        return BuildError(
            f"{url} redirects more than {REDIRECTS} times, in a circle, or to what is not http"
        )
    hints = {
        401: "credentials may stand in ~/.netrc",
        403: "credentials may stand in ~/.netrc",
        404: "check the address: old images are often moved or removed",
        410: "check the address: old images are often moved or removed",
    }
    meaning = http.client.responses.get(error.code, "")
    return Refused(
        f"{url}: the server answered {error.code} {meaning}".strip(),
        hint=hints.get(error.code, "check the address"),
        code=error.code,
        content_range=error.headers.get("Content-Range", ""),
    )


class Refused(BuildError):
    """The server said no; `code` is its status."""

    def __init__(self, message: str, *, hint: str, code: int, content_range: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.content_range = content_range
