"""Tokens: the App Service protocol of managed identities, and the check of what it gave.

https://learn.microsoft.com/azure/app-service/overview-managed-identity
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from providers.azure.sandbox.web import Answer, Refused, Request

PATH = "/msi/token"
_LIFETIME = 3600


class Identity:
    """One managed identity; its secret header and its tokens derive from the key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    @property
    def header(self) -> str:
        return hmac.new(self._key, b"identity header", hashlib.sha256).hexdigest()

    def token(self, request: Request) -> Answer:
        if not hmac.compare_digest(request.header("X-IDENTITY-HEADER"), self.header):
            return Answer(401, {"statusCode": 401, "message": "The X-IDENTITY-HEADER is wrong."})
        if "api-version" not in request.query or "resource" not in request.query:
            return Answer(400, {"statusCode": 400, "message": "api-version or resource missing."})
        expires = int(time.time()) + _LIFETIME
        resource = request.query["resource"]
        return Answer(
            200,
            {
                "access_token": self._sign(f"{expires} {resource}"),
                "expires_on": str(expires),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": "00000000-0000-0000-0000-0000000000c1",
            },
        )

    def check(self, request: Request) -> None:
        """Raises Refused unless the request bears a token of ours that still lives."""
        kind, _, token = request.header("Authorization").partition(" ")
        if kind != "Bearer":
            raise Refused(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        try:
            text = base64.urlsafe_b64decode(token.partition(".")[0] + "==").decode()
        except ValueError:
            text = ""
        if not hmac.compare_digest(token.encode(), self._sign(text).encode()):
            raise Refused(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if int(text.partition(" ")[0]) < time.time():
            raise Refused(401, "ExpiredAuthenticationToken", "The access token expiry is past.")

    def _sign(self, text: str) -> str:
        body = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{body}.{hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()}"
