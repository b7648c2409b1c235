"""Compute Engine's metadata server for one instance.

Strict: Metadata-Flavor is required, X-Forwarded-For refused, only guest attributes
are written. Waits for a change as long as it is asked to.
https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from providers.gcp.guest import accounts, tree
from providers.gcp.guest.attributes import VALUE_MOST, GuestAttributes
from providers.gcp.guest.identity import Identity
from providers.gcp.guest.machine import ADDRESS
from providers.gcp.options import GcpOptions
from publisher.closing import CLOSING
from publisher.proof.guest import Instance, InstanceService, Look
from publisher.proof.run_key import RunKey

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT = "/computeMetadata/v1"
GUEST_ATTRIBUTES = "instance/guest-attributes"
ACCOUNTS = "instance/service-accounts"
DAY = 86_400
"""Seconds; no wait that has an end is longer."""
_SLICE = 0.5
"""Seconds between two looks of one who waits at whether the server closes."""


class Metadata(InstanceService):
    """The server behind metadata.google.internal."""

    def __init__(self, instance: Instance, look: Look, options: GcpOptions) -> None:
        self._identity = Identity.of(instance.seed, instance.address)
        super().__init__(self._identity)
        self._project = options.project
        self._zone = options.zone
        self._tree = tree.build(
            instance, self._identity, project=self._project, zone=self._zone, kind=look.kind
        )
        full = tree.host_name(instance, project=self._project, zone=self._zone)
        self._names = dict.fromkeys((full, full.partition(".")[0]), instance.address)
        self._written = GuestAttributes()
        self._changed = threading.Condition()
        self._key = RunKey("publish rehearsal, not Google", "gcp")

    @property
    def endpoints(self) -> Mapping[tuple[str, int], WSGIApplication]:
        return {(ADDRESS, 80): self._serve}

    @property
    def names(self) -> Mapping[str, str]:
        return self._names

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = VALUE_MOST
        try:
            response = self._answer(request)
        except RequestEntityTooLarge:
            response = _error(413, "The value is too large.")
        response.headers["Metadata-Flavor"] = "Google"
        response.headers["Server"] = "Metadata Server for VM"
        if response.status_code not in (200, 301, 404):
            line = f"{request.method} {request.path}: {response.status}"
            self._diary.note("refused", line)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path == "/":
            return _plain("computeMetadata/\n")
        if "X-Forwarded-For" in request.headers:
            return _error(403, "X-Forwarded-For is not allowed.")
        flavored = request.headers.get("Metadata-Flavor") == "Google"
        if not flavored and request.headers.get("X-Google-Metadata-Request") != "True":
            return _error(403, "Missing Metadata-Flavor:Google header.")
        if request.path in ("/computeMetadata", "/computeMetadata/"):
            return _plain("v1/\n")
        if request.path != ROOT and not request.path.startswith(ROOT + "/"):
            return _error(404, "The requested URL was not found on this server.")
        path = request.path.removeprefix(ROOT)
        if path.startswith(f"/{GUEST_ATTRIBUTES}/") and request.method in ("PUT", "DELETE"):
            return self._write(request, path.removeprefix(f"/{GUEST_ATTRIBUTES}/"))
        if request.method not in ("GET", "HEAD"):
            return _error(405, "Only GET is allowed here.")
        return self._account(request, path.strip("/")) or self._read(request, path)

    def _account(self, request: Request, path: str) -> Response | None:
        """The endpoints of a service account that are made when asked for."""
        account, _, name = path.rpartition("/")
        known = account.startswith(ACCOUNTS + "/") and tree.find(self._tree, account.split("/"))
        if not known or name not in ("token", "identity"):
            return None
        self._diary.note("token", f"{request.method} {request.path}")
        if name == "token":
            return Response(accounts.access_token(), content_type="application/json")
        token = accounts.identity_token(
            self._key, self._identity, request.args, project=self._project, zone=self._zone
        )
        if token is None:
            return _error(400, "non-empty audience parameter required")
        return _plain(token)

    def _write(self, request: Request, path: str) -> Response:
        namespace, slash, key = path.partition("/")
        if not slash or not key or "/" in key:
            return _error(400, "A guest attribute has a namespace and a key.")
        if request.method == "DELETE":
            self._written.delete(namespace, key)
        else:
            value = request.get_data().decode(errors="replace")
            if fault := self._written.write(namespace, key, value):
                return _error(400, fault)
            self._diary.note("agent", f"{namespace}/{key} = {value}")
        with self._changed:
            self._changed.notify_all()
        return _plain("")

    def _node(self, parts: list[str]) -> tree.Node | None:
        if parts[:2] == GUEST_ATTRIBUTES.split("/"):
            return tree.find(self._written.values(), parts[2:])
        return tree.find(self._tree, parts)

    def _read(self, request: Request, path: str) -> Response:
        parts = [part for part in path.split("/") if part]
        recursive = request.args.get("recursive", "").lower() == "true"
        alt = request.args.get("alt", "json" if recursive else "text").lower()
        node = self._node(parts)
        directory = node is not None and tree.is_directory(node)
        if node is None or (path.endswith("/") and not directory):
            return _error(404, "The requested URL was not found on this server.")
        if alt not in ("json", "text"):
            return _error(400, f"Unknown alt {alt}.")
        if directory and not path.endswith("/"):
            query = request.query_string.decode("latin-1")
            return redirect(f"{request.path}/{'?' + query if query else ''}", 301)
        if request.args.get("wait_for_change", "").lower() == "true":
            seconds = request.args.get("timeout_sec", "")
            if seconds and not (seconds.isascii() and seconds.isdigit()):
                return _error(400, "Invalid timeout_sec.")
            self._diary.note("agent", f"waits for a change of {request.path}")
            closing = request.environ.get(CLOSING) or threading.Event()
            last = request.args.get("last_etag", "")
            node = self._wait(parts, last, seconds, closing) or node
        self._note(request, node, parts, recursive=recursive)
        name = parts[-1] if parts else ""
        if alt == "json":
            body, kind = tree.as_json(node, name), "application/json"
        elif not directory:
            body, kind = tree.as_text(node), "application/text"
        else:
            body = tree.as_lines(node) if recursive else tree.as_listing(node)
            kind = "application/text"
        return Response(body, headers={"ETag": _etag(node)}, content_type=kind)

    def _wait(
        self, parts: list[str], last: str, seconds: str, closing: threading.Event
    ) -> tree.Node | None:
        """The node as soon as its etag is another one than `last`, by default its
        present one; as it is after `seconds` (without, at the server's end)."""
        deadline = time.monotonic() + min(int(seconds), DAY) if seconds else float("inf")
        with self._changed:
            known = last or _etag(self._node(parts))
            while _etag(self._node(parts)) == known and not closing.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _SLICE))
            return self._node(parts)

    def _note(
        self, request: Request, node: tree.Node, parts: list[str], *, recursive: bool
    ) -> None:
        line = f"{request.method} {request.path}"
        got = tree.as_lines(node, "/".join(parts)) if recursive else "/".join(parts)
        told = False
        if "attributes/user-data" in got:
            self._diary.note("user-data", line)
            told = True
        if "attributes/ssh-keys" in got:
            self._diary.note("key", line)
            told = True
        if not told:
            self._diary.note("metadata", line)


def _etag(node: tree.Node | None) -> str:
    text = "" if node is None else tree.as_json(node)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(text: str) -> Response:
    return Response(text, content_type="application/text")


def _error(status: int, reason: str) -> Response:
    page = f"<!DOCTYPE html>\n<html lang=en><title>Error {status}</title><p>{reason}\n"
    return Response(page, status, content_type="text/html; charset=UTF-8")
