"""Sigstore: who signs, whom a verification accepts, and what is said when it does not.
The package is left out; what stands for it has the signatures of its release 4."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from publisher.errors import HostError, ProofError, UsageError
from publisher.proof.attest import Signing, read_own, read_signed, sign
from publisher.proof.attest.signing import PAYLOAD

ME, ISSUER = "https://github.com/me/web/.github/workflows/ci.yml@main", "https://issuer.example"
STATEMENTS = [{"_type": "https://in-toto.io/Statement/v1", "subject": [number]} for number in "ab"]


class Error(Exception):
    pass


class IdentityError(Error):
    pass


class Identity:
    """sigstore.verify.policy"""

    def __init__(self, *, identity: str, issuer: str | None = None) -> None:
        self.wanted = [identity, issuer]


class Statement:
    """sigstore.dsse"""

    def __init__(self, contents: bytes) -> None:
        self.contents = contents


class Bundle:
    """sigstore.models"""

    def __init__(self, data: Any) -> None:
        self.data = data

    @classmethod
    def from_json(cls, raw: bytes | str) -> Bundle:
        data = json.loads(raw)
        if "certificate" not in data:
            raise Error("it has no certificate\nand more")
        return cls(data)

    def to_json(self) -> str:
        return json.dumps(self.data)


class IdentityToken:
    """sigstore.oidc"""

    def __init__(self, raw_token: str) -> None:
        if raw_token == "stale":
            raise IdentityError("it has expired")
        self.raw = raw_token


class Signer:
    """sigstore.sign"""

    broken = False

    def __init__(self, token: IdentityToken) -> None:
        self._token = token

    def sign_dsse(self, statement: Statement) -> Bundle:
        if self.broken:
            raise Error("the log is away")
        content = base64.b64encode(statement.contents).decode()
        return Bundle(
            {
                "certificate": [self._token.raw, ISSUER],
                "dsseEnvelope": {"payload": content, "payloadType": PAYLOAD},
            }
        )


class SigningContext:
    @classmethod
    def from_trust_config(cls, trust_config: str) -> SigningContext:
        assert trust_config == "production"
        return cls()

    @contextlib.contextmanager
    def signer(self, identity_token: IdentityToken, *, cache: bool = True) -> Iterator[Signer]:
        assert cache
        yield Signer(identity_token)


class Verifier:
    """sigstore.verify"""

    reachable = True

    @classmethod
    def production(cls, *, offline: bool = False) -> Verifier:
        if not (cls.reachable or offline):
            raise Error("the root of trust can't be fetched")
        return cls()

    def verify_dsse(self, bundle: Bundle, policy: Identity) -> tuple[str, bytes]:
        if bundle.data["certificate"] != policy.wanted:
            raise Error("the certificate is another one's")
        envelope = bundle.data["dsseEnvelope"]
        return envelope["payloadType"], base64.b64decode(envelope["payload"])


class ClientTrustConfig:
    @classmethod
    def production(cls) -> str:
        return "production"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, dict[str, Any]] = {
        "sigstore": {},
        "sigstore.dsse": {"Statement": Statement},
        "sigstore.errors": {"Error": Error},
        "sigstore.models": {"Bundle": Bundle, "ClientTrustConfig": ClientTrustConfig},
        "sigstore.oidc": {
            "IdentityError": IdentityError,
            "IdentityToken": IdentityToken,
            "detect_credential": lambda: None,
        },
        "sigstore.sign": {"SigningContext": SigningContext},
        "sigstore.verify": {"Verifier": Verifier},
        "sigstore.verify.policy": {"Identity": Identity},
    }
    for name, values in held.items():
        made = ModuleType(name)
        vars(made).update(values)
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", ME)


def by(identity: str = ME, issuer: str = ISSUER) -> Signing:
    return Signing("sigstore", identity=identity, issuer=issuer)


def test_every_statement_is_signed_and_read_again() -> None:
    signed = sign(STATEMENTS, Signing("sigstore"))
    assert len(signed.splitlines()) == 2
    assert read_signed(signed, by()) == STATEMENTS


@pytest.mark.parametrize(
    "other", [by(identity="https://github.com/you"), by(issuer="https://other.example")]
)
def test_nobody_else_is_accepted(other: Signing) -> None:
    signed = sign(STATEMENTS, Signing("sigstore"))
    with pytest.raises(ProofError, match=r"line 1: it is not signed by https://.*another one's"):
        read_signed(signed, other)


@pytest.mark.parametrize(("identity", "issuer"), [("", ISSUER), (ME, "")])
def test_both_the_identity_and_its_issuer_must_be_told(identity: str, issuer: str) -> None:
    with pytest.raises(UsageError, match="whose signature"):
        read_signed(b"{}", by(identity, issuer))


def test_the_root_of_trust_that_came_last_serves_where_none_can_be_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Verifier, "reachable", False)
    assert read_signed(sign(STATEMENTS, Signing("sigstore")), by()) == STATEMENTS


@pytest.mark.parametrize(
    ("line", "told"),
    [(b"{}", "no bundle of Sigstore: it has no certificate$"), (b"nothing", "no bundle")],
)
def test_what_is_no_bundle_is_told_of(line: bytes, told: str) -> None:
    with pytest.raises(ProofError, match=told):
        read_signed(line, by())


def test_who_can_not_be_vouched_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", "stale")
    with pytest.raises(UsageError, match="does not accept the identity: it has expired"):
        sign(STATEMENTS, Signing("sigstore"))
    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    with pytest.raises(UsageError, match="no identity that Sigstore could vouch for"):
        sign(STATEMENTS, Signing("sigstore"))


def test_the_identity_of_a_ci_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    monkeypatch.setattr(sys.modules["sigstore.oidc"], "detect_credential", lambda: "robot")
    assert read_signed(sign(STATEMENTS, Signing("sigstore")), by("robot")) == STATEMENTS


def test_a_log_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signer, "broken", True)
    with pytest.raises(HostError, match="Sigstore did not sign: the log is away"):
        sign(STATEMENTS, Signing("sigstore"))


def test_a_run_sees_what_it_has_signed_without_knowing_as_whom() -> None:
    assert read_own(sign(STATEMENTS, Signing("sigstore")), Signing("sigstore")) == STATEMENTS
