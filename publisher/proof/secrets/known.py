"""The build's own secrets: known exactly, so that they are found in any form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from publisher.model import Noun

SHORTEST = 8
"""Bytes; anything shorter also stands on a disk by chance."""
TRACEABLE = 20
"""Bytes from which on a trace may be kept: of shorter values it would tell too much."""
ANCHOR = 4
_SIEVE = 2


@dataclass(frozen=True, slots=True)
class Trace(Noun):
    """What may be kept of a value after the value is gone, to look for it later:
    four of its bytes, its length, and salted digests (hex). `sieve` is short, and
    only saves the slow `digest` (scrypt) for what is almost certainly it."""

    label: str
    length: int
    anchor: str
    salt: str
    sieve: str
    digest: str

    def matches(self, candidate: bytes) -> bool:
        salt = bytes.fromhex(self.salt)
        if len(candidate) != self.length or _sieve(salt, candidate).hex() != self.sieve:
            return False
        return hmac.compare_digest(_digest(salt, candidate).hex(), self.digest)


def _sieve(salt: bytes, value: bytes) -> bytes:
    return hmac.digest(salt, value, "sha256")[:_SIEVE]


def _digest(salt: bytes, value: bytes) -> bytes:
    return hashlib.scrypt(value, salt=salt, n=2**12, r=8, p=1, dklen=32)


class Known:
    """Values by what they are called ("secret API_TOKEN of build.steps[2]"). They
    stay in memory: what this shows of itself are their names."""

    def __init__(
        self, values: Mapping[str, str | bytes] | None = None, traces: Sequence[Trace] = ()
    ) -> None:
        given = {
            label: value.encode() if isinstance(value, str) else value
            for label, value in (values or {}).items()
        }
        self._values = {label: value.strip() for label, value in given.items()}
        self._traces = tuple(traces)

    def __repr__(self) -> str:
        return f"Known({', '.join(self.labels)})"

    __str__ = __repr__

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self._values, *(trace.label for trace in self._traces))

    @property
    def unsearchable(self) -> tuple[str, ...]:
        """The names of values that are too short to be looked for."""
        return tuple(label for label, value in self._values.items() if len(value) < SHORTEST)

    def literals(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of every form that a value may have on a disk."""
        for label, value in self._values.items():
            if len(value) < SHORTEST:
                continue
            for form, data in _forms(value).items():
                if len(data) >= SHORTEST:
                    yield f"{label}{form}", data

    @property
    def traces(self) -> tuple[Trace, ...]:
        return self._traces

    def keep(self) -> tuple[Trace, ...]:
        """Traces of the values that are long enough, for a journal."""
        made = []
        for label, data in self.literals():
            if len(data) < TRACEABLE:
                continue
            salt = os.urandom(16)
            made.append(
                Trace(
                    label,
                    len(data),
                    data[:ANCHOR].hex(),
                    salt.hex(),
                    _sieve(salt, data).hex(),
                    _digest(salt, data).hex(),
                )
            )
        return (*self._traces, *made)


def _forms(value: bytes) -> dict[str, bytes]:
    """The value as it is, and as programs write it down. Of base64 the groups that
    depend on nothing else, for each of the three places where it may begin."""
    forms = {"": value}
    text = value.decode("utf-8", "replace")
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= 2 * SHORTEST]
    if len(lines) > 1:
        # as files of keys are written with other ends of lines; one line in the middle will do
        forms[" (a line of it)"] = lines[len(lines) // 2]
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    if escaped != value:
        forms[" (in JSON)"] = escaped
    percent = quote(value, safe="").encode()
    if percent != value:
        forms[" (in a URL)"] = percent
    forms[" (in hex)"] = value.hex().encode()
    forms[" (in UTF-16)"] = text.encode("utf-16-le")
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + value)
        first = -(-shift * 4 // 3)
        last = (shift + len(value)) // 3 * 4
        if last - first >= 2 * SHORTEST:
            forms[f" (in base64, {shift})" if shift else " (in base64)"] = whole[first:last]
    return forms
