"""A rule: an anchor that the engine finds fast, and a judge for each hit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from publisher.proof.secrets import tokens

Verdict: TypeAlias = tuple[int, int, bytes]
"""(start within the window, length, the secret itself: what tells it from others)."""
Judge: TypeAlias = Callable[[bytes], Verdict | None]

REVOKE = "revoke it with its issuer; hand secrets to a step with `secrets`, which keeps them out"


@dataclass(frozen=True, slots=True)
class Rule:
    """`anchor` is a regular expression (in Hyperscan's subset of PCRE) of at most
    REACH bytes. The judge sees `before` bytes ahead of the anchor's end (zeros
    where the disk has none), and up to `after` behind it."""

    id: str
    title: str
    anchor: bytes
    judge: Judge
    fix: str = REVOKE
    before: int = 256
    after: int = 1024
    caseless: bool = False
    admits: str = ""


REACH = 256
"""The longest match of an anchor."""


def exactly(
    pattern: bytes, sound: Callable[[bytes], bool] = lambda _: True, *, before: int = 256
) -> Judge:
    """A judge for what one expression describes: its group 1 is the secret, or `secret`
    within the group `login`, which tells it from others: many have the same password."""
    expression = re.compile(pattern, re.DOTALL)
    group: int | str = "secret" if "secret" in expression.groupindex else 1

    def judge(window: bytes) -> Verdict | None:
        for match in expression.finditer(window):
            # what ends ahead of the anchor's end was judged before
            if match.start() < before <= match.end():
                secret = match[group]
                return (match.start(group), len(secret), match[1]) if sound(secret) else None
        return None

    return judge


def at(offset: int, judge: Judge, *, before: int = 256) -> Judge:
    """A judge that wants the window from `offset` bytes ahead of the anchor's end on."""

    def moved(window: bytes) -> Verdict | None:
        start = before - offset
        found = judge(window[start:])
        return (found[0] + start, found[1], found[2]) if found else None

    return moved


def from_mark(mark: bytes, judge: Judge, *, before: int = 256) -> Judge:
    """A judge that wants the window from the last `mark` ahead of the anchor's end on."""

    def moved(window: bytes) -> Verdict | None:
        start = window.rfind(mark, 0, before)
        found = judge(window[start:]) if start >= 0 else None
        return (found[0] + start, found[1], found[2]) if found else None

    return moved


def token(
    ident: str,
    title: str,
    prefix: bytes,
    body: bytes,
    sound: Callable[[bytes], bool] = tokens.random,
    *,
    least: int = 8,
    alphabet: bytes = rb"[A-Za-z0-9_-]",
) -> Rule:
    """A token that tells its kind: prefix and body, and nothing else around them."""
    return Rule(
        ident,
        title,
        prefix + alphabet + b"{%d}" % least,
        exactly(rb"(?<![A-Za-z0-9_])(" + prefix + body + rb")(?![A-Za-z0-9_-])", sound, before=256),
    )
