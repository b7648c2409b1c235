#!/usr/bin/env python3
"""Runs on the short-lived machine as its startup script: reads a disk and sends what it holds.

Needs Python 3.9 and its standard library only. Instructions come from the
metadata server; the machine has no credentials, only the addresses of resumable
upload sessions that were made for it. Each segment of the disk becomes a gzip
stream of records (offset, length, bytes) without the zeros, closed by the
SHA-256 of all that came before it.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import json
import os
import ssl
import struct
import time
import traceback
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

METADATA = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
DEVICES = os.environ.get("DISK_BY_ID", "/dev/disk/by-id")
RECORD = struct.Struct(">QI")
END = 2**64 - 1
BLOCK = 1024 * 1024
UNIT = 64 * 1024
CHUNK = 8 * 1024 * 1024
WORKERS = 4
ATTEMPTS = 12
ATTACH_SECONDS = 1800
ZEROS = bytes(BLOCK)


def attribute(name: str) -> str:
    """An attribute of this instance, from the metadata server."""
    connection = http.client.HTTPConnection(METADATA, timeout=30)
    path = "/computeMetadata/v1/instance/attributes/" + name
    connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the metadata server says {answer.status} for {name}")
    return body.decode()


class Session:
    """A resumable upload of unknown length, sent in chunks as it grows. `sent` is
    what the service has confirmed, -1 once the object is complete."""

    def __init__(self, url: str) -> None:
        self.parts = urllib.parse.urlsplit(url)
        self.waiting = bytearray()
        self.sent = 0
        self.connection: http.client.HTTPConnection | None = None

    def write(self, data: bytes) -> None:
        self.waiting += data
        while len(self.waiting) > CHUNK:
            self._send(CHUNK, "*")

    def close(self) -> None:
        self._send(len(self.waiting), str(self.sent + len(self.waiting)))

    def _connect(self) -> http.client.HTTPConnection:
        if self.parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.parts.netloc, timeout=60, context=context)
        return http.client.HTTPConnection(self.parts.netloc, timeout=60)

    def _tell(self, body: bytes, content_range: str) -> bool:
        """One request; True when the service said how far it is, False when it
        should be asked again. Raises when it refuses."""
        try:
            if self.connection is None:
                self.connection = self._connect()
            headers = {"Content-Range": content_range, "Content-Length": str(len(body))}
            target = self.parts.path + "?" + self.parts.query
            self.connection.request("PUT", target, body=body, headers=headers)
            with self.connection.getresponse() as answer:
                answer.read()
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return False
        if answer.status in (200, 201):
            self.sent = -1
            return True
        if answer.status == 308:
            header = answer.getheader("Range", "")
            arrived = int(header.rpartition("-")[2]) + 1 if header else 0
            if arrived < self.sent:
                raise RuntimeError("the upload session forgot bytes that it had confirmed")
            del self.waiting[: arrived - self.sent]
            self.sent = arrived
            return True
        if answer.status in (408, 429) or answer.status >= 500:
            return False
        raise RuntimeError(f"the upload session answers {answer.status}")

    def _send(self, length: int, total: str) -> None:
        """Send the first `length` waiting bytes; after a failure ask first how
        much has arrived."""
        goal = self.sent + length
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(0.1 * 2**attempt, 30))
                if not self._tell(b"", "bytes */" + total):
                    continue
            if self.sent >= 0 and (self.sent < goal or total != "*"):
                body = bytes(self.waiting[: goal - self.sent])
                told = f"bytes {self.sent}-{goal - 1}/{total}" if body else "bytes */" + total
                if not self._tell(body, told):
                    continue
            if self.sent < 0 or (self.sent >= goal and total == "*"):
                return
        raise RuntimeError("the upload session does not answer")


def ranges(handle: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what may hold data; block devices are read throughout."""
    position = start
    while position < stop:
        try:
            begin = os.lseek(handle, position, os.SEEK_DATA)
            end = os.lseek(handle, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == 6:  # ENXIO: nothing but a hole follows
                return
            begin, end = position, stop
        begin = begin - begin % UNIT
        if max(begin, position) < min(end, stop):
            yield max(begin, position), min(end, stop) - max(begin, position)
        position = max(end, position + 1)


def pieces(handle: int, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of everything in [start, stop) that is not zero."""
    for begin, length in ranges(handle, start, stop):
        position = begin
        while position < begin + length:
            data = os.pread(handle, min(BLOCK, begin + length - position), position)
            if not data:
                raise RuntimeError(f"the disk ends at {position}")
            if data != ZEROS[: len(data)]:
                for at in range(0, len(data), UNIT):
                    piece = data[at : at + UNIT]
                    if piece != ZEROS[: len(piece)]:
                        yield position + at, piece
            position += len(data)


def send_segment(path: str, segment: dict[str, Any]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        session = Session(segment["url"])
        digest = hashlib.sha256()
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for offset, data in pieces(handle, segment["offset"], segment["stop"]):
            head = RECORD.pack(offset, len(data))
            digest.update(head)
            digest.update(data)
            session.write(packer.compress(head))
            session.write(packer.compress(data))
        tail = RECORD.pack(END, digest.digest_size) + digest.digest()
        session.write(packer.compress(tail) + packer.flush())
        session.close()
    finally:
        os.close(handle)


def put(url: str, value: dict[str, Any]) -> None:
    session = Session(url)
    session.write(json.dumps(value).encode())
    session.close()


def wait_for(path: str) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise RuntimeError("the disk was not attached")
        time.sleep(0.05)


def main() -> None:
    orders = json.loads(attribute("publisher-read"))
    try:
        put(orders["ready"], {})
        path = os.path.join(DEVICES, "google-" + orders["device"])
        wait_for(path)
        handle = os.open(path, os.O_RDONLY)
        size = os.lseek(handle, 0, os.SEEK_END)
        os.close(handle)
        if size < orders["size"]:  # larger is fine: some disk types start at 10 GB
            raise RuntimeError(f"the disk has {size} bytes instead of {orders['size']}")
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda segment: send_segment(path, segment), orders["segments"]))
    except Exception as error:
        traceback.print_exc()
        put(orders["status"], {"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from None
    put(orders["status"], {"done": True})


if __name__ == "__main__":
    main()
