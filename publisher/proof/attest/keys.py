"""Keys: PEM files, and keys that stay in a KMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import HostError, UsageError
from publisher.provider import require, sdk_imports

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

EXTRA = "attest"


def _vault_key(rest: str) -> tuple[str, ...]:
    """//VAULT.vault.azure.net/keys/NAME"""
    host, _, path = rest.removeprefix("//").partition("/")
    name = path.removeprefix("keys/").partition("/")[0]
    return (host.partition(".")[0], name)


_KMS: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "awskms": lambda rest: (rest,),
    "gcpkms": lambda rest: (rest,),
    "azurekms": _vault_key,
}
"""How securesystemslib's signers want what follows the scheme."""


def is_kms(key: str) -> bool:
    return key.partition(":")[0] in _KMS


def signer(key: str, passphrase: str | None) -> Signer:
    """Who signs with `key`, a file or a key in a KMS.

    Raises UsageError for a file that holds no key that can sign, or one that the
    passphrase does not open, and HostError where a package or the KMS is missing.
    """
    require("securesystemslib.signer", EXTRA)
    from securesystemslib.signer import CryptoSigner, Signer

    if is_kms(key):
        uri, public = _imported(key)
        with sdk_imports:
            return Signer.from_priv_key_uri(uri, public)
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(key)
    try:
        secret: PrivateKeyTypes = load_pem_private_key(
            data, passphrase.encode() if passphrase else None
        )
        return CryptoSigner(secret)
    except TypeError:
        given = "has no passphrase" if passphrase else "is encrypted, and no passphrase is given"
        raise UsageError(
            f"the key in {key} {given}", hint="set or unset the passphrase's variable"
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{key} holds no private key in PEM that can sign, or the passphrase is another one",
            hint="openssl genpkey -algorithm ed25519 -aes256 -out key.pem",
        ) from error


def public_key(key: str) -> Key:
    """The public key in a PEM file (of a private one its public half), or of a KMS."""
    require("securesystemslib.signer", EXTRA)
    from securesystemslib.signer import SSlibKey

    if is_kms(key):
        return _imported(key)[1]
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(key)
    if b"PRIVATE KEY" in data:
        raise UsageError(
            f"{key} holds a private key, and only the public one is needed",
            hint="openssl pkey -in key.pem -pubout -out key.pub",
        )
    try:
        return SSlibKey.from_crypto(load_pem_public_key(data))
    except ValueError as error:
        raise UsageError(f"{key} holds no public key in PEM") from error


def own_public_key(key: str, passphrase: str | None) -> Key:
    """The public half of a key that signs. Raises as `signer` does."""
    return _imported(key)[1] if is_kms(key) else signer(key, passphrase).public_key


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key {path}: {error.strerror}") from error


def _imported(key: str) -> tuple[str, Key]:
    """(URI, public key) of a key in a KMS; asks the KMS."""
    scheme, _, rest = key.partition(":")
    from securesystemslib.exceptions import UnsupportedLibraryError
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    kind = SIGNER_FOR_URI_SCHEME[scheme]
    try:
        with sdk_imports:
            uri, public = kind.import_(*_KMS[scheme](rest))  # type: ignore[attr-defined]
    except UnsupportedLibraryError as error:
        raise HostError(
            f"keys of {scheme} need a package: {error}",
            hint=f"pip install 'securesystemslib[{scheme}]'",
        ) from error
    except Exception as error:  # each KMS has errors of its own
        raise HostError(
            f"the key {key} can't be used: {error}",
            hint="check its name, and the credentials in the environment",
        ) from error
    return uri, public
