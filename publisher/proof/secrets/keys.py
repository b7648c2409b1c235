"""Private keys as they stand in bytes: PEM in any quoting, PuTTY, and plain DER."""

from __future__ import annotations

import base64
import binascii
import re

PEM_MAX = 16 * 1024
"""Bytes of an armoured key that are looked at; RSA of 16384 bits needs 13 KiB."""

_PEM = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]{1,10} ){0,3})PRIVATE KEY( BLOCK)?-----(.{0,%d})" % PEM_MAX, re.DOTALL
)
_ESCAPED = re.compile(rb"(?:\\r)?\\n|\\")
_HEADERS = re.compile(rb"^[ \t]*(?:[A-Z][A-Za-z0-9-]+: .*(?:\n[ \t]+\S.*)?\n)+[ \t]*\n", re.ASCII)
_LEFT_OUT = re.compile(rb"[\x21-\x7e]{1,64}")
"""What people write for the lines of a key that they don't show; what is longer overwrote it."""
_QUOTES = re.compile(rb"[\s\"',]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_PUTTY = re.compile(
    rb"PuTTY-User-Key-File-[123]: .{1,8192}?\nPrivate-Lines: \d+\r?\n([A-Za-z0-9+/=\r\n]{40,})",
    re.DOTALL,
)

SHORTEST = 48
"""Bytes of the smallest private key in DER: Ed25519 in PKCS #8 (RFC 8410)."""


def decode(text: bytes) -> bytes:
    """What leading base64 stands for, without the piece of a last group."""
    run = _BASE64.match(text)
    body = run[0].rstrip(b"=") if run else b""
    usable = len(body) - (1 if len(body) % 4 == 1 else 0)
    try:
        return base64.b64decode(body[:usable] + b"=" * (-usable % 4))
    except binascii.Error:
        return b""


def various(data: bytes, least: int = 16) -> bool:
    """Whether these bytes can be random: placeholders repeat themselves."""
    return len(set(data)) >= least


