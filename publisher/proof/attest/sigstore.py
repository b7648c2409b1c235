"""Signing without a key of one's own: Sigstore binds the signature to an identity
(of a person, or of a CI's workflow) and keeps it in a public log."""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Iterable
from typing import Any

from publisher.errors import HostError, ProofError, UsageError
from publisher.provider import require

EXTRA = "sigstore"
HINT = "run it in a CI that Sigstore knows, or set SIGSTORE_ID_TOKEN"


def sign(documents: Iterable[bytes]) -> list[str]:
    """A Sigstore bundle for each document, as JSON on one line. The identity is the
    one of the CI that this runs in, or the token in SIGSTORE_ID_TOKEN."""
    require("sigstore.sign", EXTRA)
    from sigstore.dsse import Statement
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential
    from sigstore.sign import SigningContext

    try:
        token = os.environ.get("SIGSTORE_ID_TOKEN") or detect_credential()
        if not token:
            raise UsageError("there is no identity that Sigstore could vouch for", hint=HINT)
        context = SigningContext.from_trust_config(ClientTrustConfig.production())
        with context.signer(IdentityToken(token)) as signer:
            return [signer.sign_dsse(Statement(document)).to_json() for document in documents]
    except IdentityError as error:
        raise UsageError(f"Sigstore does not accept the identity: {error}", hint=HINT) from error
    except (Error, OSError) as error:
        raise HostError(
            f"Sigstore did not sign: {error}", hint="run the same command again"
        ) from error


def content(line: bytes) -> tuple[str, bytes]:
    """(type, payload) of a bundle, whoever signed it."""
    envelope = json.loads(line)["dsseEnvelope"]
    return envelope["payloadType"], base64.b64decode(envelope["payload"])


class Verifier:
    """Checks bundles against an identity and the issuer that vouches for it."""

    def __init__(self, identity: str, issuer: str) -> None:
        if not identity or not issuer:
            raise UsageError(
                "whose signature? Sigstore vouches for many",
                hint="give --identity and --issuer",
            )
        require("sigstore.verify", EXTRA)
        self._identity = identity
        self._issuer = issuer

    def __call__(self, line: bytes) -> tuple[str, bytes]:
        """(type, payload) of a bundle. Raises ProofError."""
        from sigstore.errors import Error
        from sigstore.models import Bundle
        from sigstore.verify.policy import Identity

        try:
            bundle = Bundle.from_json(line)
        except (Error, ValueError) as error:
            first = next(iter(str(error).splitlines()), "")
            raise ProofError(f"it is no bundle of Sigstore: {first}") from error
        try:
            policy = Identity(identity=self._identity, issuer=self._issuer)
            kind, payload = self._checker.verify_dsse(bundle, policy)
        except Error as error:
            raise ProofError(f"it is not signed by {self._identity}: {error}") from error
        return str(kind), bytes(payload)

    @functools.cached_property
    def _checker(self) -> Any:
        """With Sigstore's newest root of trust; where that can't be fetched, with the
        one that was fetched last or came with the package."""
        from sigstore.errors import Error
        from sigstore.verify import Verifier as Checker

        try:
            return Checker.production()
        except (Error, OSError):
            return Checker.production(offline=True)
