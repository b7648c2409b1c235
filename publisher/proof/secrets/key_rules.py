"""Private keys and the hashes of passwords."""

from __future__ import annotations

import re

from publisher.proof.secrets import keys, tokens
from publisher.proof.secrets.rule import Rule, Verdict, at, exactly, from_mark

KEY = "make it where it is used (at first boot, or from the cloud's own store) and revoke this one"

_HASH = (
    rb"\$(?:5\$(?:rounds=\d+\$)?[^$:\s]{0,16}\$[./A-Za-z0-9]{43}"
    rb"|6\$(?:rounds=\d+\$)?[^$:\s]{0,16}\$[./A-Za-z0-9]{86}"
    rb"|2[abxy]\$\d\d\$[./A-Za-z0-9]{53}"
    rb"|g?y\$[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
    rb"|7\$[./A-Za-z0-9]{11,97}\$[./A-Za-z0-9]{43})"
)
_OLD_HASH = (
    rb"\$(?:apr1|1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
    rb"|\$argon2(?:id|i|d)\$v=\d{1,3}\$m=\d{1,8},t=\d{1,4},p=\d{1,3}"
    rb"\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,90}"
    rb"|\{SSHA(?:256|384|512)?\}[A-Za-z0-9+/]{32,128}={0,2}"
    rb"|grub\.pbkdf2\.sha512\.\d{1,9}\.[0-9A-F]{32,128}\.[0-9A-F]{64,128}"
)
_CHANGE = "take it out of the file, and change the password where else it is used"
_SHADOW = (
    rb"(?:^|[\n\0])[a-z_][a-z0-9_.-]{0,31}:!{0,2}(\$[1-9a-z][^:\s]{8,200}|[./A-Za-z0-9]{13})"
    rb":\d{1,6}:\d*:\d*:\d*:\d*:\d*:\d*(?=[\n\0]|$)"
)


def _encoded_pem(window: bytes) -> Verdict | None:
    """A PEM file in base64, as kubeconfig holds it, or broken into lines."""
    found = re.match(rb"(?:[A-Za-z0-9+/=]|\s{1,16}|\\n)+", window)
    inner = keys.pem(keys.decode(re.sub(rb"\s+|\\n", b"", found[0]))) if found else None
    return (0, len(found[0]), inner[2]) if found and inner else None


KEYS: tuple[Rule, ...] = (
    Rule(
        "private-key",
        "private key",
        rb"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY",
        from_mark(b"-----BEGIN", keys.pem),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-putty",
        "private key of PuTTY",
        rb"PuTTY-User-Key-File-[123]: ",
        from_mark(b"PuTTY-User-Key-File-", keys.putty),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-der",
        "private RSA key in DER",
        rb"\x30\x82..\x02\x01\x00\x02(?:\x81.|\x82..)\x00[\x80-\xff]",
        from_mark(b"\x30\x82", keys.der_rsa),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-der",
        "private EC key in DER",
        rb"\x02\x01\x01\x04[\x20\x30\x42].{32,66}"
        rb"(?:\xa0[\x07\x0a]\x06[\x05\x08]\x2a\x86\x48\xce|\xa0\x07\x06\x05\x2b\x81\x04\x00"
        rb"|\xa1[\x44\x64]\x03[\x42\x62]\x00\x04|\xa1\x81\x89\x03\x81\x86\x00\x04)",
        from_mark(b"\x02\x01\x01\x04", keys.der_curve),
        KEY,
    ),
    Rule(
        "private-key-der",
        "private Ed25519 key in DER",
        rb"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65[\x6e\x70]\x04\x22\x04\x20",
        at(16, keys.der_edwards),
        KEY,
    ),
    Rule(
        "private-key-keystore",
        "private key in a PKCS #12 keystore",
        rb"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02\xa0\x82",
        at(13, keys.keystore),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-keystore",
        "private key in a Java keystore",
        rb"\xfe\xed\xfe\xed\x00\x00\x00[\x01\x02]\x00\x00\x00.\x00\x00\x00\x01\x00.",
        at(18, keys.java),
        KEY,
        after=4096,
    ),
    Rule(
        "private-key-gnupg",
        "private key of GnuPG",
        rb"\((?:11:|21:protected-)private-key\(\d:(?:rsa|dsa|elg|ecc)\("
        rb"|Key: \((?:protected-)?private-key \((?:rsa|dsa|elg|ecc)",
        from_mark(b"private-key", keys.gnupg),
        KEY,
        after=4096,
    ),
    Rule(
        "private-key-jwk",
        "private JSON Web Key",
        rb"\"kty\"\s{0,4}:\s{0,4}\"(?:RSA|EC|OKP)\"",
        keys.jwk,
        KEY,
        before=keys.JWK_MAX,
        after=keys.JWK_MAX,
    ),
    Rule(
        "private-key-encoded",
        "private key in base64, as in a kubeconfig",
        rb"LS0tLS1CRUdJTi",
        from_mark(b"LS0tLS1CRUdJTi", _encoded_pem),
        KEY,
        after=2 * keys.PEM_MAX,
    ),
    Rule(
        "private-key-age",
        "identity of age",
        rb"AGE-SECRET-KEY-1[A-Z0-9]{58}",
        exactly(
            rb"(AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})",
            tokens.random,
        ),
        KEY,
    ),
    Rule(
        "private-key-wireguard",
        "private key of WireGuard",
        rb"PrivateKey\s{0,4}=\s{0,4}[A-Za-z0-9+/]{43}=",
        exactly(rb"PrivateKey\s{0,4}=\s{0,4}([A-Za-z0-9+/]{43}=)", tokens.random),
        KEY,
    ),
    Rule(
        "password-hash",
        "password hash of an account",
        rb":!{0,2}(?:\$[1-9a-z][^:\s]{8,200}|[./A-Za-z0-9]{13}):\d{1,6}:\d{0,6}:\d{0,6}:",
        exactly(_SHADOW, before=300),
        "lock the account (passwd --lock --delete USER), or give it a key at first boot",
        before=300,
        admits="shadow",
    ),
    Rule(
        "password-hash",
        "password hash",
        rb"\$(?:[567y]|gy|2[abxy])\$[^:\s]{22,}?[./A-Za-z0-9]{31}",
        exactly(rb"(" + _HASH + rb")(?![./A-Za-z0-9])", tokens.random),
        _CHANGE,
        admits="shadow",
    ),
    Rule(
        "password-hash",
        "password hash of a program",
        rb"\$(?:apr1|1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}|\$argon2(?:id|i|d)\$v=\d"
        rb"|\{SSHA(?:256|384|512)?\}[A-Za-z0-9+/]{32}|grub\.pbkdf2\.sha512\.\d{1,9}\.[0-9A-F]{32}",
        exactly(rb"(" + _OLD_HASH + rb")(?![./A-Za-z0-9])", tokens.random),
        _CHANGE,
        admits="shadow",
    ),
)
