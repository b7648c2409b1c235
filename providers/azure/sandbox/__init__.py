"""A stand-in for Azure on loopback: tokens, Resource Manager and the disk host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.emulation import FaultKind, Faults, FaultyApplication, Refusal, Server
from publisher.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from providers.azure.sandbox.arm import ResourceManager
    from providers.azure.sandbox.store import Entry, State


class AzureSandbox:
    """One subscription with the resource group "images"."""

    def __init__(self, state: Path, port: int = 0) -> None:
        self.faults = Faults()
        self._directory = state
        self._wanted_port = port
        self._server: Server | None = None
        self._state: State | None = None
        self._manager: ResourceManager | None = None

    def start(self) -> None:
        from providers.azure.sandbox.arm import ResourceManager
        from providers.azure.sandbox.store import State
        from providers.azure.sandbox.web import application

        self._state = State(self._directory)
        self._manager = ResourceManager(self._state, self.faults)
        self._state.save()
        served = FaultyApplication(application(self._manager.handle), self.faults, _refuse)
        self._server = Server(served, self._wanted_port)
        self._server.start()
        # A sandbox that starts again is found where its clients know it.
        self._wanted_port = self._server.port

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._state is not None:
            self._state.blobs.close()

    @property
    def manager(self) -> ResourceManager:
        """The stand-in itself, for tests that change its limits."""
        assert self._manager is not None, "the sandbox is not started"
        return self._manager

    @property
    def environment(self) -> Mapping[str, str]:
        from providers.azure.sandbox.identity import PATH
        from providers.azure.sandbox.resources import SUBSCRIPTION

        assert self._server is not None, "the sandbox is not started"
        url = self._server.url
        return {
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_MANAGER_ENDPOINT": url,
            "ARM_CLOUD_METADATA_URL": f"{url}/metadata/endpoints?api-version=2022-09-01",
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "IDENTITY_ENDPOINT": f"{url}{PATH}",
            "IDENTITY_HEADER": self.manager.identity_header,
        }

    def content(self, image_ref: str) -> Iterator[bytes]:
        from publisher.disks import vhd

        state, entry = self._stored(image_ref)
        blob = state.blobs.open(entry.blob)
        return blob.stream(blob.size - vhd.FOOTER)

    def corrupt(self, image_ref: str, offset: int) -> None:
        state, entry = self._stored(image_ref)
        state.blobs.open(entry.blob).flip(offset)

    def resources(self) -> Sequence[str]:
        """Disks, and versions once for each region. Galleries and definitions are free."""
        assert self._state is not None, "the sandbox is not started"
        found: list[str] = []
        with self._state.lock:
            for entry in self._state.resources.values():
                if entry.leaving:
                    continue
                if "/disks/" in entry.id.lower():
                    found.append(f"disk/{entry.id}")
                elif "/versions/" in entry.id.lower():
                    regions = entry.properties["publishingProfile"]["targetRegions"]
                    found += [f"version/{entry.id}@{region['name']}" for region in regions]
        return sorted(found)

    def _stored(self, ref: str) -> tuple[State, Entry]:
        """A version by its reference, or a disk by its resource id."""
        from providers.azure.refs import Ref

        assert self._state is not None, "the sandbox is not started"
        entry = self._state.get(ref if "/disks/" in ref.lower() else Ref.parse(ref).id)
        if entry is None:
            raise UsageError(f"the sandbox has no {ref}")
        return self._state, entry


def _refuse(kind: FaultKind, environ: WSGIEnvironment) -> Refusal:
    """Azure's answer to too many requests, and to a failure of its own."""
    storage = environ.get("PATH_INFO", "").startswith("/md-")
    headers = [("Content-Type", "application/json; charset=utf-8")]
    if storage:
        code = "ServerBusy" if kind == "throttle" else "InternalError"
        status = "503 The server is busy." if kind == "throttle" else "500 Internal Server Error"
        headers = [("Content-Type", "application/xml"), ("x-ms-error-code", code)]
        return status, headers, f"<Error><Code>{code}</Code></Error>".encode()
    if kind == "throttle":
        headers += [("Retry-After", "1"), ("x-ms-ratelimit-remaining-subscription-writes", "0")]
        error: Any = {"code": "TooManyRequests", "message": "The request is being throttled."}
        return "429 Too Many Requests", headers, json.dumps({"error": error}).encode()
    error = {"code": "InternalServerError", "message": "An internal error occurred."}
    return "500 Internal Server Error", headers, json.dumps({"error": error}).encode()
