"""The host's side of the agent on port 32526 (HostGAPlugin), as WALinuxAgent uses it
(protocol/hostplugin.py)."""

from __future__ import annotations

import hashlib
import json

from werkzeug.wrappers import Request, Response

from providers.azure.guest import documents, words
from providers.azure.guest.identity import Identity
from publisher.proof.guest import Diary, Instance

API_VERSION = "2015-09-01"


class HostPlugin:
    def __init__(self, instance: Instance, identity: Identity, location: str, diary: Diary) -> None:
        self._identity = identity
        self._diary = diary
        created = documents.ticks()
        self._settings = documents.vm_settings(instance, identity, location, created)
        self._etag = str(int.from_bytes(hashlib.sha256(self._settings.encode()).digest()[:7]))

    def answer(self, request: Request) -> Response:
        response = self._route(request)
        line = f"{request.method} {request.path}"
        if response.status_code >= 400 and response.status_code != 404:
            self._diary.note("refused", f"{line}: {response.status}")
        elif request.method == "GET":
            self._diary.note("metadata", f"{line} on the host")
        return response

    def _route(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/versions":
                return _json(json.dumps([API_VERSION]))
            case "GET", "/health":
                return Response("", 200)
            case "GET", "/vmSettings":
                return self._refusal(request) or self._vm_settings(request)
            case "PUT", "/status":
                return self._refusal(request) or self._status(request.get_data())
            case "PUT", "/vmAgentLog":
                return self._refusal(request, config=False) or self._log(request.get_data())
            case "GET", "/extensionArtifact":
                return self._refusal(request) or Response("no such artifact", 404)
        return Response("", 404)

    def _refusal(self, request: Request, *, config: bool = True) -> Response | None:
        if request.headers.get("x-ms-version") != API_VERSION:
            return Response("x-ms-version is missing or not supported", 400)
        mine = request.headers.get("x-ms-containerid") == self._identity.container
        name = request.headers.get("x-ms-host-config-name")
        if not mine or (config and name != documents.config_name(self._identity)):
            return Response("InvalidContainerConfiguration", 400)
        return None

    def _vm_settings(self, request: Request) -> Response:
        headers = {"ETag": self._etag}
        if request.headers.get("If-None-Match") == self._etag:
            return Response(status=304, headers=headers)
        return _json(self._settings, headers)

    def _status(self, body: bytes) -> Response:
        told = words.status(body)
        if told is None:
            return Response("the status is not of its schema", 400)
        self._diary.note("agent", f"status: {told}")
        return Response("", 200)

    def _log(self, body: bytes) -> Response:
        self._diary.note("agent", f"logs of {len(body)} bytes")
        return Response("", 200)


def _json(text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(text, headers=headers, content_type="application/json; charset=utf-8")
