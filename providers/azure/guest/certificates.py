"""The goal state's certificates: a PFX, enveloped for the key that the agent sends."""

from __future__ import annotations

import base64
import binascii

from providers.azure.guest.documents import HEAD, INCARNATION
from publisher.proof.run_key import RunKey
from publisher.provider import sdk_imports

CIPHERS = ("AES128_CBC", "DES_EDE3_CBC")
"""What agents ask for. The answer is in AES128_CBC either way, for the message names
its cipher and triple DES is gone from today's libraries."""


def document(key: RunKey, recipient: str) -> str | None:
    """The document for the certificate `recipient` (PEM without its frame); None where
    that is no certificate."""
    certificate, secret = key.certificate, key.key
    with sdk_imports:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            pkcs7,
            pkcs12,
        )

    try:
        theirs = x509.load_der_x509_certificate(base64.b64decode(recipient, validate=True))
        pfx = pkcs12.serialize_key_and_certificates(
            b"tenant", secret, certificate, None, NoEncryption()
        )
        builder = pkcs7.PKCS7EnvelopeBuilder().set_data(pfx).add_recipient(theirs)
    except (ValueError, TypeError, binascii.Error):
        return None
    enveloped = builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    return (
        f'{HEAD}<CertificateFile xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:noNamespaceSchemaLocation="certificates10.xsd">'
        f"<Version>2010-12-15</Version><Incarnation>{INCARNATION}</Incarnation>"
        "<Format>Pkcs7BlobWithPfxContents</Format>"
        f"<Data>{base64.encodebytes(enveloped).decode()}</Data></CertificateFile>"
    )
