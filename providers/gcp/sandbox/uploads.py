"""Cloud Storage uploads: simple, multipart, and resumable sessions with the rules of
https://cloud.google.com/storage/docs/performing-resumable-uploads."""

from __future__ import annotations

import re
import secrets
import urllib.parse
from pathlib import Path
from typing import Any

from providers.gcp.sandbox.storage import Hashes, Storage, compare, declared, multipart
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import age, stamp
from providers.gcp.sandbox.web import Answer, Refused, Request, Router

QUANTUM = 256 * 1024
WEEK = 7 * 24 * 3600
RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Uploads:
    def __init__(self, store: Store, storage: Storage) -> None:
        self._store = store
        self._storage = storage
        self._hashes: dict[str, Hashes] = {}
        for session, found in list(store.sessions.items()):
            if age(found["timeCreated"]) > WEEK:
                store.bytes(found["file"]).unlink(missing_ok=True)
                store.sessions.remove(session)

    def routes(self, router: Router) -> None:
        path = "/upload/storage/v1/b/{bucket}/o"
        router.add("POST", path, self._begin)
        router.add("PUT", path, self._continue)
        router.add("DELETE", path, self._cancel)

    def _begin(self, request: Request) -> Answer:
        bucket = request.arguments["bucket"]
        self._storage.bucket(bucket)
        kind = request.query.get("uploadType")
        request.pairs = [pair for pair in request.pairs if pair[0] != "upload_id"]
        self._storage.schema.parameters(request, "objects.insert")
        if kind == "resumable":
            return self._open(request, bucket)
        if kind not in ("media", "multipart"):
            raise Refused(400, f"Invalid value for uploadType: {kind}")
        metadata: dict[str, Any] = {}
        content_type = request.environ.get("CONTENT_TYPE", "")
        content = self._store.bytes(f"upload-{self._store.id()}")
        hashes = Hashes()
        try:
            with content.open("wb") as file:
                if kind == "multipart":
                    body = b"".join(request.pieces())
                    metadata, content_type, data = multipart(body, content_type)
                    self._storage.schema.check(metadata, "objects.insert")
                    hashes.update(data)
                    file.write(data)
                else:
                    for piece in request.pieces():
                        hashes.update(piece)
                        file.write(piece)
            if not request.whole:
                raise Refused(400, "The body ended too early")
            metadata = {"contentType": content_type, **metadata}
            return Answer(self._commit(request, bucket, metadata, content, hashes))
        finally:
            content.unlink(missing_ok=True)

    def _name(self, request: Request, metadata: Document) -> str:
        name = str(request.query.get("name") or metadata.get("name") or "")
        if not name:
            raise Refused(400, "Required parameter: name", "required")
        if len(name.encode()) > 1024 or re.search(r"[\r\n]", name):
            raise Refused(400, f"Invalid object name: {name}")
        return name

    def _commit(
        self, request: Request, bucket: str, metadata: Document, content: Path, hashes: Hashes
    ) -> Document:
        name = self._name(request, metadata)
        compare(hashes, declared(request, metadata))
        with self._store.lock:
            self._storage.precondition(request.query, self._storage.find(bucket, name))
            return self._storage.commit(bucket, metadata, name, content, hashes)

    # -- resumable

    def _open(self, request: Request, bucket: str) -> Answer:
        metadata = self._storage.schema.body(request, "objects.insert")
        name = self._name(request, metadata)
        self._storage.precondition(request.query, self._storage.find(bucket, name))
        metadata["contentType"] = (
            metadata.get("contentType") or request.header("X-Upload-Content-Type") or ""
        )
        session = secrets.token_urlsafe(48)
        announced = request.header("X-Upload-Content-Length")
        document: Document = {
            "bucket": bucket,
            "name": name,
            "metadata": metadata,
            "hashes": declared(request, metadata),
            "conditions": {k: v for k, v in request.query.items() if k.startswith("if")},
            "size": int(announced) if announced else None,
            "file": f"session-{self._store.id()}",
            "timeCreated": stamp(),
        }
        self._store.bytes(document["file"]).touch()
        self._store.sessions.put(session, document)
        self._hashes[session] = Hashes()
        query = urllib.parse.urlencode(
            {"uploadType": "resumable", "name": name, "upload_id": session}
        )
        place = f"{request.url}/upload/storage/v1/b/{bucket}/o?{query}"
        return Answer(headers={"Location": place, "X-GUploader-UploadID": session})

    def _session(self, request: Request) -> tuple[str, Document]:
        session = request.query.get("upload_id", "")
        found = self._store.sessions.get(session)
        if found is None or found["bucket"] != request.arguments["bucket"]:
            raise Refused(404, "No such upload session.", "notFound")
        if found.get("cancelled"):
            raise Refused(499, "The upload was cancelled.", "clientClosedRequest")
        return session, found

    def _cancel(self, request: Request) -> Answer:
        session, found = self._session(request)
        if "resource" not in found:
            self._store.bytes(found["file"]).unlink(missing_ok=True)
            self._store.sessions.put(session, {**found, "cancelled": True})
        return Answer(status=499, headers={"Content-Type": "text/html; charset=UTF-8"})

    def _received(self, session: str, found: Document) -> Hashes:
        """The hashes so far; read again from the file after a restart."""
        if session not in self._hashes:
            hashes = self._hashes[session] = Hashes()
            with self._store.bytes(found["file"]).open("rb") as file:
                while data := file.read(1 << 20):
                    hashes.update(data)
        return self._hashes[session]

    def _continue(self, request: Request) -> Answer:
        session, found = self._session(request)
        if "resource" in found:
            return Answer(found["resource"])
        hashes = self._received(session, found)
        header = request.header("Content-Range")
        if header:
            start, stop, total = self._range(header)
        elif request.length is None:
            raise Refused(411, "Length Required", "required")
        else:
            start, stop, total = 0, request.length, request.length
        if None not in (total, found["size"]) and total != found["size"]:
            raise Refused(400, "The total differs from X-Upload-Content-Length")
        if start is not None and stop is not None:
            self._append(request, found, hashes, start, stop, last=total == stop)
        if total is not None and hashes.size == total:
            return self._finish(session, found, hashes)
        headers = {"Range": f"bytes=0-{hashes.size - 1}"} if hashes.size else {}
        return Answer(status=308, headers=headers)

    @staticmethod
    def _range(header: str) -> tuple[int | None, int | None, int | None]:
        match = RANGE.fullmatch(header)
        if not match:
            raise Refused(400, f"Failed to parse Content-Range header: {header}")
        total = None if match[3] == "*" else int(match[3])
        if match[1] is None:
            return None, None, total
        start, stop = int(match[1]), int(match[2]) + 1
        if stop <= start or (total is not None and stop > total):
            raise Refused(400, f"Failed to parse Content-Range header: {header}")
        return start, stop, total

    def _append(
        self,
        request: Request,
        found: Document,
        hashes: Hashes,
        start: int,
        stop: int,
        *,
        last: bool,
    ) -> None:
        """Store what is new of [start, stop). What was received whole is kept in
        whole quanta when the client hangs up, as the real service does."""
        if start > hashes.size:
            raise Refused(
                503,
                "Invalid request. According to the Content-Range header, the upload offset is "
                f"{start} byte(s), which exceeds already uploaded size of {hashes.size} byte(s).",
                "backendError",
            )
        if request.length is not None and request.length != stop - start:
            raise Refused(400, "Content-Length and Content-Range differ")
        if not last and (stop - start) % QUANTUM:
            raise Refused(400, f"A chunk that is not the last is a multiple of {QUANTUM} bytes")
        skip = hashes.size - start
        waiting = bytearray()
        with self._store.bytes(found["file"]).open("ab") as file:
            for piece in request.pieces():
                fresh = piece[skip:]
                skip = max(0, skip - len(piece))
                waiting += fresh
                ready = len(waiting) - len(waiting) % QUANTUM
                if ready:
                    data = bytes(waiting[:ready])
                    file.write(data)
                    hashes.update(data)
                    del waiting[:ready]
            if waiting and request.whole and last:
                file.write(waiting)
                hashes.update(bytes(waiting))
        if not request.whole:
            raise Refused(503, "The client hung up.", "backendError")

    def _finish(self, session: str, found: Document, hashes: Hashes) -> Answer:
        content = self._store.bytes(found["file"])
        try:
            compare(hashes, found["hashes"])
            with self._store.lock:
                bucket, name = found["bucket"], found["name"]
                self._storage.precondition(found["conditions"], self._storage.find(bucket, name))
                made = self._storage.commit(bucket, found["metadata"], name, content, hashes)
                self._store.sessions.put(session, {**found, "resource": made})
        except Refused:
            content.unlink(missing_ok=True)
            self._store.sessions.remove(session)
            raise
        self._hashes.pop(session, None)
        return Answer(made)