def pem(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of an armoured private key that holds one, and is not only
    named or shown with most of it left out."""
    found = _PEM.search(window)
    if found is None:
        return None
    kind = found[1].strip()
    body, end, _ = found[3].partition(b"-----END")
    text = _ESCAPED.sub(b"\n", body).lstrip(b"\"'\r\n").replace(b"\r\n", b"\n")
    headers = _HEADERS.match(text)
    encrypted = headers is not None and b"ENCRYPTED" in headers[0]
    if headers is not None:
        text = text[headers.end() :]
    text = _QUOTES.sub(b"", text)
    key = decode(text)
    if len(key) < SHORTEST:
        return None
    if kind == b"OPENSSH":
        sound = key.startswith(b"openssh-key-v1\0")
    elif found[2]:
        tag = (key[0] & 0x3F) if key[0] & 0x40 else (key[0] >> 2) & 0x0F
        sound = key[0] & 0x80 != 0 and tag == 5  # RFC 9580, 5: a secret key packet
    elif encrypted or kind == b"SSH2 ENCRYPTED":
        sound = various(key, 24)
    else:
        # behind a key that was overwritten in part, the next end is another's
        behind = _BASE64.sub(b"", text, count=1)
        own_end = bool(end) and (not behind or _LEFT_OUT.fullmatch(behind) is not None)
        sound = _is_key_sequence(key, whole=own_end)
    length = found.start(3) - found.start() + len(body)
    return (found.start(), length, key) if sound else None


def _is_key_sequence(key: bytes, *, whole: bool) -> bool:
    """A DER SEQUENCE that starts as PKCS #1, #8 and SEC 1 do; where the end is
    there, all of it is."""
    header = _length(key, 0)
    if key[0] != 0x30 or header is None:
        return False
    at, length = header
    if not SHORTEST - 2 <= length <= PEM_MAX or (whole and len(key) < at + length):
        return False
    return key[at] == 0x30 or (key[at : at + 2] == b"\x02\x01" and key[at + 2] <= 1)


def putty(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of a PuTTY key file, as puttygen writes it."""
    found = _PUTTY.search(window)
    if found is None:
        return None
    key = decode(_QUOTES.sub(b"", found[1]))
    return (found.start(), found.end() - found.start(), key) if various(key) else None


_GNUPG = re.compile(
    rb"\(1:[dx](?P<size>\d{2,4}):|\([dx]\s{1,4}#(?P<digits>[0-9A-F\s]{32,3000})#"
    rb"|\((?:9:)?protected\s{0,4}(?:\d\d:)?openpgp-"
)


def gnupg(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of a file in private-keys-v1.d, canonical or in lines
    (doc/KEYFORMAT of GnuPG); behind `private-key`."""
    found = _GNUPG.search(window)
    if found is None:
        return None
    key = window[found.end() : found.end() + int(found["size"] or 256)]
    if found["digits"]:
        key = found["digits"].translate(None, b" \t\r\n")
    return (0, found.end(), key) if various(key, 12) else None


JWK_MAX = 2600
"""Bytes of a JSON Web Key of RSA with 4096 bits, twice as large as its halves."""
_SECRET_PART = re.compile(rb"\"d\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{32,1024})\"")


def jwk(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of a private JSON Web Key (RFC 7517) in which the window's
    middle is."""
    start = window.rfind(b"{", 0, JWK_MAX)
    end = window.find(b"}", JWK_MAX)
    found = _SECRET_PART.search(window, max(0, start), end if end >= 0 else len(window))
    key = found[1] if found else b""
    return (found.start(1), len(key), key) if found and various(key, 20) else None


# -- DER


def _length(data: bytes, at: int) -> tuple[int, int] | None:
    """(where the value starts, its length) of the DER element at `at`."""
    if at + 2 > len(data):
        return None
    first = data[at + 1]
    if first < 0x80:
        return at + 2, first
    count = first & 0x7F
    if not 1 <= count <= 3 or at + 2 + count > len(data):
        return None
    return at + 2 + count, int.from_bytes(data[at + 2 : at + 2 + count], "big")


def rsa(data: bytes) -> int | None:
    """The modulus of a PKCS #1 RSAPrivateKey (RFC 8017, A.1.2) at the start of
    `data`, if it is one: its primes multiply to it."""
    header = _length(data, 0)
    if data[:1] != b"\x30" or header is None:
        return None
    at, _ = header
    numbers: list[int] = []
    while len(numbers) < 6:
        element = _length(data, at)
        if element is None or data[at] != 0x02 or element[0] + element[1] > len(data):
            return None
        start, length = element
        numbers.append(int.from_bytes(data[start : start + length], "big"))
        at = start + length
    version, modulus, _, _, first, second = numbers
    sound = version == 0 and modulus.bit_length() >= 512 and first * second == modulus
    return modulus if sound else None


def der_rsa(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of an RSA key in DER at the start of the window."""
    header = _length(window, 0)
    if header is None or rsa(window) is None:
        return None
    end = header[0] + header[1]
    return 0, end, window[:end]


_CURVE = re.compile(
    rb"\x02\x01\x01\x04(?:\x20(?P<a>.{32})|\x30(?P<b>.{48})|\x42(?P<c>.{66}))[\xa0\xa1]", re.DOTALL
)


def der_curve(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of an ECPrivateKey (RFC 5915)."""
    found = _CURVE.match(window)
    key = found and (found["a"] or found["b"] or found["c"])
    return (0, len(found[0]), key) if found and key and various(key, 24) else None


def der_edwards(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, key) of an Ed25519 or X25519 key in PKCS #8 (RFC 8410)."""
    key = window[16:48]
    # programs hold this start as a template, and behind it whatever comes next
    return (0, 48, key) if len(key) == 32 and various(key, 24) else None


def keystore(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, start of the key) of an encrypted key in PKCS #12 (RFC 7292)."""
    oid = 11
    outer = _length(window, oid)
    if window[oid : oid + 1] != b"\xa0" or outer is None or window[outer[0]] != 0x30:
        return None
    end = outer[0] + outer[1]
    return (0, end, window[:end]) if various(window[:end], 32) else None


def java(window: bytes) -> tuple[int, int, bytes] | None:
    """(start, length, start of the key) of a Java keystore whose first entry is a key."""
    name = 16
    at = name + 2 + int.from_bytes(window[name : name + 2], "big") + 8
    length = int.from_bytes(window[at : at + 4], "big")
    key = window[at + 4 : at + 4 + length]
    sound = SHORTEST <= length <= PEM_MAX and key[:1] == b"\x30" and various(key, 32)
    return (0, at + 4 + length, key) if sound else None
