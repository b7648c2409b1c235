"""What is kept of a build's secret when the secret itself is gone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from publisher.model import Noun

TRACEABLE = 12
"""Bytes from which on a trace is kept: of shorter values it would tell too much."""
_LONG = 20
_SIEVE = 2
COST = 2**14
"""Of scrypt: some 50 ms for whoever tries values, and for us only once or twice."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value down: `anchor` begins `back` bytes behind its start,
    it is `size` bytes long, and `decode` gives the value again."""

    title: str
    anchor: bytes
    back: int
    size: int
    decode: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Trace(Noun):
    """Enough to look for a value later: its length, three or four of its bytes
    (`anchor`, which begins `at`), and salted digests of it, all in hex. `sieve` is
    short, and only saves the slow `digest` for what is almost certainly it. There is
    one digest for all forms of the value, so that they tell no more than one does.
    With the other ends of lines it is `longer` by so many bytes, and the anchor begins
    so many `later`; both are negative for a value with CRLF.
    Without an anchor it only says that there was a value, and its `sieve` of one byte whether
    another value of this length can be the same.
    """

    label: str
    length: int
    at: int = 0
    anchor: str = ""
    salt: str = ""
    sieve: str = ""
    digest: str = ""
    longer: int = 0
    later: int = 0

    @classmethod
    def of(cls, label: str, given: str | bytes) -> Self:
        value = plain(given)
        salt = os.urandom(16)
        if len(value) < TRACEABLE:
            return cls(label, len(value), salt=salt.hex(), sieve=_sieve(salt, value)[:1].hex())
        width = 4 if len(value) >= _LONG else 3
        at = max(range(len(value) - width + 1), key=lambda n: _rarity(value[n : n + width]))
        longer = later = 0
        if not _ENDS & set(value[at : at + width]):
            longer = len(other_ends(value)) - len(value)
            later = len(other_ends(value[:at])) - at if longer else 0
        return cls(
            label,
            len(value),
            at,
            value[at : at + width].hex(),
            salt.hex(),
            _sieve(salt, value).hex(),
            _digest(salt, value).hex(),
            longer,
            later,
        )

    def forms(self) -> Iterator[Form]:
        """As it is, in hex, in UTF-16 and, for each place where it may begin, in base64;
        all with the other ends of lines too, where it has several."""
        region = bytes.fromhex(self.anchor)
        if not region:
            return
        yield from _encoded(region, self.at, self.length)
        if self.longer:
            for form in _encoded(region, self.at + self.later, self.length + self.longer):
                decode = _OtherEnds(form.decode)
                yield replace(form, title=OTHER_ENDS + form.title, decode=decode)

    def may_be(self, value: bytes) -> bool:
        """Whether it is, as far as the trace tells, one of this value."""
        if self.anchor:
            return self.matches(value)
        sieve = _sieve(bytes.fromhex(self.salt), value)[:1].hex()
        return len(value) == self.length and sieve == self.sieve

    def matches(self, candidate: bytes) -> bool:
        salt = bytes.fromhex(self.salt)
        if len(candidate) != self.length or _sieve(salt, candidate).hex() != self.sieve:
            return False
        return hmac.compare_digest(_digest(salt, candidate).hex(), self.digest)


def plain(value: str | bytes) -> bytes:
    """What is looked for of a value: programs read and write it without what is around."""
    return (value.encode() if isinstance(value, str) else value).strip()


def _encoded(region: bytes, at: int, length: int) -> Iterator[Form]:
    yield Form("", region, at, length, bytes)
    for text in sorted({region.hex(), region.hex().upper()}):
        yield Form(" (in hex)", text.encode(), 2 * at, 2 * length, _from_hex)
    if region.isascii():
        for order in ("utf-16-le", "utf-16-be"):
            wide = region.decode().encode(order)
            yield Form(" (in UTF-16)", wide, 2 * at, 2 * length, _FromUtf16(order))
    for shift in range(3):
        before = shift + at
        # the characters that depend on the region and on nothing else
        first, last = -(-before * 8 // 6), (before + len(region)) * 8 // 6
        whole = base64.b64encode(bytes(before) + region + bytes(2))
        size = -(-(shift + length) * 8 // 6)
        anchor = whole[first:last]
        for encoded in sorted({anchor, anchor.translate(_TO_URL)}, reverse=True):
            yield Form(" (in base64)", encoded, first, size, _From64(shift, length))


_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
OTHER_ENDS = " (with other ends of lines)"
_ENDS = set(b"\r\n")


def other_ends(value: bytes) -> bytes:
    """With CRLF for LF, or LF for CRLF; what has both, or a lone CR, stays as it is."""
    plain = value.replace(b"\r\n", b"\n")
    if b"\r" in plain:
        return value
    crlf = plain.replace(b"\n", b"\r\n")
    return crlf if value == plain else plain if value == crlf else value


@dataclass(frozen=True, slots=True)
class _OtherEnds:
    decode: Callable[[bytes], bytes]

    def __call__(self, text: bytes) -> bytes:
        return other_ends(self.decode(text))


def _from_hex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        return b""


@dataclass(frozen=True, slots=True)
class _FromUtf16:
    order: str

    def __call__(self, text: bytes) -> bytes:
        return text.decode(self.order, "replace").encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _From64:
    shift: int
    length: int

    def __call__(self, text: bytes) -> bytes:
        try:
            standard = text.translate(_FROM_URL) + b"A" * (-len(text) % 4)
            whole = base64.b64decode(standard, validate=True)
        except binascii.Error:
            return b""
        return whole[self.shift : self.shift + self.length]


def _rarity(piece: bytes) -> int:
    """How seldom these bytes are likely to stand on a disk: words are everywhere, and
    ends of lines are of two kinds."""
    if _ENDS & set(piece):
        return -1
    kinds = {bytes([c]).isdigit() for c in piece}, {bytes([c]).isupper() for c in piece}
    return 4 * len(set(piece)) + sum(map(len, kinds)) - 4 * (piece.islower() or piece.isdigit())


def _sieve(salt: bytes, value: bytes) -> bytes:
    return hmac.digest(salt, value, "sha256")[:_SIEVE]


def _digest(salt: bytes, value: bytes) -> bytes:
    return hashlib.scrypt(value, salt=salt, n=COST, r=8, p=1, dklen=32)
