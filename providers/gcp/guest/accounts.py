"""What a service account's endpoints answer: tokens of the right form that open nothing."""

from __future__ import annotations

import json
import time

from werkzeug.datastructures import MultiDict

from providers.gcp.guest.identity import ACCOUNT, PROJECT_NUMBER, Identity
from publisher.proof.run_key import RunKey
from publisher.provider import require, sdk_imports

ISSUER = "https://rehearsal.invalid"
LIFETIME = 3600


def access_token() -> str:
    return json.dumps(
        {
            "access_token": "rehearsal-token-that-opens-nothing",
            "expires_in": LIFETIME - 1,
            "token_type": "Bearer",
        }
    )


def identity_token(
    key: RunKey, identity: Identity, query: MultiDict[str, str], *, project: str, zone: str
) -> str | None:
    """A JWT as https://cloud.google.com/compute/docs/instances/verifying-instance-identity
    describes it, by the rehearsal's key and of an issuer that does not exist; None
    without an audience."""
    audience = query.get("audience", "")
    if not audience:
        return None
    now = int(time.time())
    claims: dict[str, object] = {
        "aud": audience,
        "azp": ACCOUNT,
        "email": ACCOUNT,
        "exp": now + LIFETIME,
        "iat": now,
        "iss": ISSUER,
        "sub": str(PROJECT_NUMBER),
    }
    if query.get("format") == "full":
        claims["google"] = {
            "compute_engine": {
                "instance_id": identity.instance_id,
                "project_id": project,
                "project_number": PROJECT_NUMBER,
                "zone": zone,
            }
        }
    require("jwt", "gcp")
    with sdk_imports:
        import jwt
    return jwt.encode(claims, key.key, algorithm="RS256", headers={"kid": "rehearsal"})
