"""Compute operations: work in the background, and requestId as the real service treats it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import stamp
from providers.gcp.sandbox.web import Answer, Refused, Request, Router, not_found

LOG = logging.getLogger(__name__)

Work: TypeAlias = Callable[[Document], None]
"""Carries out an operation (its document is handed in). Raises Failed. May be
called again after a restart, so it is idempotent."""


class Failed(Exception):
    """The operation ends with this error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Operations:
    """An operation is PENDING when it is made, RUNNING at the first look, and
    DONE at a later one when its work is over."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project
        self._kinds: dict[str, Work] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.url = ""

    def kind(self, name: str, work: Work) -> None:
        self._kinds[name] = work

    def start(self, url: str) -> None:
        """Go on with what a stopped process left unfinished."""
        self.url = url
        for name, document in self._store.operations.items():
            if not document["_over"]:
                self._run(name)

    def stop(self) -> None:
        for thread in list(self._threads.values()):
            thread.join()

    def routes(self, router: Router) -> None:
        base = "/compute/v1/projects/{project}"
        for place in ("/global", "/zones/{zone}"):
            router.add("GET", f"{base}{place}/operations", self._list)
            router.add("GET", f"{base}{place}/operations/{{operation}}", self._get)
            router.add("POST", f"{base}{place}/operations/{{operation}}/wait", self._wait)

    # -- making

    def earlier(self, request: Request, kind: str) -> Answer | None:
        """The operation that this requestId began before, if any. Raises
        Refused for an id that is no UUID, or zero, or of another operation."""
        asked = request.query.get("requestId")
        if asked is None:
            return None
        try:
            valid = uuid.UUID(asked).int != 0
        except ValueError:
            valid = False
        if not valid:
            raise Refused(400, f"Invalid value for field 'requestId': '{asked}'.")
        for document in self._store.operations.values():
            if document.get("clientOperationId") == asked:
                if document["operationType"] != kind:
                    raise Refused(400, f"The requestId '{asked}' belongs to another request.")
                return Answer(self._public(document))
        return None

    def begin_in(
        self, zone: str, request: Request, kind: str, name: str, **arguments: object
    ) -> Answer:
        """`begin` on the named resource of a zone; `kind` says what it is: disks.insert."""
        key = {"key": f"{zone}/{name}", **arguments}
        target = f"zones/{zone}/{kind.partition('.')[0]}/{name}"
        return self.begin(request, kind, target, key, zone=zone)

    def begin(
        self,
        request: Request,
        kind: str,
        target: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        zone: str = "",
    ) -> Answer:
        """Start the work of `kind` on `target` (a path below the project)."""
        number = self._store.id()
        now = stamp()
        base = f"{self.url}/compute/v1/projects/{self._project}"
        place = f"zones/{zone}" if zone else "global"
        name = f"operation-{number}"
        document: Document = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            "operationType": kind,
            "status": "PENDING",
            "progress": 0,
            "insertTime": now,
            "startTime": now,
            "targetLink": f"{base}/{target}",
            "selfLink": f"{base}/{place}/operations/{name}",
            "_arguments": dict(arguments or {}),
            "_over": False,
            "_zone": zone,
        }
        if zone:
            document["zone"] = f"{base}/zones/{zone}"
        if "requestId" in request.query:
            document["clientOperationId"] = request.query["requestId"]
        self._store.operations.put(name, document)
        self._run(name)
        return Answer(self._public(document))

    def _run(self, name: str) -> None:
        thread = threading.Thread(target=self._work, args=(name,), name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _work(self, name: str) -> None:
        document = self._store.operations.get(name)
        assert document is not None
        outcome: Document = {}
        try:
            self._kinds[document["operationType"]](document)
        except Failed as failure:
            error = {"code": failure.code, "message": failure.message}
            outcome = {
                "error": {"errors": [error]},
                "httpErrorStatusCode": failure.status,
                "httpErrorMessage": "BAD REQUEST",
            }
        except Exception as error:
            LOG.exception("%s failed in the stand-in", name)
            failure_text = {"code": "INTERNAL_ERROR", "message": f"Internal error: {error}"}
            outcome = {"error": {"errors": [failure_text]}, "httpErrorStatusCode": 500}
        with self._store.lock:
            latest = self._store.operations.get(name) or document
            self._store.operations.put(name, {**latest, **outcome, "_over": True})
        self._threads.pop(name, None)

    # -- looking

    @staticmethod
    def _public(document: Document) -> Document:
        return {key: value for key, value in document.items() if not key.startswith("_")}

    def _look(self, request: Request) -> Document:
        name = request.arguments["operation"]
        with self._store.lock:
            found = self._store.operations.get(name)
            if found is None or found["_zone"] != request.arguments.get("zone", ""):
                raise not_found(f"The resource 'operations/{name}'")
            if found["status"] == "PENDING":
                found = {**found, "status": "RUNNING", "progress": 50}
                self._store.operations.put(name, found)
            elif found["status"] == "RUNNING" and found["_over"]:
                found = {**found, "status": "DONE", "progress": 100, "endTime": stamp()}
                self._store.operations.put(name, found)
            return self._public(found)

    def _get(self, request: Request) -> Answer:
        return Answer(self._look(request))

    def _wait(self, request: Request) -> Answer:
        """Returns when the operation is DONE, or after a while all the same."""
        deadline = time.monotonic() + 5
        while True:
            found = self._look(request)
            if found["status"] == "DONE" or time.monotonic() > deadline:
                return Answer(found)
            time.sleep(0.01)

    def _list(self, request: Request) -> Answer:
        zone = request.arguments.get("zone", "")
        items = [
            self._public(document)
            for _, document in self._store.operations.items()
            if document["_zone"] == zone
        ]
        return Answer({"kind": "compute#operationList", "items": items})
