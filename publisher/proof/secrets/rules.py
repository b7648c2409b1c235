"""Everything that is looked for."""

from __future__ import annotations

import base64

from publisher.proof.secrets import keys
from publisher.proof.secrets.key_rules import KEYS
from publisher.proof.secrets.login_rules import LOGINS
from publisher.proof.secrets.rule import Rule, exactly
from publisher.proof.secrets.token_rules import TOKENS


def _public_key(key: bytes) -> bool:
    try:
        blob = base64.b64decode(key + b"=" * (-len(key) % 4), validate=True)
    except ValueError:
        return False
    return len(blob) >= 51 and blob[:3] == b"\0\0\0" and keys.various(blob, 24)


AUTHORIZED = Rule(
    "ssh-authorized-key",
    "key that may log in over SSH",
    rb"(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|"
    rb"sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) AAAA",
    exactly(
        rb"(?:ssh-(?:rsa|dss|ed25519)|nistp(?:256|384|521)|@openssh\.com) "
        rb"(AAAA[A-Za-z0-9+/]{60,4096})",
        _public_key,
        before=256,
    ),
    "remove the file at the end of the build: the clouds bring the user's keys at first boot",
    after=4200,
    admits="authorized_keys",
)
"""Only where it stands makes it one: in authorized_keys, or in erased space."""

RULES: tuple[Rule, ...] = (*KEYS, *TOKENS, *LOGINS, AUTHORIZED)
