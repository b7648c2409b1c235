"""Azure's wire server for one instance: the goal state, and what agents report.

Its protocol is known by its clients, WALinuxAgent (protocol/wire.py) and cloud-init
(sources/helpers/azure.py); what they can't send, it refuses.
https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

from providers.azure.guest import certificates, documents, words
from providers.azure.guest.identity import Identity
from publisher.proof.guest import Diary, Instance
from publisher.proof.run_key import RunKey

RECIPIENT = "x-ms-guest-agent-public-x509-cert"
CIPHER = "x-ms-cipher-name"


class WireServer:
    def __init__(self, instance: Instance, identity: Identity, location: str, diary: Diary) -> None:
        self._identity = identity
        self._diary = diary
        self._key = RunKey("publish rehearsal, not Azure", "azure")
        self._configs = {
            "hostingEnvironmentConfig": documents.hosting_environment(instance, identity),
            "sharedConfig": documents.shared(instance, identity),
            "extensionsConfig": documents.extensions(instance, identity, location),
        }

    def answer(self, request: Request) -> Response:
        response = self._route(request)
        line = f"{request.method} {request.full_path.rstrip('?')}"
        if response.status_code >= 400:
            self._diary.note("refused", f"{line}: {response.status}")
        elif request.method == "GET":
            self._diary.note("metadata", line)
        return response

    def _route(self, request: Request) -> Response:
        comp = request.args.get("comp", "")
        if request.path == "/HealthService" and request.method == "POST":
            return Response("", 200)
        if request.path == "/" and comp == "versions" and request.method == "GET":
            return _xml(documents.versions())
        parts = request.path.strip("/").split("/")
        if parts[0] != "machine":
            return _error(404, "ResourceNotFound", "The specified resource does not exist.")
        if request.headers.get("x-ms-version") not in documents.SUPPORTED:
            return _error(400, "InvalidHeaderValue", "x-ms-version is missing or not supported.")
        if request.method == "POST" and len(parts) == 1:
            return self._told(comp, request.get_data())
        if request.method != "GET":
            return _error(405, "UnsupportedHttpVerb", "The resource doesn't support that verb.")
        if len(parts) == 1 and comp == "goalstate":
            return _xml(documents.goal_state(self._identity))
        if parts[1:] != [self._identity.container, self._identity.role_instance]:
            return _error(410, "ResourceNotAvailable", "The goal state has another container.")
        return self._linked(request, comp)

    def _linked(self, request: Request, comp: str) -> Response:
        """What the goal state links to."""
        if request.args.get("incarnation") != documents.INCARNATION:
            return _error(410, "ResourceNotAvailable", "The goal state has another incarnation.")
        if comp == "config" and (text := self._configs.get(request.args.get("type", ""))):
            return _xml(text)
        if comp != "certificates":
            return _error(404, "ResourceNotFound", "The specified resource does not exist.")
        if request.headers.get(CIPHER, certificates.CIPHERS[0]) not in certificates.CIPHERS:
            return _error(400, "InvalidHeaderValue", f"{CIPHER} is not supported.")
        found = certificates.document(self._key, request.headers.get(RECIPIENT, ""))
        if found is None:
            return _error(400, "InvalidHeaderValue", f"{RECIPIENT} is missing or no certificate.")
        return _xml(found)

    def _told(self, comp: str, body: bytes) -> Response:
        if comp == "health":
            return self._health(body)
        root = words.parse(body)
        tags = {"roleProperties": "RoleProperties", "telemetrydata": "TelemetryData"}
        if comp not in tags:
            return _error(404, "ResourceNotFound", "The specified resource does not exist.")
        if root is None or root.tag != tags[comp]:
            return _error(400, "InvalidXmlRequest", "The request's XML is not of its schema.")
        if comp == "telemetrydata":
            for event in words.events(root):
                self._diary.note("agent", event)
            return Response("", 200)
        container = root.findtext("Container/ContainerId", "")
        if container != self._identity.container:
            return _error(410, "ResourceNotAvailable", "The goal state has another container.")
        for told in words.properties(root):
            self._diary.note("agent", f"role property {told}")
        return Response("", 202)

    def _health(self, body: bytes) -> Response:
        told = words.health(body)
        if told is None or told.state not in ("Ready", "NotReady"):
            return _error(400, "InvalidXmlRequest", "The request's XML is not of its schema.")
        mine = (documents.INCARNATION, self._identity.container, self._identity.role_instance)
        if (told.incarnation, told.container, told.role_instance) != mine:
            return _error(410, "ResourceNotAvailable", "The goal state is another one.")
        ready = told.state == "Ready"
        text = told.state + (f": {told.detail}" if told.detail else "")
        self._diary.note("ready" if ready else "not-ready", text)
        return Response("", 200)


def _xml(text: str) -> Response:
    return Response(text, content_type="text/xml; charset=utf-8")


def _error(status: int, code: str, message: str) -> Response:
    head = documents.HEAD
    text = f"{head}<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Response(text, status, content_type="text/xml; charset=utf-8")
