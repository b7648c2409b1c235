"""Cloud Storage: buckets and objects of the JSON API (https://cloud.google.com/storage/docs/json_api)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from providers.gcp.sandbox.schema import Schema
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import stamp
from providers.gcp.sandbox.web import PIECE, Answer, Refused, Request, Router, not_found

PERMISSIONS = ("storage.buckets.get", "storage.objects.")
COMPOSE_MOST = 32


class Hashes:
    """crc32c and md5 of bytes as they pass."""

    def __init__(self) -> None:
        self._crc = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def update(self, data: bytes) -> None:
        self._crc = google_crc32c.extend(self._crc, data)
        self._md5.update(data)
        self.size += len(data)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc.to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()


def declared(request: Request, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The hashes that the client announced: in X-Goog-Hash or in the metadata."""
    found = {
        k: v for k, v in (("crc32c", metadata.get("crc32c")), ("md5", metadata.get("md5Hash"))) if v
    }
    for part in filter(None, request.header("X-Goog-Hash").split(",")):
        name, _, value = part.strip().partition("=")
        if name not in ("crc32c", "md5"):
            raise Refused(400, f"Invalid value for header X-Goog-Hash: {part}")
        found[name] = value
    return found


def compare(hashes: Hashes, announced: Mapping[str, str]) -> None:
    for name, value in announced.items():
        actual = hashes.crc32c if name == "crc32c" else hashes.md5
        if value != actual:
            raise Refused(
                400,
                f'Provided {name.upper()} hash "{value}" doesn\'t match calculated '
                f'{name.upper()} hash "{actual}".',
            )


