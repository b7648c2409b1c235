"""A running stand-in of Google Cloud and a plain HTTP client for it."""

from __future__ import annotations

import base64
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import requests

from providers.gcp.api import Api
from providers.gcp.sandbox import GcpSandbox

PROJECT, BUCKET = "sandbox-project", "sandbox-images"
MIB = 1024**2


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


class Cloud:
    """Requests with a valid token to one stand-in."""

    def __init__(self, sandbox: GcpSandbox) -> None:
        self.sandbox = sandbox
        self.api = Api()
        self.url = sandbox.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"].partition(
            "/compute"
        )[0]

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else self.url + path
        found: requests.Response = self.api.session().request(method, url, **options)
        return found

    def images(self, method: str, path: str = "", **options: Any) -> requests.Response:
        base = f"/compute/v1/projects/{PROJECT}/global/images"
        return self.request(method, base + path, **options)

    def finish(self, response: requests.Response) -> dict[str, Any]:
        """The operation once it is DONE."""
        assert response.status_code == 200, response.text
        operation: dict[str, Any] = response.json()
        while operation["status"] != "DONE":
            operation = self.request("GET", operation["selfLink"]).json()
        return operation

    def put(self, name: str, data: bytes, **query: str) -> requests.Response:
        return self.request(
            "POST",
            f"/upload/storage/v1/b/{BUCKET}/o",
            params={"uploadType": "media", "name": name, **query},
            data=data,
        )

    def begin(self, name: str, **metadata: Any) -> str:
        response = self.request(
            "POST",
            f"/upload/storage/v1/b/{BUCKET}/o",
            params={"uploadType": "resumable"},
            json={"name": name, **metadata},
        )
        assert response.status_code == 200, response.text
        return response.headers["Location"]

    def insert(self, name: str = "web", **fields: Any) -> requests.Response:
        """images.insert of the object disk.tar.gz, unless told otherwise."""
        query = fields.pop("query", {})
        source = f"https://storage.googleapis.com/{BUCKET}/disk.tar.gz"
        body = {"name": name, "rawDisk": {"source": source}, **fields}
        body = {key: value for key, value in body.items() if value is not None}
        return self.images("POST", json=body, params=query)


@contextmanager
def cloud(directory: Path) -> Iterator[Cloud]:
    sandbox = GcpSandbox(directory)
    sandbox.start()
    before = dict(os.environ)
    os.environ.update(sandbox.environment)
    try:
        yield Cloud(sandbox)
    finally:
        os.environ.clear()
        os.environ.update(before)
        sandbox.stop()


def gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def archive(
    size: int = 1024**3, name: str = "disk.raw", kind: Literal[0, 1, 2] = tarfile.GNU_FORMAT
) -> bytes:
    """A tar.gz of one member of zeros, not sparse."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    info = tarfile.TarInfo("disk.raw")
    info.size = size
    out = [packer.compress(info.tobuf(kind))]
    zeros = bytes(MIB)
    out += [packer.compress(zeros[: min(MIB, size - at)]) for at in range(0, size, MIB)]
    out.append(packer.compress(bytes(-size % 512 + 1024)))
    return b"".join([*out, packer.flush()])


def sparse_archive(size: int, name: str = "disk.raw") -> bytes:
    """The same of a sparse member without data, which takes no time."""
    from publisher.disks import sparse_tar
    from publisher.model import Disk

    disk = Disk(Path("/dev/null"), size, "", ())
    head = sparse_tar.headers(disk, name)
    return gzip(io.BytesIO(head).getvalue().ljust(sparse_tar.RECORD, b"\0"))
