"""Cloud Storage by its JSON API: what uploads and reads need of it, one request a method.

https://cloud.google.com/storage/docs/json_api/v1
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from providers.gcp.api import (
    PROVIDER,
    TIMEOUT,
    Api,
    classified,
    endpoint,
    from_response,
    unless_gone,
)
from publisher.errors import ProviderError
from publisher.task import Task

Resource: TypeAlias = dict[str, Any]

QUANTUM = 256 * 1024
COMPOSE_MOST = 32
_DONE = (200, 201)


def encoded_crc(value: int) -> str:
    """A CRC32C as Google writes it: big-endian, base64."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


class Body:
    """Bytes to send that stop being sent when the run is cancelled."""

    def __init__(self, data: memoryview, task: Task) -> None:
        self._data = data
        self._task = task

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        for at in range(0, len(self._data), QUANTUM):
            self._task.check()
            yield self._data[at : at + QUANTUM]


class Bucket:
    """One bucket. All methods raise ProviderError and retry nothing."""

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self._api = api

    def _url(self, path: str = "", **query: str) -> str:
        host = endpoint("STORAGE", "https://storage.googleapis.com")
        bucket = urllib.parse.quote(self.name, safe="")
        base = f"{host}{'/upload' if 'uploadType' in query else ''}/storage/v1/b/{bucket}{path}"
        return f"{base}?{urllib.parse.urlencode(query)}" if query else base

    def _object(self, name: str, suffix: str = "", **query: str) -> str:
        return self._url(f"/o/{urllib.parse.quote(name, safe='')}{suffix}", **query)

    def _send(self, method: str, url: str, **options: Any) -> Any:
        with classified():
            return self._api.session().request(method, url, timeout=TIMEOUT, **options)

    def _json(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Resource:
        options: dict[str, Any] = {}
        if body is not None:
            options["data"] = json.dumps(body).encode()
            options["headers"] = {"Content-Type": "application/json"}
        response = self._send(method, url, **options)
        if response.status_code >= 300:
            raise from_response(response)
        found: Resource = response.json() if response.content else {}
        return found

    # -- the bucket

    def permissions(self, wanted: Sequence[str]) -> set[str]:
        """Which of these permissions the caller holds on the bucket."""
        query = urllib.parse.urlencode([("permissions", name) for name in wanted])
        answer = self._json("GET", f"{self._url('/iam/testPermissions')}?{query}")
        return set(answer.get("permissions", ()))

    # -- objects

    def get(self, name: str) -> Resource | None:
        return unless_gone(lambda: self._json("GET", self._object(name)))

    def list(self, prefix: str) -> list[Resource]:
        found: list[Resource] = []
        query = {"prefix": prefix}
        while True:
            page = self._json("GET", self._url("/o", **query))
            found += page.get("items", [])
            if "nextPageToken" not in page:
                return found
            query["pageToken"] = page["nextPageToken"]

    def delete(self, name: str) -> None:
        """Gone already is fine."""
        unless_gone(lambda: self._json("DELETE", self._object(name)))

    def compose(
        self,
        name: str,
        parts: Sequence[Resource],
        resource: Mapping[str, Any],
        *,
        new: bool,
    ) -> Resource:
        """Concatenate up to 32 objects, each in the generation given. `new`: only
        where there is no such object (ConflictError otherwise)."""
        sources = [{"name": p["name"], "generation": p["generation"]} for p in parts]
        query = {"ifGenerationMatch": "0"} if new else {}
        body = {"sourceObjects": sources, "destination": resource}
        return self._json("POST", self._object(name, "/compose", **query), body)

    def read(self, name: str) -> Iterator[bytes]:
        """The object's bytes; at the end compared with the CRC32C that the service
        sends along. Raises ProviderError, transient, when they differ."""
        import google_crc32c

        response = self._send("GET", self._object(name, alt="media"), stream=True)
        with response:
            if response.status_code != 200:
                raise from_response(response)
            crc = 0
            with classified():
                for piece in response.iter_content(1024 * 1024):
                    crc = google_crc32c.extend(crc, piece)
                    yield piece
            announced = re.search(r"crc32c=([^,]+)", response.headers.get("X-Goog-Hash", ""))
            if announced and announced[1] != encoded_crc(crc):
                raise ProviderError(
                    f"{name} was damaged on its way", provider=PROVIDER, transient=True
                )

    # -- resumable sessions

    def begin(
        self, resource: Mapping[str, Any], *, generation: str = "0", size: int | None = None
    ) -> str:
        """Open a resumable session; returns its address, a capability that is never
        logged or stored. `resource` may declare the crc32c, which the service then
        checks; `generation` is the one to replace, "0" for none."""
        url = self._url("/o", uploadType="resumable", ifGenerationMatch=generation)
        headers = {"Content-Type": "application/json"}
        if size is not None:
            headers["X-Upload-Content-Length"] = str(size)
        response = self._send("POST", url, data=json.dumps(resource).encode(), headers=headers)
        if response.status_code not in _DONE:
            raise from_response(response)
        location: str = response.headers["Location"]
        return location

    def received(self, session: str, size: int) -> Resource | int:
        """The finished object, or how many bytes of the session have arrived."""
        headers = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return self._progress(self._send("PUT", session, headers=headers))

    def put(self, session: str, data: bytes, offset: int, task: Task) -> Resource | int:
        """Send all of `data` from `offset` on; as `received`."""
        body = Body(memoryview(data)[offset:], task)
        headers = {"Content-Range": f"bytes {offset}-{len(data) - 1}/{len(data)}"}
        return self._progress(self._send("PUT", session, data=body, headers=headers))

    @staticmethod
    def _progress(response: Any) -> Resource | int:
        if response.status_code in _DONE:
            made: Resource = response.json()
            return made
        if response.status_code == 308:
            match = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("Range", ""))
            return int(match[1]) + 1 if match else 0
        raise from_response(response)

    def cancel(self, session: str) -> None:
        """End a session, so that nobody can use its address any more."""
        response = self._send("DELETE", session)
        if response.status_code not in (499, 404, 410, 204, 200):
            raise from_response(response)
