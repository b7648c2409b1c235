"""Who sends a request: Signature Version 4, verified with two fixed key pairs.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from providers.aws.sandbox.wire import Refused

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

SKEW = datetime.timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]*)/([^/]+)/aws4_request,\s*"
    r"SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})$"
)


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    key: str
    secret: str


OWNER = Account("111122223333", "AKIASANDBOXOWNER0001", "sandbox/owner/not+a+secret/0000000000001")
STRANGER = Account(
    "444455556666", "AKIASANDBOXOTHER0002", "sandbox/other/not+a+secret/0000000000002"
)
ACCOUNTS: Mapping[str, Account] = {account.key: account for account in (OWNER, STRANGER)}


@dataclass(frozen=True, slots=True)
class Caller:
    account: Account
    region: str
    service: str


def scope(environ: WSGIEnvironment) -> tuple[str, str]:
    """(region, service) that the request claims to be for, unverified."""
    match = _AUTHORIZATION.match(environ.get("HTTP_AUTHORIZATION", ""))
    return (match[3], match[4]) if match else ("", "")


def verify(environ: WSGIEnvironment, query: str, body_sha256: str) -> Caller:
    """The caller. Refuses unknown keys, wrong signatures and stale dates with the
    code that the service has for it."""
    match = _AUTHORIZATION.match(environ.get("HTTP_AUTHORIZATION", ""))
    if not match:
        raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    key, date, region, service, signed, signature = match.groups()
    account = ACCOUNTS.get(key)
    if account is None:
        raise unknown_key(service)
    stamp = environ.get("HTTP_X_AMZ_DATE", "")
    if service != "s3":  # its paths and chunked bodies are canonicalised differently
        payload = environ.get("HTTP_X_AMZ_CONTENT_SHA256", body_sha256)
        if payload not in ("UNSIGNED-PAYLOAD", body_sha256):
            raise _mismatch(service)
        canonical = "\n".join(
            (
                environ["REQUEST_METHOD"],
                quote(_raw_path(environ), safe="/-_.~"),
                "&".join(sorted(query.split("&"))) if query else "",
                *(f"{name}:{_header(environ, name)}" for name in signed.split(";")),
                "",
                signed,
                payload,
            )
        )
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256",
                stamp,
                f"{date}/{region}/{service}/aws4_request",
                hashlib.sha256(canonical.encode()).hexdigest(),
            )
        )
        key_bytes = _signing_key(account.secret, date, region, service)
        expected = hmac.new(key_bytes, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature) or not stamp.startswith(date):
            raise _mismatch(service)
    _check_clock(stamp, service)
    return Caller(account, region, service)


def unknown_key(service: str) -> Refused:
    if service == "ec2":
        return _ec2_failure()
    code = "InvalidClientTokenId" if service == "sts" else "UnrecognizedClientException"
    return Refused(code, "The security token included in the request is invalid.", 403)


def _mismatch(service: str) -> Refused:
    if service == "ec2":
        return _ec2_failure()
    code = "SignatureDoesNotMatch" if service == "sts" else "InvalidSignatureException"
    return Refused(
        code,
        "The request signature we calculated does not match the signature you provided.",
        403,
    )


def _ec2_failure() -> Refused:
    return Refused(
        "AuthFailure", "AWS was not able to validate the provided access credentials", 401
    )


def _check_clock(stamp: str, service: str) -> None:
    try:
        sent = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise _mismatch(service) from error
    if abs(datetime.datetime.now(datetime.UTC) - sent) > SKEW:
        if service == "ec2":
            raise Refused("RequestExpired", "Request has expired.")
        raise _mismatch(service)


def _raw_path(environ: WSGIEnvironment) -> str:
    raw: str = environ.get("RAW_URI") or environ.get("PATH_INFO", "/")
    return raw.partition("?")[0] or "/"


def _header(environ: WSGIEnvironment, name: str) -> str:
    variable = name.upper().replace("-", "_")
    if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        variable = f"HTTP_{variable}"
    return " ".join(environ.get(variable, "").split())


@functools.lru_cache(maxsize=64)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
