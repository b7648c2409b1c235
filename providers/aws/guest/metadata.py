"""EC2's instance metadata service, versions 1 and 2, for one instance.

As strict as AWS describes it: the session token's bounds, 401 for a token that
is no good or missing where one is required, no token through a proxy. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Request, Response

from providers.aws.guest.identity import Identity
from providers.aws.guest.machine import IPV4, IPV6, TYPES
from providers.aws.guest.tokens import Tokens
from providers.aws.guest.tree import VERSIONS, Leaf, Tree, document, domain, host_name, leaves
from providers.aws.options import ARCHITECTURES, AwsOptions
from publisher.proof.guest import Instance, InstanceService, Look
from publisher.proof.run_key import RunKey

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
TTL = f"{TOKEN}-ttl-seconds"
_VERSIONED_TOKEN = re.compile(r"/(\d[\d.-]*)/api/token")


class Metadata(InstanceService):
    """The service at both of its addresses. Its signatures are by a key of the
    rehearsal's own and not Amazon's."""

    def __init__(self, instance: Instance, look: Look, options: AwsOptions) -> None:
        identity = Identity.of(instance.seed)
        super().__init__(identity)
        self._required = options.imds_v2
        self._user_data = instance.user_data.encode()
        self._tokens = Tokens()
        self._key = RunKey("publish rehearsal, not Amazon", "aws")
        kind = look.kind
        arch = next(arch for arch, shown in TYPES.items() if shown == kind)
        region = options.regions[0]
        self._document = document(
            instance, identity, arch=ARCHITECTURES[arch], kind=kind, region=region
        )
        full, own = host_name(instance, region), domain(region)
        by_address = f"ip-{instance.address.replace('.', '-')}.{own}"
        self._names = {
            **dict.fromkeys((full, full.partition(".")[0], by_address), instance.address),
            **dict.fromkeys((f"instance-data.{own}", "instance-data.ec2.internal"), IPV4),
        }
        signed = ("document", "pkcs7", "rsa2048", "signature")
        self._tree = Tree(
            {
                **dict(leaves(instance, identity, kind=kind, region=region)),
                "dynamic/fws/instance-monitoring": Leaf("2009-04-04", "disabled"),
                **{f"dynamic/instance-identity/{n}": Leaf("2009-04-04", "") for n in signed},
            }
        )

    @property
    def endpoints(self) -> Mapping[tuple[str, int], WSGIApplication]:
        return {(IPV4, 80): self._serve, (IPV6, 80): self._serve}

    @property
    def names(self) -> Mapping[str, str]:
        return self._names

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        response = self._token(request) if request.method == "PUT" else self._read(request)
        response.headers["Server"] = "EC2ws"
        self._note(request, response)
        return response(environ, start_response)

    def _note(self, request: Request, response: Response) -> None:
        line = f"{request.method} {request.path}"
        if response.status_code >= 400:
            refused = response.status_code != 404
            self._diary.note("refused" if refused else "metadata", f"{line}: {response.status}")
        elif request.method == "PUT":
            self._diary.note("token", line)
        elif request.path.endswith("/user-data"):
            self._diary.note("user-data", line)
        elif request.path.endswith("/openssh-key"):
            self._diary.note("key", line)
        else:
            self._diary.note("metadata", line)

    def _token(self, request: Request) -> Response:
        if _VERSIONED_TOKEN.fullmatch(request.path) or "X-Forwarded-For" in request.headers:
            return _error(403)
        if request.path != "/latest/api/token":
            return _error(405)
        issued = self._tokens.issue(request.headers.get(TTL))
        if issued is None:
            return _error(400)
        token, seconds = issued
        return _text(token, {TTL: str(seconds)})

    def _read(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _error(405)
        headers: dict[str, str] = {}
        token = request.headers.get(TOKEN)
        if token is not None or self._required:
            left = self._tokens.left(token or "")
            if not left:
                return _error(401)
            headers[TTL] = str(left)
        if request.path == "/":
            return _text("\n".join(VERSIONS), headers)
        version, _, path = request.path[1:].partition("/")
        if version not in VERSIONS:
            return _error(404)
        return self._find(version, path, headers)

    def _find(self, version: str, path: str, headers: Mapping[str, str]) -> Response:
        if path == "user-data":
            if not self._user_data:
                return _error(404)
            return Response(
                self._user_data, headers=headers, content_type="application/octet-stream"
            )
        value = self._signed(path) if self._tree.leaf(version, path) == "" else None
        if value is None:
            value = self._tree.leaf(version, path)
        if value is not None:
            return _text(value, headers)
        names = self._tree.listing(version, path.rstrip("/"))
        if not path.rstrip("/") and self._user_data:
            names = [*names, "user-data"]
        return _text("\n".join(names), headers) if names else _error(404)

    def _signed(self, path: str) -> str | None:
        """What is made when it is asked for: signing needs a key, a key needs time."""
        name = path.removeprefix("dynamic/instance-identity/")
        data = self._document.encode()
        if name == "document":
            return self._document
        if name == "signature":
            return base64.encodebytes(self._key.sign(data)).decode().rstrip("\n")
        return base64.encodebytes(self._key.pkcs7(data)).decode().rstrip("\n")


def _text(value: str, headers: Mapping[str, str]) -> Response:
    return Response(value, headers=headers, content_type="text/plain")


def _error(status: int) -> Response:
    """The service's errors are small pages."""
    title = f"{status} - {HTTP_STATUS_CODES[status]}"
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Response(page, status, content_type="text/html")
