"""The disk host: pages behind a SAS, by plain HTTP over kept connections.

Rules of a managed disk's own ("md-") host: Put Page of at most 4 MiB and
512-aligned, never Put Blob or Delete, no If-Match. The SAS stays inside this
module: it is in no message, log or file.
https://learn.microsoft.com/rest/api/storageservices/put-page
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from providers.azure.credentials import is_loopback
from providers.azure.errors import refusal
from publisher.closing import Closing
from publisher.disks import extents as ext
from publisher.errors import Cancelled, ProviderError, UnreachableError
from publisher.model import MIB, SECTOR, Extent
from publisher.task import Task

PAGE_MAX = 4 * MIB
_VERSION = "2021-12-02"
_TIMEOUT = 30.0
_CHUNK = 256 * 1024


def pieces(extents: Iterable[Extent], limit: int = PAGE_MAX, gap: int = 0) -> Iterator[Extent]:
    """Extents cut at multiples of `limit`; neighbours nearer than `gap` are joined first."""
    joined: list[Extent] = []
    for extent in ext.merge(extents):
        if joined and extent.offset - joined[-1].end < gap:
            joined[-1] = Extent(joined[-1].offset, extent.end - joined[-1].offset)
        else:
            joined.append(extent)
    for extent in joined:
        at = extent.offset
        while at < extent.end:
            end = min(extent.end, (at // limit + 1) * limit)
            yield Extent(at, end - at)
            at = end


class Pages(Closing):
    """The pages of one disk, for as long as its SAS lives; thread-safe.

    Cancelling the task breaks all connections, so that no transfer outlives it.
    """

    def __init__(self, sas: str, task: Task) -> None:
        self._parts = urlsplit(sas)
        self._task = task
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        if self._tls is None and not is_loopback(sas):
            raise UnreachableError("Azure named a disk host without TLS", provider="azure")
        self._watcher = threading.Thread(target=self._watch, name="azure-pages", daemon=True)
        self._watcher.start()

    # -- what there is to do

    def length(self) -> int:
        """Bytes of the blob: the virtual size and the VHD's footer."""
        _, headers = self._request("HEAD", "", {})
        return int(headers["content-length"])

    def ranges(self) -> tuple[Extent, ...]:
        """What was ever written, merged; the rest reads as zeros."""
        found: list[Extent] = []
        marker = ""
        while True:
            query = "comp=pagelist" + (f"&marker={quote(marker, safe='')}" if marker else "")
            body, _ = self._request("GET", query, {})
            root = ElementTree.fromstring(body)  # noqa: S314 - Azure's own answer over TLS
            for item in root.iter("PageRange"):
                start = int(item.findtext("Start", "0"))
                found.append(Extent(start, int(item.findtext("End", "0")) + 1 - start))
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return ext.merge(found)

    def put(self, offset: int, data: bytes) -> None:
        """Write pages: 512-aligned, at most 4 MiB. May be repeated."""
        assert offset % SECTOR == 0
        assert len(data) % SECTOR == 0
        assert 0 < len(data) <= PAGE_MAX
        headers = {
            "x-ms-page-write": "update",
            "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}",
            "Content-Length": str(len(data)),
        }
        self._request("PUT", "comp=page", headers, data)

    def read(self, offset: int, length: int) -> bytes:
        headers = {"x-ms-range": f"bytes={offset}-{offset + length - 1}"}
        data, _ = self._request("GET", "", headers)
        if len(data) != length:
            raise ProviderError(
                f"asked for {length} bytes, got {len(data)}", provider="azure", transient=True
            )
        return data

    # -- how

    def _request(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """Retried as the task's policy says."""
        return self._task.retry(lambda: self._once(method, query, headers, body))

    def _once(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[bytes, Mapping[str, str]]:
        target = f"{self._parts.path}?{query + '&' if query else ''}{self._parts.query}"
        connection = self._connection()
        try:
            connection.request(
                method,
                target,
                body=self._chunks(body) if body is not None else None,
                headers={"x-ms-version": _VERSION, **headers},
            )
            # closed here, too: one whose host ends the connection keeps the socket open
            with connection.getresponse() as response:
                data = response.read()
        except Cancelled:
            self._drop(connection)
            raise
        except (OSError, http.client.HTTPException) as error:
            self._drop(connection)
            self._task.check()
            raise UnreachableError(
                f"the disk host does not answer: {type(error).__name__}",
                provider="azure",
                transient=True,
                hint="check the network, then run the same command again: it continues",
            ) from error
        received = {name.lower(): value for name, value in response.getheaders()}
        if response.status >= 300:
            raise self._refusal(response.status, received, data)
        return data, received

    def _chunks(self, body: bytes) -> Iterator[memoryview]:
        view = memoryview(body)
        for at in range(0, len(view), _CHUNK):
            self._task.check()
            yield view[at : at + _CHUNK]

    @staticmethod
    def _refusal(status: int, headers: Mapping[str, str], data: bytes) -> ProviderError:
        code = headers.get("x-ms-error-code", "")
        message = "the disk host refuses"
        with contextlib.suppress(ElementTree.ParseError):
            root = ElementTree.fromstring(data)  # noqa: S314 - Azure's own answer over TLS
            code = code or root.findtext("Code", "")
            message = (root.findtext("Message") or message).splitlines()[0]
        if status == 403:
            return ProviderError(
                f"the access to the disk has ended ({code or status})",
                provider="azure",
                code=code,
                hint="run the same command again: it asks for a new one and continues",
            )
        return refusal(status, code, message, headers.get("retry-after"))

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            with self._lock:
                self._open.add(connection)
            self._local.connection = connection
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        proxy = urllib.request.getproxies().get("https")
        if not proxy or urllib.request.proxy_bypass(host):
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=self._tls)
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        connection = http.client.HTTPSConnection(
            via.hostname or "", via.port or 8080, timeout=_TIMEOUT, context=self._tls
        )
        connection.set_tunnel(host, port or 443)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        with self._lock:
            self._open.discard(connection)
        self._local.connection = None

    def _watch(self) -> None:
        while not self._closed.is_set():
            if self._task.cancellation.wait(0.25):
                with self._lock:
                    for connection in self._open:
                        if connection.sock is not None:
                            with contextlib.suppress(OSError):
                                connection.sock.shutdown(socket.SHUT_RDWR)
                return

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
