"""The disk host: page blobs behind a SAS, with the rules of managed disks.

https://learn.microsoft.com/rest/api/storageservices/put-page
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from urllib.parse import quote

from providers.azure.sandbox.store import Blob, State
from providers.azure.sandbox.web import Answer, Request
from publisher.model import MIB, SECTOR

PAGE_MAX = 4 * MIB
_LISTED = 10_000
_SV = "2018-03-28"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def sign(key: str, blob: str, policy: str) -> str:
    """Path and query of a SAS."""
    return (
        f"/md-{blob}/abcd?sv={_SV}&sr=b&si={policy}&sig={quote(_mac(key, blob, policy), safe='')}"
    )


def _mac(key: str, blob: str, policy: str) -> str:
    text = f"/md-{blob}/abcd\n{policy}\n{_SV}\nb"
    return base64.b64encode(
        hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).digest()
    ).decode()


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(
            status,
            f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code>'
            f"<Message>{message}</Message></Error>".encode(),
            {"Content-Type": "application/xml", "x-ms-error-code": code},
        )


class Pages:
    """`list_limit` is how many ranges one answer names; tests may lower it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.list_limit = _LISTED

    def handle(self, request: Request) -> Answer:
        try:
            blob, access = self._open(request)
            return self._serve(request, blob, access)
        except _Refused as refused:
            return refused.answer

    def _open(self, request: Request) -> tuple[Blob, str]:
        name = request.path.split("/")[1].removeprefix("md-")
        query = request.query
        policy = query.get("si", "")
        grant = self._state.grants.get(policy)
        signature = _mac(self._state.key, name, policy)
        if (
            grant is None
            or grant["blob"] != name
            or query.get("sv") != _SV
            or query.get("sr") != "b"
            or not hmac.compare_digest(query.get("sig", "").encode(), signature.encode())
            or grant["expires"] < time.time()
        ):
            raise _Refused(
                403,
                "AuthenticationFailed",
                "Server failed to authenticate the request: the signature is wrong, "
                "expired or revoked.",
            )
        return self._state.blobs.open(name), str(grant["access"])

    def _serve(self, request: Request, blob: Blob, access: str) -> Answer:
        if request.header("If-Match") or request.header("If-None-Match"):
            raise _Refused(400, "UnsupportedHeader", "Managed disks know no conditional requests.")
        comp = request.query.get("comp", "")
        if request.method == "HEAD" and not comp:
            return Answer(200, _nothing(), self._headers(blob, blob.size))
        if request.method == "GET" and not comp:
            return self._read(request, blob)
        if request.method == "GET" and comp == "pagelist":
            return self._list(request, blob)
        if request.method == "PUT" and comp == "page":
            if access != "write":
                raise _Refused(
                    403, "AuthorizationPermissionMismatch", "This access is for reading only."
                )
            return self._write(request, blob)
        # Put Blob would delete and recreate the disk's blob; Delete would remove it.
        raise _Refused(
            403,
            "AuthorizationPermissionMismatch",
            f"{request.method} {comp or 'blob'} is not allowed on a managed disk.",
        )

    @staticmethod
    def _headers(blob: Blob, length: int) -> dict[str, str]:
        return {
            "Content-Length": str(length),
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "x-ms-blob-type": "PageBlob",
            "x-ms-blob-content-length": str(blob.size),
            "x-ms-version": _SV,
        }

    @staticmethod
    def _range(request: Request, blob: Blob) -> tuple[int, int] | None:
        """First byte and length, or None without a range."""
        text = request.header("x-ms-range") or request.header("Range")
        if not text:
            return None
        match = _RANGE.fullmatch(text)
        if match is None:
            raise _Refused(400, "InvalidHeaderValue", "The range is malformed.")
        start = int(match[1])
        end = min(int(match[2]) if match[2] else blob.size - 1, blob.size - 1)
        if start >= blob.size or end < start:
            raise _Refused(416, "InvalidRange", "The range is outside the blob.")
        return start, end - start + 1

    def _read(self, request: Request, blob: Blob) -> Answer:
        wanted = self._range(request, blob)
        start, length = wanted or (0, blob.size)
        headers = self._headers(blob, length)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{blob.size}"
        return Answer(206 if wanted else 200, _pieces(blob, start, length), headers)

    def _list(self, request: Request, blob: Blob) -> Answer:
        start, length = self._range(request, blob) or (0, blob.size)
        marker = request.query.get("marker", "")
        first = int(marker) if marker.isdigit() else start
        found = [r for r in blob.ranges() if r.end > first and r.offset < start + length]
        shown = found[: self.list_limit]
        items = "".join(
            f"<PageRange><Start>{max(r.offset, first)}</Start>"
            f"<End>{min(r.end, start + length) - 1}</End></PageRange>"
            for r in shown
        )
        following = f"<NextMarker>{shown[-1].end}</NextMarker>" if len(found) > len(shown) else ""
        body = f'<?xml version="1.0" encoding="utf-8"?><PageList>{items}{following}</PageList>'
        return Answer(
            200,
            body.encode(),
            {
                "Content-Type": "application/xml",
                "x-ms-blob-content-length": str(blob.size),
            },
        )

    def _write(self, request: Request, blob: Blob) -> Answer:
        if request.header("x-ms-blob-content-md5"):
            raise _Refused(400, "UnsupportedHeader", "Managed disks keep no Content-MD5.")
        kind = request.header("x-ms-page-write").lower()
        wanted = _RANGE.fullmatch(request.header("x-ms-range") or request.header("Range"))
        if wanted is None or not wanted[2]:
            raise _Refused(400, "InvalidHeaderValue", "Put Page needs x-ms-range: bytes=A-B.")
        start, end = int(wanted[1]), int(wanted[2]) + 1
        if start % SECTOR or end % SECTOR or end <= start or end > blob.size:
            raise _Refused(416, "InvalidPageRange", "The page range is not aligned or outside.")
        stated = request.header("Content-Length")
        if not stated.isdigit():
            raise _Refused(411, "MissingContentLengthHeader", "Content-Length is missing.")
        length = int(stated)
        if kind == "clear":
            if length:
                raise _Refused(400, "InvalidHeaderValue", "A clear has no body.")
            blob.clear(start, end - start)
        elif kind == "update":
            if end - start > PAGE_MAX or length > PAGE_MAX:
                raise _Refused(413, "RequestBodyTooLarge", "A page write has 4 MiB at most.")
            if length != end - start:
                raise _Refused(
                    400, "InvalidHeaderValue", "Content-Length differs from the page range."
                )
            data = request.read(length)
            if len(data) != length:
                raise _Refused(400, "IncompleteBody", "The body ended early.")
            blob.write(start, data)
        else:
            raise _Refused(400, "InvalidHeaderValue", "x-ms-page-write is update or clear.")
        return Answer(201, None, {"x-ms-blob-sequence-number": "0", "x-ms-version": _SV})


def _pieces(blob: Blob, start: int, length: int) -> Iterator[bytes]:
    for at in range(start, start + length, PAGE_MAX):
        yield blob.read(at, min(PAGE_MAX, start + length - at))


def _nothing() -> Iterator[bytes]:
    return iter(())
