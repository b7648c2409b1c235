"""Keys that stay in Google's and Microsoft's KMS: what is asked of them, by their own
documentation, and that their answers verify. Their SDKs are left out, the keys are real."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

from publisher.errors import HostError, ProofError
from publisher.proof.attest import Signing, read_signed, sign

STATEMENT = {"_type": "https://in-toto.io/Statement/v1", "subject": []}
KEY = ec.generate_private_key(ec.SECP256R1())
GCP = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
AZURE = "https://myvault.vault.azure.net/keys/mine/0123"


def pem() -> bytes:
    return KEY.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)


def der(digest: bytes) -> bytes:
    return KEY.sign(digest, ec.ECDSA(Prehashed(SHA256())))


class Algorithm(Enum):
    """All that the signer looks up; of these the test's key has the first."""

    EC_SIGN_P256_SHA256 = 1
    EC_SIGN_P384_SHA384 = 2
    RSA_SIGN_PSS_2048_SHA256 = 3
    RSA_SIGN_PSS_3072_SHA256 = 4
    RSA_SIGN_PSS_4096_SHA256 = 5
    RSA_SIGN_PSS_4096_SHA512 = 6
    RSA_SIGN_PKCS1_2048_SHA256 = 7
    RSA_SIGN_PKCS1_3072_SHA256 = 8
    RSA_SIGN_PKCS1_4096_SHA256 = 9
    RSA_SIGN_PKCS1_4096_SHA512 = 10
    PQ_SIGN_ML_DSA_44 = 11
    PQ_SIGN_ML_DSA_65 = 12
    PQ_SIGN_ML_DSA_87 = 13


class GcpClient:
    """https://cloud.google.com/kms/docs/reference/rpc/google.cloud.kms.v1"""

    def get_public_key(self, request: Mapping[str, Any]) -> Any:
        assert request["public_key_format"] == "PEM"
        if request["name"] != GCP:
            raise RuntimeError("404 no such key")
        return SimpleNamespace(
            algorithm=Algorithm.EC_SIGN_P256_SHA256, public_key=SimpleNamespace(data=pem())
        )

    def asymmetric_sign(self, request: Mapping[str, Any]) -> Any:
        """The digest's field is named after the algorithm of the key's version; the
        signature of an elliptic curve is in DER."""
        assert request.keys() == {"name", "digest"}
        assert request["name"] == GCP
        (digest,) = request["digest"].items()
        assert (digest[0], len(digest[1])) == ("sha256", 32)
        return SimpleNamespace(signature=der(digest[1]))


class Curve(StrEnum):
    p_256 = "P-256"
    p_384 = "P-384"
    p_521 = "P-521"


class Signatures(StrEnum):
    es256 = "ES256"
    es384 = "ES384"
    es512 = "ES512"


class KeyClient:
    """https://learn.microsoft.com/rest/api/keyvault/keys/get-key"""

    def __init__(self, vault_url: str, credential: object) -> None:
        assert vault_url == "https://myvault.vault.azure.net/"

    def get_key(self, name: str) -> Any:
        if name != "mine":
            raise RuntimeError("KeyNotFound")
        numbers = KEY.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        return SimpleNamespace(
            key=SimpleNamespace(kty="EC", crv=Curve.p_256, x=x, y=y, kid=AZURE),
        )


class CryptographyClient:
    """https://learn.microsoft.com/rest/api/keyvault/keys/sign: ES256 signs a SHA-256
    digest, and the answer is r and s, as RFC 7518 has them."""

    def __init__(self, key: str, credential: object) -> None:
        assert key == AZURE

    def sign(self, algorithm: Signatures, digest: bytes) -> Any:
        assert (algorithm, len(digest)) == ("ES256", 32)
        r, s = decode_dss_signature(der(digest))
        return SimpleNamespace(signature=r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def module(name: str, **values: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(values)
    return made


@pytest.fixture(params=["gcpkms", "azurekms"])
def kms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the key; the signer is imported again, as if its SDK were installed."""
    import google.cloud

    scheme = str(request.param)
    kms = module(
        "google.cloud.kms",
        KeyManagementServiceClient=GcpClient,
        PublicKey=SimpleNamespace(PublicKeyFormat=SimpleNamespace(PEM="PEM")),
    )
    types = module(
        "google.cloud.kms_v1.types",
        CryptoKeyVersion=SimpleNamespace(CryptoKeyVersionAlgorithm=Algorithm),
    )
    monkeypatch.setattr(google.cloud, "kms", kms, raising=False)
    for made in (
        kms,
        module("google.cloud.kms_v1"),
        types,
        module("azure.keyvault"),
        module(
            "azure.keyvault.keys",
            KeyClient=KeyClient,
            KeyCurveName=Curve,
            KeyVaultKey=object,
        ),
        module(
            "azure.keyvault.keys.crypto",
            CryptographyClient=CryptographyClient,
            SignatureAlgorithm=Signatures,
        ),
    ):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    place = f"securesystemslib.signer._{scheme.removesuffix('kms')}_signer"
    kind = {"gcpkms": "GCPSigner", "azurekms": "AzureSigner"}[scheme]
    monkeypatch.delitem(sys.modules, place, raising=False)
    signer = vars(importlib.import_module(place))[kind]
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, scheme, signer)
    return {"gcpkms": f"gcpkms:{GCP}", "azurekms": "azurekms://myvault.vault.azure.net/keys/mine"}[
        scheme
    ]


def test_what_the_kms_signs_its_public_key_verifies(kms: str, tmp_path: Path) -> None:
    signed = sign([STATEMENT], Signing(kms))
    assert read_signed(signed, Signing(kms)) == [STATEMENT]
    public = tmp_path / "key.pub"
    public.write_bytes(pem())
    assert read_signed(signed, Signing(str(public))) == [STATEMENT]


def test_another_key_of_the_kms_is_told(kms: str) -> None:
    other = f"{kms[:-1]}x"
    with pytest.raises(HostError, match="can't be used"):
        sign([STATEMENT], Signing(other))


def test_what_the_kms_did_not_sign_is_refused(kms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[bytes], bytes] = der
    monkeypatch.setitem(globals(), "der", lambda digest: real(hashlib.sha256(digest).digest()))
    signed = sign([STATEMENT], Signing(kms))
    with pytest.raises(ProofError, match="not signed by the key"):
        read_signed(signed, Signing(kms))
