"""Statements in envelopes that are signed: one JSON document a line, as in-toto's
bundles have it (https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.errors import HostError, ProofError
from publisher.proof.attest import keys, sigstore
from publisher.proof.attest.statement import payload

if TYPE_CHECKING:
    from securesystemslib.signer import Key

PAYLOAD = "application/vnd.in-toto+json"
SIGSTORE = "sigstore"


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs, or who must have signed.

    `key` is a PEM file, a key in a KMS, or "sigstore"; `passphrase` opens a
    private key's file. With Sigstore a verification needs `identity` (an e-mail
    address or a workflow's URL) and the `issuer` that vouches for it.
    """

    key: str
    passphrase: str | None = None
    identity: str = ""
    issuer: str = ""

    def __repr__(self) -> str:
        return f"Signing({self.key!r})"


def sign(statements: Iterable[Mapping[str, Any]], by: Signing) -> bytes:
    """The statements, each in an envelope on a line of its own."""
    documents = [payload(statement) for statement in statements]
    own = by.key == SIGSTORE
    signed = sigstore.sign(documents) if own else _enveloped(documents, by)
    return "".join(f"{line}\n" for line in signed).encode()


def _enveloped(documents: Iterable[bytes], by: Signing) -> Iterator[str]:
    """DSSE: https://github.com/secure-systems-lab/dsse/blob/master/envelope.md"""
    signer = keys.signer(by.key, by.passphrase)
    from securesystemslib.dsse import Envelope

    for document in documents:
        envelope = Envelope(document, PAYLOAD, {})
        try:
            envelope.sign(signer)
        except Exception as error:  # each KMS has errors of its own
            raise HostError(
                f"the key {by.key} does not sign: {error}",
                hint="check the permissions of the credentials in the environment",
            ) from error
        yield json.dumps(envelope.to_dict(), sort_keys=True)


def read_signed(data: bytes, by: Signing) -> list[Mapping[str, Any]]:
    """The statements in such a file. Raises ProofError where one is not signed by
    `by`, was changed since, or is none."""
    if by.key == SIGSTORE:
        return _read(data, sigstore.Verifier(by.identity, by.issuer))
    return _read(data, _by_key(keys.public_key(by.key), by.key))


def read_own(data: bytes, by: Signing) -> list[Mapping[str, Any]]:
    """The same for who signs with `by`. What Sigstore would vouch for is only known when
    it does, so of its bundles nothing but the content is looked at."""
    if by.key == SIGSTORE:
        return _read(data, sigstore.content)
    return _read(data, _by_key(keys.own_public_key(by.key, by.passphrase), by.key))


def _read(data: bytes, check: Callable[[bytes], tuple[str, bytes]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            kind, content = check(line)
            statement = json.loads(content)
        except ProofError as error:
            raise ProofError(f"line {number}: {error.message}", hint=error.hint) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProofError(f"line {number} holds no signed statement: {error}") from error
        if kind != PAYLOAD or not isinstance(statement, dict):
            raise ProofError(f"line {number} holds {kind}, and no in-toto statement")
        found.append(statement)
    if not found:
        raise ProofError("the file holds no attestation", hint="was it cut short?")
    return found


def _by_key(public: Key, key: str) -> Callable[[bytes], tuple[str, bytes]]:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    def check(line: bytes) -> tuple[str, bytes]:
        envelope = Envelope.from_dict(json.loads(line))
        for signature in envelope.signatures.values():
            # the id of a key is a hint for whoever has several, and not signed
            own = Signature(public.keyid, signature.signature)
            try:
                public.verify_signature(own, envelope.pae())
            except UnverifiedSignatureError:
                continue
            return envelope.payload_type, envelope.payload
        raise ProofError(
            f"it is not signed by the key in {key}, or was changed since",
            hint="get the file again, from where the release was made",
        )

    return check
