"""Azure's instance metadata service for one instance.

Strict: Metadata: true, a known api-version, GET, and nothing through a proxy.
https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Mapping

from werkzeug.wrappers import Request, Response

from providers.azure.guest import tree
from providers.azure.guest.identity import SUBSCRIPTION, Identity
from publisher.proof.guest import Diary, Instance, Look
from publisher.proof.run_key import RunKey

EVENTS_VERSIONS = (
    "2017-08-01", "2017-11-01", "2019-01-01", "2019-04-01", "2019-08-01", "2020-07-01",
)  # fmt: skip
"""https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""
MORE = "For more information refer to aka.ms/azureimds"


class Imds:
    def __init__(
        self, instance: Instance, identity: Identity, look: Look, location: str, diary: Diary
    ) -> None:
        self._instance = instance
        self._identity = identity
        self._look = look
        self._location = location
        self._diary = diary
        self._key = RunKey("publish rehearsal, not Microsoft", "azure")

    def answer(self, request: Request) -> Response:
        response = self._refusal(request) or self._route(request)
        line = f"{request.method} {request.path}"
        if response.status_code in (400, 403, 405):
            self._diary.note("refused", f"{line}: {response.status}")
        else:
            told = response.status_code == 200 and b'"keyData"' in response.data
            self._diary.note("key" if told else "metadata", line)
        return response

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("Metadata", "").lower() != "true":
            return _error(400, "Bad request. Required metadata header not specified")
        if "X-Forwarded-For" in request.headers:
            return _error(400, "Bad request. X-Forwarded-For is not allowed")
        if request.method != "GET":
            return _error(405, "Method not allowed")
        if any(len(values) > 1 for _, values in request.args.lists()):
            return _error(400, "Bad request. Duplicate query parameters")
        return None

    def _route(self, request: Request) -> Response:
        root, _, rest = request.path.strip("/").partition("/")
        parts = [part for part in rest.split("/") if part]
        if root != "metadata" or not parts:
            return _error(404, "Not found")
        if parts == ["versions"]:
            return _json({"apiVersions": list(tree.VERSIONS)})
        version = request.args.get("api-version", "")
        known = tree.VERSIONS + (EVENTS_VERSIONS if parts == ["scheduledevents"] else ())
        if version not in known:
            newest: list[tree.Node] = [*reversed(tree.VERSIONS[-3:])]
            text = (
                f"Bad request. api-version is invalid or was not specified in the request. {MORE}"
            )
            return _json({"error": text, "newest-versions": newest}, 400)
        match parts:
            case ["instance", *below]:
                return self._instance_data(request, version, below)
            case ["attested", "document"]:
                return self._attested(request)
            case ["identity", "oauth2", "token"]:
                return _no_identity(request)
            case ["scheduledevents"]:
                return Response(
                    '{"DocumentIncarnation":1,"Events":[]}', mimetype="application/json"
                )
            case ["loadbalancer"]:
                return _error(404, "No load balancer metadata is found.")
        return _error(404, "Not found")

    def _instance_data(self, request: Request, version: str, below: list[str]) -> Response:
        wanted = request.args.get("format", "json")
        if wanted not in ("json", "text"):
            return _error(400, f"Bad request. Invalid format {wanted}")
        found: tree.Node = tree.build(
            self._instance, self._identity, self._look, location=self._location, version=version
        )
        if not below and request.args.get("extended") == "true" and isinstance(found, Mapping):
            found = {**found, **tree.extended(self._instance, version)}
        for part in below:
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return _error(404, "Not found")
        if isinstance(found, str):
            if wanted != "text":
                return _error(400, "Bad request. Leaf nodes are available with format=text only")
            return Response(found, content_type="text/plain; charset=utf-8")
        if wanted == "text":
            return Response(_listing(found), content_type="text/plain; charset=utf-8")
        return _json(found)

    def _attested(self, request: Request) -> Response:
        """The signature is by the rehearsal's key."""
        now = datetime.datetime.now(datetime.UTC)
        form = "%m/%d/%y %H:%M:%S -0000"
        document = {
            "nonce": request.args.get("nonce", now.strftime("%Y%m%d-%H%M%S")),
            "plan": {"name": "", "product": "", "publisher": ""},
            "sku": "",
            "subscriptionId": SUBSCRIPTION,
            "timeStamp": {
                "createdOn": now.strftime(form),
                "expiresOn": (now + datetime.timedelta(hours=6)).strftime(form),
            },
            "vmId": self._identity.vm_id,
        }
        signed = base64.b64encode(self._key.pkcs7(json.dumps(document).encode())).decode()
        return _json({"encoding": "pkcs7", "signature": signed})


def _no_identity(request: Request) -> Response:
    """The machine has no managed identity, so there is no token."""
    reason = (
        "Identity not found"
        if request.args.get("resource")
        else "Required audience parameter not specified"
    )
    return _json({"error": "invalid_request", "error_description": reason}, 400)


def _listing(node: tree.Node) -> str:
    entries = node.items() if isinstance(node, Mapping) else enumerate(_list(node))
    return "\n".join(
        f"{name}{'/' if isinstance(child, (Mapping, list)) else ''}" for name, child in entries
    )


def _list(node: tree.Node) -> list[tree.Node]:
    return node if isinstance(node, list) else []


def _json(node: tree.Node, status: int = 200) -> Response:
    return Response(json.dumps(node), status, content_type="application/json; charset=utf-8")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)
