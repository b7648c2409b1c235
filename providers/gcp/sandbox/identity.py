"""The service account of the stand-in: its key file, the token endpoint, who may come in."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from providers.gcp.sandbox.web import Answer, Refused, Request
from publisher.provider import sdk_imports

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""What Google's clients name as audience, whatever the address of the token endpoint is."""
LIFETIME = 3600
UNIVERSE = "sandbox.invalid"
"""The stand-in is a universe of its own: for the default one google-auth would ask
iamcredentials.googleapis.com where the account may be used from."""
SCOPES = ("cloud-platform", "devstorage", "compute")


class Identity:
    """Issues and checks access tokens. Accepts what Google accepts: opaque
    tokens from its token endpoint, and self-signed JWTs (https://google.aip.dev/auth/4111)."""

    def __init__(self, directory: Path, project: str) -> None:
        self._file = directory / "service-account.json"
        self._project = project
        self._tokens: dict[str, float] = {}
        self._public = b""
        self.email = f"publisher@{project}.iam.gserviceaccount.com"
        self.token_uri = ""

    def start(self, url: str) -> Path:
        """Write the key file (mode 0600) with this server's token endpoint; returns its path."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.token_uri = f"{url}/token"
        if self._file.exists():
            info = json.loads(self._file.read_text())
            pem = info["private_key"].encode()
            key: Any = serialization.load_pem_private_key(pem, None)
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        self._public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        info = {
            "type": "service_account",
            "project_id": self._project,
            "private_key_id": "sandbox",
            "private_key": pem.decode(),
            "client_email": self.email,
            "client_id": "100000000000000000001",
            "token_uri": self.token_uri,
            "universe_domain": UNIVERSE,
        }
        partial = self._file.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(info, file, indent=1)
        os.replace(partial, self._file)
        return self._file

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT that our key signed and that is valid now."""
        with sdk_imports:
            from google.auth import exceptions, jwt

        try:
            claims: dict[str, Any] = dict(
                jwt.decode(token, certs=self._public)  # type: ignore[no-untyped-call]
            )
        except (ValueError, exceptions.GoogleAuthError):
            raise Refused(
                401, "Request had invalid authentication credentials.", "authError"
            ) from None
        if claims.get("iss") != self.email:
            raise Refused(401, "Request had invalid authentication credentials.", "authError")
        return claims

    def token(self, request: Request) -> Answer:
        """POST /token: the JWT bearer grant (RFC 7523)."""
        form = parse_qs(b"".join(request.pieces()).decode())
        if form.get("grant_type") != [GRANT]:
            body = {"error": "unsupported_grant_type"}
            return Answer(body, 400)
        try:
            claims = self._claims(form.get("assertion", [""])[0])
        except Refused:
            claims = {}
        if claims.get("aud") not in (self.token_uri, AUDIENCE):
            body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return Answer(body, 400)
        if not any(scope in str(claims.get("scope")) for scope in SCOPES):
            return Answer({"error": "invalid_scope"}, 400)
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self._tokens[token] = time.time() + LIFETIME
        return Answer({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME})

    def expire(self) -> None:
        """Forget all tokens issued so far, as if their hour were over."""
        self._tokens.clear()

    def admit(self, request: Request) -> None:
        """Raise Refused(401) unless the caller shows a valid token. Resumable
        session addresses are capabilities of their own and need none."""
        if request.path == "/token" or "upload_id" in request.query:
            return
        scheme, _, token = request.header("Authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "Login Required.", "required")
        if token.count(".") == 2 and not token.startswith("ya29."):
            claims = self._claims(token)
            audience = str(claims.get("aud", ""))
            if not claims.get("scope") and not audience.startswith(("http://", "https://")):
                raise Refused(401, "Invalid Credentials", "authError")
        elif self._tokens.get(token, 0.0) <= time.time():
            raise Refused(401, "Invalid Credentials", "authError")
