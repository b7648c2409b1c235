"""The WSGI application: checks the signature, answers for EC2 images and snapshots,
EBS direct, STS and quotas itself, and hands everything else to moto's server."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from providers.aws.sandbox import account, wire
from providers.aws.sandbox.ebs import Ebs
from providers.aws.sandbox.images import Images
from providers.aws.sandbox.signature import Caller, scope, unknown_key, verify
from providers.aws.sandbox.snapshots import Snapshots
from providers.aws.sandbox.store import Store
from providers.aws.sandbox.wire import Answer, Refused
from publisher.emulation import FaultKind, Faults, Refusal
from publisher.provider import sdk_imports

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Action = Callable[[Caller, Mapping[str, Any]], Mapping[str, Any]]
_OURS = re.compile(rb"(?:^|&)ResourceId\.1=(ami|snap)-")


class Application:
    def __init__(self, store: Store, faults: Faults) -> None:
        self.ebs = Ebs(store, faults)
        self._store = store
        snapshots = Snapshots(store, faults)
        images = Images(store, faults, snapshots)
        settings = account.Settings(store)
        tags = account.Tags(store, images, snapshots)
        self._actions: dict[str, Action] = {}
        for service in (snapshots, images, settings, tags):
            for name in dir(type(service)):
                title = "".join(part.capitalize() for part in name.split("_"))
                if "_" in name[1:] and not name.startswith("_"):
                    self._actions[title] = getattr(service, name)
        self._moto: WSGIApplication | None = None
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        query: str = environ["aws.query"]
        checksum = hashlib.sha256(body)
        try:
            caller = verify(environ, query, checksum.hexdigest())
            if caller.region not in account.ENABLED and caller.service in ("ec2", "ebs", "sts"):
                raise unknown_key(caller.service)  # as a region that is not opted in answers
            answer = self._route(caller, environ, query, body, checksum.digest())
        except Refused as refused:
            answer = wire.error_answer(scope(environ)[1], refused)
        if answer is None:
            environ["wsgi.input"] = io.BytesIO(body)
            environ["QUERY_STRING"] = query
            return self._backend()(environ, start_response)
        status, headers, payload = answer
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [*headers, ("Content-Length", str(len(payload)))],
        )
        return [payload]

    def _route(
        self, caller: Caller, environ: WSGIEnvironment, query: str, body: bytes, checksum: bytes
    ) -> Answer | None:
        """None for what moto answers."""
        if caller.service == "ebs":
            return self.ebs.answer(
                caller,
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                query,
                environ,
                body,
                checksum,
            )
        action = action_of(body)
        if caller.service == "sts" and action == "GetCallerIdentity":
            wire.parse_query("sts", body)
            return wire.query_answer("sts", action, account.identity(caller))
        if caller.service == "servicequotas":
            return account.service_quota(environ.get("HTTP_X_AMZ_TARGET", ""), body)
        handler = self._actions.get(action)
        if caller.service != "ec2" or handler is None:
            return None
        if action in ("CreateTags", "DeleteTags") and not _OURS.search(body):
            return None
        _, parameters = wire.parse_query("ec2", body)
        with self._store.lock:
            return wire.query_answer("ec2", action, handler(caller, parameters))

    def _backend(self) -> WSGIApplication:
        with self._lock:
            if self._moto is None:
                with sdk_imports:
                    from moto.moto_server.werkzeug_app import (
                        DomainDispatcherApplication,
                        create_backend_app,
                    )

                self._moto = DomainDispatcherApplication(create_backend_app)
            return self._moto


def action_of(body: bytes) -> str:
    return parse_qs(body.decode(errors="replace")).get("Action", [""])[0] if body else ""


class Labelled:
    """Shows the action of a form request as its query ("POST /?Action=RegisterImage"), so
    that faults can be aimed; the query that was signed stays in `aws.query`."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["aws.query"] = environ.get("QUERY_STRING", "")
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            environ["QUERY_STRING"] = f"Action={action_of(body)}"
        return self._application(environ, start_response)


def refuse(kind: FaultKind, environ: WSGIEnvironment) -> Refusal:
    """What each service says when it throttles or fails.

    https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
    """
    service = scope(environ)[1]
    throttled = kind == "throttle"
    if service == "ec2":
        refused = (
            Refused("RequestLimitExceeded", "Request limit exceeded.", 503)
            if throttled
            else Refused("InternalError", "An internal error has occurred", 500)
        )
    elif service == "ebs":
        refused = (
            Refused("RequestThrottledException", "Rate exceeded", 400, "ACCOUNT_THROTTLED")
            if throttled
            else Refused("InternalServerException", "An internal error has occurred", 500)
        )
    else:
        refused = (
            Refused("ThrottlingException" if service != "sts" else "Throttling", "Rate exceeded")
            if throttled
            else Refused("InternalFailure", "An internal error has occurred", 500)
        )
    status, headers, body = wire.error_answer(service, refused)
    return f"{status} {HTTPStatus(status).phrase}", headers, body