class Storage:
    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self.schema = Schema("storage.v1", numbers=True)

    def routes(self, router: Router) -> None:
        def add(method: str, path: str, name: str, handler: Callable[[Request], Answer]) -> None:
            def checked(request: Request) -> Answer:
                self.schema.parameters(request, name)
                return handler(request)

            router.add(method, path, checked)

        bucket, objects = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o"
        add("GET", "/storage/v1/b", "buckets.list", self._list_buckets)
        add("POST", "/storage/v1/b", "buckets.insert", self._insert_bucket)
        add("GET", bucket, "buckets.get", self._get_bucket)
        add("DELETE", bucket, "buckets.delete", self._delete_bucket)
        add("GET", f"{bucket}/iam/testPermissions", "buckets.testIamPermissions", self._test)
        add("GET", objects, "objects.list", self._list)
        add("GET", f"{objects}/{{object}}", "objects.get", self._get)
        add("GET", f"/download{objects}/{{object}}", "objects.get", self._get)
        add("DELETE", f"{objects}/{{object}}", "objects.delete", self._delete)
        add("PATCH", f"{objects}/{{object}}", "objects.patch", self._patch)
        add("POST", f"{objects}/{{object}}/compose", "objects.compose", self._compose)

    # -- buckets

    def make_bucket(self, name: str, location: str = "US") -> Document:
        now = stamp()
        document: Document = {
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "projectNumber": "100000000001",
            "location": location,
            "storageClass": "STANDARD",
            "metageneration": "1",
            "timeCreated": now,
            "updated": now,
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        }
        self._store.buckets.put(name, document)
        return document

    def bucket(self, name: str) -> Document:
        found = self._store.buckets.get(name)
        if found is None:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        return found

    def _list_buckets(self, request: Request) -> Answer:
        if request.query.get("project") != self._project:
            raise Refused(400, "Invalid project", "invalid")
        items = [document for _, document in self._store.buckets.items()]
        return Answer({"kind": "storage#buckets", "items": items})

    def _insert_bucket(self, request: Request) -> Answer:
        if request.query.get("project") != self._project:
            raise Refused(400, "Invalid project", "invalid")
        body = self.schema.body(request, "buckets.insert")
        name = str(body.get("name", ""))
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name):
            raise Refused(400, f"Invalid bucket name: '{name}'")
        with self._store.lock:
            if self._store.buckets.get(name):
                raise Refused(409, "You already own this bucket.", "conflict")
            return Answer(self.make_bucket(name, str(body.get("location", "US"))))

    def _get_bucket(self, request: Request) -> Answer:
        return Answer(self.bucket(request.arguments["bucket"]))

    def _delete_bucket(self, request: Request) -> Answer:
        name = request.arguments["bucket"]
        self.bucket(name)
        if any(key.startswith(f"{name}/") for key, _ in self._store.objects.items()):
            raise Refused(409, "The bucket you tried to delete is not empty.", "conflict")
        self._store.buckets.remove(name)
        return Answer(status=204)

    def _test(self, request: Request) -> Answer:
        self.bucket(request.arguments["bucket"])
        asked = [value for key, value in request.pairs if key == "permissions"]
        held = [name for name in asked if name.startswith(PERMISSIONS)]
        return Answer({"kind": "storage#testIamPermissionsResponse", "permissions": held})

    # -- objects

    def find(self, bucket: str, name: str) -> Document | None:
        return self._store.objects.get(f"{bucket}/{name}")

    def object(self, bucket: str, name: str) -> Document:
        self.bucket(bucket)
        found = self.find(bucket, name)
        if found is None:
            raise Refused(404, f"No such object: {bucket}/{name}", "notFound")
        return found

    def path(self, resource: Document) -> Path:
        return self._store.bytes(f"object-{resource['generation']}")

    def precondition(self, asked: Mapping[str, str], found: Document | None) -> None:
        """ifGenerationMatch and its kin; 0 means "must not exist"."""
        generation = found["generation"] if found else "0"
        metageneration = found["metageneration"] if found else "0"
        for name, actual in (
            ("Generation", generation),
            ("Metageneration", metageneration),
        ):
            wanted = asked.get(f"if{name}Match")
            unwanted = asked.get(f"if{name}NotMatch")
            if (wanted is not None and wanted != actual) or unwanted == actual:
                raise Refused(
                    412,
                    "At least one of the pre-conditions you specified did not hold.",
                    "conditionNotMet",
                )

    def commit(
        self,
        bucket: str,
        metadata: Mapping[str, Any],
        name: str,
        content: Path,
        hashes: Hashes,
        *,
        components: int = 0,
    ) -> Document:
        """Make `content` (which goes) the object's bytes. Hold the lock."""
        old = self.find(bucket, name)
        generation = self._store.id()
        now = stamp()
        document: Document = {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": "1",
            "contentType": metadata.get("contentType") or "application/octet-stream",
            "storageClass": metadata.get("storageClass") or "STANDARD",
            "size": str(hashes.size),
            "crc32c": hashes.crc32c,
            "etag": base64.b64encode(generation.encode()).decode(),
            "timeCreated": now,
            "updated": now,
        }
        for key in ("metadata", "contentEncoding", "cacheControl", "customTime"):
            if metadata.get(key):
                document[key] = metadata[key]
        if components:
            document["componentCount"] = components
        else:
            document["md5Hash"] = hashes.md5
        os.link(content, self.path(document))
        self._store.discard(content)
        self._store.objects.put(f"{bucket}/{name}", document)
        if old:
            self._store.discard(self.path(old))
        return document

    def _list(self, request: Request) -> Answer:
        bucket = request.arguments["bucket"]
        self.bucket(bucket)
        prefix = f"{bucket}/{request.query.get('prefix', '')}"
        most = min(int(request.query.get("maxResults", "1000")), 1000)
        after = request.query.get("pageToken", "")
        found = [
            document
            for key, document in self._store.objects.items()
            if key.startswith(prefix) and document["name"] > after
        ]
        answer: Document = {"kind": "storage#objects", "items": found[:most]}
        if len(found) > most:
            answer["nextPageToken"] = found[most - 1]["name"]
        return Answer(answer)

    def _get(self, request: Request) -> Answer:
        found = self.object(request.arguments["bucket"], request.arguments["object"])
        self.precondition(request.query, found)
        if request.query.get("generation", found["generation"]) != found["generation"]:
            raise not_found("the generation")
        if request.query.get("alt") != "media":
            return Answer(found)
        size = int(found["size"])
        start, stop, status = 0, size, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.header("Range")):
            start = int(match[1])
            stop = min(int(match[2]) + 1, size) if match[2] else size
            if start >= stop:
                raise Refused(
                    416, "The requested range cannot be satisfied.", "requestedRangeNotSatisfiable"
                )
            status = 206
        hashes = f"crc32c={found['crc32c']}"
        if "md5Hash" in found:
            hashes += f",md5={found['md5Hash']}"
        headers = {
            "Content-Type": found["contentType"],
            "Content-Length": str(stop - start),
            "X-Goog-Hash": hashes,
            "X-Goog-Generation": found["generation"],
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Answer(_slice(self.path(found).open("rb"), start, stop), status, headers)

    def _delete(self, request: Request) -> Answer:
        with self._store.lock:
            found = self.object(request.arguments["bucket"], request.arguments["object"])
            self.precondition(request.query, found)
            self._store.objects.remove(f"{found['bucket']}/{found['name']}")
            self._store.discard(self.path(found))
        return Answer(status=204)

    def _patch(self, request: Request) -> Answer:
        body = self.schema.body(request, "objects.patch")
        with self._store.lock:
            found = self.object(request.arguments["bucket"], request.arguments["object"])
            self.precondition(request.query, found)
            merged = {**found.get("metadata", {}), **body.get("metadata", {})}
            changed = {**found, "metageneration": str(int(found["metageneration"]) + 1)}
            changed["metadata"] = {k: v for k, v in merged.items() if v is not None}
            self._store.objects.put(f"{found['bucket']}/{found['name']}", changed)
        return Answer(changed)

    def _compose(self, request: Request) -> Answer:
        bucket, name = request.arguments["bucket"], request.arguments["object"]
        self.bucket(bucket)
        body = self.schema.body(request, "objects.compose")
        sources = body["sourceObjects"]
        if not 1 <= len(sources) <= COMPOSE_MOST:
            raise Refused(
                400, f"The number of source components must be between 1 and {COMPOSE_MOST}."
            )
        with self._store.lock:
            self.precondition(request.query, self.find(bucket, name))
            parts = [self._source(bucket, source) for source in sources]
            metadata = body.get("destination", {})
            content = self._store.bytes(f"compose-{self._store.id()}")
            hashes = Hashes()
            with content.open("wb") as target:
                for part in parts:
                    for piece in _slice(self.path(part).open("rb"), 0, int(part["size"])):
                        hashes.update(piece)
                        target.write(piece)
            count = sum(int(part.get("componentCount", 1)) for part in parts)
            try:
                compare(hashes, declared(request, metadata))
            except Refused:
                content.unlink()
                raise
            made = self.commit(bucket, metadata, name, content, hashes, components=count)
        return Answer(made)

    def _source(self, bucket: str, source: Mapping[str, Any]) -> Document:
        part = self.object(bucket, source["name"])
        wanted = source.get("generation")
        if wanted is not None and str(wanted) != part["generation"]:
            raise Refused(404, f"No such object: {bucket}/{source['name']}#{wanted}", "notFound")
        match = source.get("objectPreconditions", {}).get("ifGenerationMatch")
        if match is not None and str(match) != part["generation"]:
            raise Refused(412, "The source object changed.", "conditionNotMet")
        return part


def _slice(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < stop:
            data = file.read(min(PIECE, stop - start))
            if not data:
                return
            start += len(data)
            yield data


def multipart(body: bytes, content_type: str) -> tuple[dict[str, Any], str, bytes]:
    """(metadata, content type, content) of a multipart/related upload."""
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if not match:
        raise Refused(400, "Missing multipart boundary")
    parts = body.split(b"--" + match[1].encode())
    if len(parts) != 4 or not parts[3].startswith(b"--"):
        raise Refused(400, "A multipart upload has exactly two parts")
    found = []
    for part in parts[1:3]:
        head, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not separator or not content.endswith(b"\r\n"):
            raise Refused(400, "A part of the multipart upload is malformed")
        found.append((BytesHeaderParser().parsebytes(head), content[:-2]))
    try:
        metadata = json.loads(found[0][1])
    except ValueError:
        raise Refused(400, "Parse Error", "parseError") from None
    return metadata, found[1][0].get("Content-Type", ""), found[1][1]
