"""What all Compute collections share: paths, checks of requests, public views, lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from providers.gcp.sandbox import labels
from providers.gcp.sandbox.operations import Operations
from providers.gcp.sandbox.schema import Schema
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import stamp
from providers.gcp.sandbox.web import Answer, Refused, Request, Router, not_found

ZONES = ("us-central1-a", "us-central1-b", "europe-west1-b")
BASE = "/compute/v1/projects/{project}"


def public(document: Document) -> Document:
    return {key: value for key, value in document.items() if not key.startswith("_")}


def tail(link: str) -> str:
    """The last piece of a resource's URL."""
    return link.rstrip("/").rpartition("/")[2]


class Collection:
    """Base of images, disks and instances."""

    def __init__(self, store: Store, operations: Operations, project: str) -> None:
        self.store = store
        self.operations = operations
        self.project = project
        self.schema = Schema("compute.v1")

    def add(
        self,
        router: Router,
        method: str,
        path: str,
        name: str,
        handler: Callable[[Request], Answer],
    ) -> None:
        """Route BASE + path to the method of that name; project, zone and query are checked."""

        def checked(request: Request) -> Answer:
            project = request.arguments["project"]
            if project != self.project and not self.foreign(project, request):
                raise not_found(f"The resource 'projects/{project}'")
            zone = request.arguments.get("zone")
            if zone is not None and zone not in ZONES:
                raise Refused(400, f"Invalid value for field 'zone': '{zone}'. Unknown zone.")
            self.schema.parameters(request, name)
            return handler(request)

        router.add(method, BASE + path, checked)

    def foreign(self, project: str, request: Request) -> bool:
        """True when a request for another project is to be answered."""
        del project, request
        return False

    def link(self, path: str) -> str:
        return f"{self.operations.url}/compute/v1/projects/{self.project}/{path}"

    def born(self, body: Document, kind: str, path: str) -> Document:
        """The fields that every new resource gets. Raises Refused for bad labels."""
        labels.check(body.get("labels", {}))
        return {
            **body,
            "kind": f"compute#{kind}",
            "id": self.store.id(),
            "creationTimestamp": stamp(),
            "selfLink": self.link(path),
            "labelFingerprint": labels.fingerprint(body.get("labels", {})),
        }

    def page(self, request: Request, kind: str, documents: Iterable[Document]) -> Answer:
        """A list answer: filtered, at most maxResults, with a token for the rest."""
        matches = labels.compile_filter(request.query.get("filter", ""))
        after = request.query.get("pageToken", "")
        most = int(request.query.get("maxResults", "500"))
        if not 0 <= most <= 500:
            raise Refused(400, f"Invalid value for field 'maxResults': '{most}'.")
        found = [d for d in documents if matches(d) and d["name"] > after]
        answer: Document = {"kind": f"compute#{kind}List", "id": kind}
        if found:
            answer["items"] = [public(document) for document in found[:most]]
        if len(found) > most:
            answer["nextPageToken"] = found[most - 1]["name"]
        return Answer(answer)

    def relabel(self, document: Document, body: Document) -> Document:
        """setLabels: the fingerprint must be the current one."""
        if body.get("labelFingerprint") != document["labelFingerprint"]:
            raise Refused(
                412,
                "Labels fingerprint either invalid or resource labels have changed",
                "conditionNotMet",
            )
        wanted = body.get("labels", {})
        labels.check(wanted)
        return {**document, "labels": wanted, "labelFingerprint": labels.fingerprint(wanted)}


def parse_image(link: str) -> tuple[str, str, bool]:
    """(project, name, is a family) of "projects/P/global/images/[family/]N" in any URL."""
    match = re.search(r"projects/([^/]+)/global/images/(family/)?([^/]+)$", link)
    if not match:
        raise Refused(400, f"Invalid value for field 'sourceImage': '{link}'.")
    return match[1], match[3], bool(match[2])


def gib(size: int) -> str:
    return str(-(-size // 1024**3))


def integer(value: Any) -> int:
    return int(value or 0)
