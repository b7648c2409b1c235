"""Resource Manager: who may ask, for what, in which API version, and who answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from providers.azure.sandbox import identity, resources
from providers.azure.sandbox.disks import Disks
from providers.azure.sandbox.galleries import Galleries
from providers.azure.sandbox.identity import Identity
from providers.azure.sandbox.operations import Operations
from providers.azure.sandbox.pages import Pages
from providers.azure.sandbox.resources import Resources
from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.versions import Versions
from providers.azure.sandbox.web import Answer, Refused, Request
from publisher.emulation import Faults

_SUBSCRIPTION = r"/subscriptions/([^/]+)"
_GROUP = _SUBSCRIPTION + r"/resourceGroups/([^/]+)"
_COMPUTE = _GROUP + r"/providers/Microsoft\.Compute"
_LOCATION = _SUBSCRIPTION + r"/providers/Microsoft\.Compute/locations/([^/]+)"
_LISTED = 20

_PLAIN_VERSIONS = {
    "subscriptions": {"2022-12-01"},
    "groups": {"2021-04-01"},
    "permissions": {"2022-04-01"},
    "usages": {"2026-04-01"},
}


class ResourceManager:
    """The whole stand-in behind one port: tokens, Resource Manager and disk host."""

    def __init__(self, state: State, faults: Faults) -> None:
        self._state = state
        self._faults = faults
        self._identity = Identity(state.key)
        self._operations = Operations(state)
        self.resources = Resources(state)
        self.disks = Disks(state, self._operations)
        self.galleries = Galleries(state, self._operations)
        self.versions = Versions(state, self._operations)
        self.pages = Pages(state)

    @property
    def identity_header(self) -> str:
        return self._identity.header

    def handle(self, request: Request) -> Answer:
        if request.path.startswith("/md-"):
            return self.pages.handle(request)
        if request.path == identity.PATH:
            return self._identity.token(request)
        if request.path == "/metadata/endpoints":
            return self.resources.metadata(request)
        self._identity.check(request)
        with self._state.lock:
            self._operations.tick()
            answer = self._route(request)
        kind = "reads" if request.method == "GET" else "writes"
        answer.headers.setdefault(f"x-ms-ratelimit-remaining-subscription-{kind}", "11999")
        return answer

    def _route(self, request: Request) -> Answer:
        for pattern, serve in self._routes():
            match = re.fullmatch(pattern, request.path, re.IGNORECASE)
            if match is None:
                continue
            if match[1].lower() != resources.SUBSCRIPTION:
                raise Refused(
                    404, "SubscriptionNotFound", f"The subscription '{match[1]}' was not found."
                )
            return serve(request, *match.groups())
        raise Refused(404, "InvalidResourceType", f"The sandbox does not have {request.path}.")

    def _routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        galleries = _COMPUTE + r"/galleries"
        images = galleries + r"/[^/]+/images"
        versions = images + r"/[^/]+/versions"
        disk, gallery = _COMPUTE + r"/disks", self.galleries
        return [
            (_SUBSCRIPTION, self._plain("GET", "subscriptions", self.resources.subscription)),
            (
                _SUBSCRIPTION + "/locations",
                self._plain("GET", "subscriptions", self.resources.locations),
            ),
            (_GROUP, self._group),
            (
                _GROUP + r"/providers/Microsoft\.Authorization/permissions",
                self._plain("GET", "permissions", self.resources.get_permissions),
            ),
            (_LOCATION + "/usages", self._plain("GET", "usages", self.resources.usages)),
            (_LOCATION + r"/(?:Disk|caps)Operations/([^/]+)", self._operation),
            (disk, self._collection(self.disks.version)),
            (
                disk + "/[^/]+",
                self._resource(
                    self.disks.version, self.disks.get, self.disks.put, self.disks.delete
                ),
            ),
            (
                disk + "/[^/]+/beginGetAccess",
                self._action(self.disks.version, self.disks.begin_get_access),
            ),
            (
                disk + "/[^/]+/endGetAccess",
                self._action(self.disks.version, self.disks.end_get_access),
            ),
            (galleries, self._collection(gallery.version)),
            (
                galleries + "/[^/]+",
                self._resource(
                    gallery.version,
                    gallery.get_gallery,
                    gallery.put_gallery,
                    gallery.delete_gallery,
                ),
            ),
            (galleries + "/[^/]+/share", self._action(gallery.version, gallery.share)),
            (images, self._collection(gallery.version)),
            (
                images + "/[^/]+",
                self._resource(
                    gallery.version,
                    gallery.get_definition,
                    gallery.put_definition,
                    gallery.delete_definition,
                ),
            ),
            (versions, self._collection(gallery.version)),
            (
                versions + "/[^/]+",
                self._resource(
                    gallery.version,
                    self.versions.get,
                    self.versions.put,
                    self.versions.delete,
                ),
            ),
        ]

    # -- kinds of routes

    @staticmethod
    def _version(request: Request, known: set[str]) -> None:
        given = request.query.get("api-version")
        if given is None:
            raise Refused(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        if given not in known:
            raise Refused(
                400,
                "NoRegisteredProviderFound",
                f"No registered resource provider found for API version '{given}'. "
                f"The supported api-versions are '{', '.join(sorted(known))}'.",
            )

    def _plain(self, method: str, kind: str, serve: Callable[..., Answer]) -> Callable[..., Answer]:
        def route(request: Request, *names: str) -> Answer:
            self._version(request, _PLAIN_VERSIONS[kind])
            _expect(request, method)
            return serve(request, *names)

        return route

    def _group(self, request: Request, subscription: str, group: str) -> Answer:
        self._version(request, _PLAIN_VERSIONS["groups"])
        _expect(request, "GET", "PUT")
        serve = self.resources.get_group if request.method == "GET" else self.resources.put_group
        return serve(request, subscription, group)

    def _operation(self, request: Request, _subscription: str, _place: str, id_: str) -> Answer:
        self._version(request, {self.disks.version, self.galleries.version})
        _expect(request, "GET")
        return self._operations.answer(request, id_)

    def _collection(self, version: str) -> Callable[..., Answer]:
        def route(request: Request, _subscription: str, group: str) -> Answer:
            self._version(request, {version})
            _expect(request, "GET")
            self.resources.group(group)
            parent = request.path.rpartition("/")[0]
            if not parent.lower().endswith("microsoft.compute") and not self._state.get(parent):
                raise Refused(404, "ResourceNotFound", f"'{parent}' was not found.")
            found = [entry for entry in self._state.under(request.path) if self._visible(entry)]
            skip = int(request.query.get("$skiptoken", "0"))
            body: dict[str, Any] = {"value": [entry.body for entry in found[skip : skip + _LISTED]]}
            if len(found) > skip + _LISTED:
                body["nextLink"] = (
                    f"{request.root}{request.path}?api-version={version}"
                    f"&$skiptoken={skip + _LISTED}"
                )
            return Answer(200, body)

        return route

    def _resource(
        self,
        version: str,
        get: Callable[[Request, Entry], Answer],
        put: Callable[[Request, str], Answer],
        delete: Callable[[Request, Entry], Answer],
    ) -> Callable[..., Answer]:
        def route(request: Request, _subscription: str, group: str) -> Answer:
            self._version(request, {version})
            _expect(request, "GET", "PUT", "DELETE")
            self.resources.group(group)
            entry = self._state.get(request.path)
            if request.method == "PUT":
                return put(request, request.path)
            if entry is None and request.method == "DELETE":
                return Answer(204)
            if entry is None or (request.method == "GET" and not self._visible(entry)):
                name = request.path.rpartition("/providers/")[2]
                raise Refused(404, "ResourceNotFound", f"The Resource '{name}' was not found.")
            if request.method == "GET":
                return get(request, entry)
            return delete(request, entry)

        return route

    def _action(
        self, version: str, serve: Callable[[Request, Entry], Answer]
    ) -> Callable[..., Answer]:
        def route(request: Request, _subscription: str, group: str) -> Answer:
            self._version(request, {version})
            _expect(request, "POST")
            self.resources.group(group)
            id_ = request.path.rpartition("/")[0]
            entry = self._state.get(id_)
            if entry is None:
                raise Refused(404, "ResourceNotFound", f"The Resource '{id_}' was not found.")
            return serve(request, entry)

        return route

    def _visible(self, entry: Entry) -> bool:
        return time.time() - entry.born >= self._faults.visibility_delay


def _expect(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise Refused(
            405, "MethodNotAllowed", f"The request method {request.method} is not allowed."
        )
