"""Google Cloud keeps the contract, against its own stand-in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from providers.gcp.provider import Gcp
from providers.gcp.sandbox.identity import UNIVERSE
from publisher.conformance import ProviderContract


class TestGcp(ProviderContract):
    provider = Gcp
    accounts = ("user:alice@example.com", "serviceAccount:robot@other.iam.gserviceaccount.com")

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        """A key file of the right form whose key Google does not know."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        info = {
            "type": "service_account",
            "project_id": "sandbox-project",
            "private_key_id": "wrong",
            "private_key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            "client_email": "publisher@sandbox-project.iam.gserviceaccount.com",
            "token_uri": "http://127.0.0.1:9/token",
            "universe_domain": UNIVERSE,
        }
        file = where / "wrong.json"
        file.write_text(json.dumps(info))
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
