"""A key that lives as long as one rehearsal, for what clouds sign: identity documents."""

from __future__ import annotations

import datetime
import threading
from typing import TYPE_CHECKING

from publisher.provider import require, sdk_imports

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate


class RunKey:
    """An RSA key with a self-signed certificate, made on first use; thread-safe.

    Nobody trusts it, and `common_name` should tell that it is no cloud's: what
    it signs has the right form and proves nothing.
    """

    def __init__(self, common_name: str, extra: str) -> None:
        """`extra` is the pip extra that brings the cryptography package."""
        self.common_name = common_name
        self._extra = extra
        self._lock = threading.Lock()
        self._made: tuple[RSAPrivateKey, Certificate] | None = None

    @property
    def key(self) -> RSAPrivateKey:
        return self._make()[0]

    @property
    def certificate(self) -> Certificate:
        return self._make()[1]

    def sign(self, data: bytes) -> bytes:
        """PKCS #1 v1.5 with SHA-256."""
        key = self.key
        with sdk_imports:
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.asymmetric import padding

        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def pkcs7(self, data: bytes) -> bytes:
        """`data` within a signed PKCS #7 message, as DER."""
        key, certificate = self._make()
        with sdk_imports:
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

        signer = pkcs7.PKCS7SignatureBuilder().set_data(data)
        signer = signer.add_signer(certificate, key, hashes.SHA256())
        return signer.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])

    def _make(self) -> tuple[RSAPrivateKey, Certificate]:
        with self._lock:
            if self._made is None:
                self._made = self._generate()
            return self._made

    def _generate(self) -> tuple[RSAPrivateKey, Certificate]:
        require("cryptography", self._extra)
        with sdk_imports:
            from cryptography import x509
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.common_name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        return key, certificate
