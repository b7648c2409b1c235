"""Google Cloud's local stand-in: Cloud Storage and Compute Engine on one loopback port."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.disks import extents as ext
from publisher.disks.raw import Reader
from publisher.emulation import FaultKind, Faults, FaultyApplication, Refusal, Server
from publisher.model import Disk

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from providers.gcp.sandbox.store import Document

PROJECT = "sandbox-project"
BUCKET = "sandbox-images"


class GcpSandbox:
    """One project with one bucket, kept under `state` between starts."""

    def __init__(self, state: Path, port: int = 0) -> None:
        self.faults = Faults()
        self._state = state
        self._port = port
        self._running: _Running | None = None

    def start(self) -> None:
        """On the port that was asked for, or the one of the last start, or any."""
        note = self._state / "port"
        last = 0
        with contextlib.suppress(OSError, ValueError):  # the first start, or one that was killed
            last = int(note.read_text())
        self._running = _Running(self._state, self._port, last, self.faults)
        self._port = self._running.server.port
        note.write_text(str(self._port))

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _now(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the stand-in is not started")
        return self._running

    @property
    def environment(self) -> Mapping[str, str]:
        running = self._now()
        url = running.server.url
        from providers.gcp.sandbox import identity

        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(running.key_file),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_CLOUD_UNIVERSE_DOMAIN": identity.UNIVERSE,
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{url}/compute/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
            "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE": str(running.key_file),
        }

    def expire_tokens(self) -> None:
        """All access tokens issued so far are refused from now on."""
        self._now().identity.expire()

    def _image(self, image_ref: str) -> Document:
        found = self._now().store.images.get(image_ref.rpartition("/")[2])
        if found is None:
            raise KeyError(image_ref)
        return found

    def content(self, image_ref: str) -> Iterator[bytes]:
        path = self._now().images.path(self._image(image_ref))
        with path.open("rb") as file:
            size = path.stat().st_size
            found = ext.merge(ext.of_file(file.fileno(), size))
        with Reader(Disk(path, size, "", found)) as reader:
            yield from reader.stream()

    def corrupt(self, image_ref: str, offset: int) -> None:
        """Flip one bit of the byte at `offset` of an image's disk, or of the
        object "BUCKET/NAME" where there is no such image."""
        running = self._now()
        image = running.store.images.get(image_ref.rpartition("/")[2])
        if image is not None:
            path = running.images.path(image)
        else:
            found = running.store.objects.get(image_ref)
            if found is None:
                raise KeyError(image_ref)
            path = running.storage.path(found)
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    def resources(self) -> Sequence[str]:
        store = self._now().store
        kinds = {
            "object": store.objects,
            "image": store.images,
            "disk": store.disks,
            "instance": store.instances,
        }
        return list(
            itertools.chain.from_iterable(
                (f"{kind}/{name}" for name, _ in documents.items())
                for kind, documents in kinds.items()
            )
        )


class _Running:
    """Everything that lives between start and stop."""

    def __init__(self, state: Path, port: int, preferred: int, faults: Faults) -> None:
        from providers.gcp.sandbox.disks import Disks
        from providers.gcp.sandbox.identity import Identity
        from providers.gcp.sandbox.images import Images
        from providers.gcp.sandbox.instances import Instances
        from providers.gcp.sandbox.operations import Operations
        from providers.gcp.sandbox.project import Project
        from providers.gcp.sandbox.storage import Storage
        from providers.gcp.sandbox.store import Store
        from providers.gcp.sandbox.uploads import Uploads
        from providers.gcp.sandbox.web import Application, Router

        state.mkdir(parents=True, exist_ok=True)
        self.store = Store(state)
        self.identity = Identity(state, PROJECT)
        self.storage = Storage(self.store, PROJECT)
        self.operations = Operations(self.store, PROJECT)
        self.images = Images(self.store, self.operations, PROJECT, self.storage, faults)
        disks = Disks(self.store, self.operations, PROJECT, self.images)
        self.instances = Instances(self.store, self.operations, PROJECT, disks)
        router = Router()
        router.add("POST", "/token", self.identity.token)
        Uploads(self.store, self.storage).routes(router)
        self.storage.routes(router)
        self.operations.routes(router)
        self.images.routes(router)
        disks.routes(router)
        self.instances.routes(router)
        Project(self.store, self.operations, PROJECT).routes(router)
        if self.store.buckets.get(BUCKET) is None:
            self.storage.make_bucket(BUCKET)
        application = Application(router, self.identity.admit)
        self.server = Server(FaultyApplication(application, faults, refusal), port, preferred)
        self.server.start()
        self.key_file = self.identity.start(self.server.url)
        self.instances.start()
        self.operations.start(self.server.url)

    def stop(self) -> None:
        self.server.stop()
        self.instances.stop()
        self.operations.stop()


def refusal(kind: FaultKind, environ: WSGIEnvironment) -> Refusal:
    """Google's own answer to too many requests, or of a service in trouble."""
    del environ
    headers = [("Content-Type", "application/json; charset=UTF-8")]
    if kind == "throttle":
        status, reason, message = (
            "429 Too Many Requests",
            "rateLimitExceeded",
            "Rate Limit Exceeded",
        )
    else:
        status, reason, message = "503 Service Unavailable", "backendError", "Backend Error"
    code = int(status[:3])
    error = {
        "message": message,
        "domain": "usageLimits" if code == 429 else "global",
        "reason": reason,
    }
    body = {"error": {"code": code, "message": message, "errors": [error]}}
    return status, headers, json.dumps(body).encode()
