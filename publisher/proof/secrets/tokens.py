"""Is it a token, or does it only look like one: checksums, structure, randomness."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import string
import zlib
from collections import Counter

_BASE62 = (string.digits + string.ascii_uppercase + string.ascii_lowercase).encode()


def checksummed(token: bytes) -> bool:
    """Whether the last six characters are the CRC-32 of those after the prefix, as in
    tokens of GitHub and npm.
    https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/"""
    body = token.partition(b"_")[2]
    number = 0
    for digit in body[-6:]:
        place = _BASE62.find(bytes([digit]))
        if place < 0:
            return False
        number = number * 62 + place
    return zlib.crc32(body[:-6]) == number


def entropy(data: bytes) -> float:
    """Shannon's, in bits a character."""
    total = len(data)
    return -sum(n / total * math.log2(n / total) for n in Counter(data).values()) if total else 0.0


def random(token: bytes) -> bool:
    """Whether a machine drew it: examples repeat, count up, or spell words."""
    steps = Counter((b - a) for a, b in itertools.pairwise(token))
    runs = (steps[0] + steps[1] + steps[-1]) / max(1, len(token) - 1)
    shouted = token.upper()
    spelled = any(word in shouted for word in (b"EXAMPLE", b"PLACEHOLDER", b"XXXX", b"CHANGEME"))
    return not spelled and runs < 0.3 and entropy(token) >= min(3.0, 0.75 * math.log2(len(token)))


_PLACEHOLDERS = (b"pass", b"secret", b"example", b"changeme", b"hunter2", b"token", b"xxx", b"***")


def password(word: bytes) -> bool:
    """Whether it can be somebody's password, and no variable, format or placeholder."""
    return (
        len(word) >= 8
        and not _is_placeholder(word)
        and any(c in b"0123456789" for c in word)
        and any(chr(c).isalpha() for c in word)
        and entropy(word) >= 2.75
    )


def chosen(word: bytes) -> bool:
    """The same where nothing but a password stands: a long one needs no digit."""
    return password(word) or (
        len(word) >= 12 and not _is_placeholder(word) and entropy(word) >= 3.0
    )


def _is_placeholder(word: bytes) -> bool:
    low = word.lower()
    return any(mark in low for mark in _PLACEHOLDERS) or any(
        mark in word for mark in (b"${", b"$(", b"{{", b"%s", b"%(", b"<", b"{")
    )


def unpadded(part: bytes) -> bytes:
    """What base64url without padding stands for; nothing where it is none."""
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        return b""


def jwt(token: bytes, now: float) -> bool:
    """Whether it is a signed JSON Web Token that is still good at `now` (RFC 7519);
    one without an end never expires, but must be more than the example of a manual."""
    parts = token.split(b".")
    try:
        header, claims = (json.loads(unpadded(part)) for part in parts[:2])
    except ValueError:
        return False
    if not isinstance(header, dict) or not isinstance(claims, dict) or len(parts) != 3:
        return False
    if not header.get("alg") or header["alg"] == "none":
        return False
    end = claims.get("exp")
    if isinstance(end, int | float):
        return end > now
    return len({"iss", "sub", "aud", "iat", "jti"} & claims.keys()) >= 2


def basic(encoded: bytes) -> bool:
    """Whether it is base64 of USER:PASSWORD, as in Docker's config.json."""
    try:
        text = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    user, colon, secret = text.partition(b":")
    return bool(user and colon) and len(secret) >= 8 and text.isascii() and random(secret)
