"""The text in which LVM2 keeps a volume group: names with values and sections.

Grammar: lvm.conf(5), of which the metadata use the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from publisher.proof.inspect.budget import Budget, Damaged

Value: TypeAlias = "int | str | list[int | str] | Section"
Section: TypeAlias = "dict[str, Value]"

_DEPTH_MOST = 8
_SKIPPED = re.compile(r"(?:\s+|#[^\n]*)+")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.+-]+|[{}\[\]=,]', re.DOTALL)
_NUMBER = re.compile(r"\d{1,19}")


def parse(text: str, budget: Budget) -> Section:
    """Raises Damaged for what is no such text."""
    top: Section = {}
    open_: list[Section] = [top]
    tokens = _tokens(text, budget)
    for name in tokens:
        if name == "}" and len(open_) > 1:
            open_.pop()
            continue
        sign = next(tokens, "")
        if name[0] in '"{}[]=,' or sign not in ("{", "=") or name in open_[-1]:
            raise Damaged(f"its metadata are damaged at {name[:40]!r}")
        if sign == "=":
            open_[-1][name] = _value(tokens)
            continue
        if len(open_) > _DEPTH_MOST:
            raise Damaged(f"its metadata are more than {_DEPTH_MOST} sections deep")
        section: Section = {}
        open_[-1][name] = section
        open_.append(section)
    if len(open_) > 1:
        raise Damaged("its metadata end too early")
    return top


def _value(tokens: Iterator[str]) -> Value:
    first = next(tokens, "")
    if first != "[":
        return _single(first)
    found: list[int | str] = []
    for piece in tokens:
        if piece == "]":
            return found
        if piece != ",":
            found.append(_single(piece))
    raise Damaged("its metadata end too early")


def _single(piece: str) -> int | str:
    if not piece or piece[0] in "{}[]=,":
        raise Damaged("a value of its metadata is damaged")
    if piece[0] == '"':
        return re.sub(r"\\(.)", r"\1", piece[1:-1], flags=re.DOTALL)
    return int(piece) if _NUMBER.fullmatch(piece) else piece


def _tokens(text: str, budget: Budget) -> Iterator[str]:
    at = 0
    while True:
        skipped = _SKIPPED.match(text, at)
        at = skipped.end() if skipped else at
        if at == len(text):
            return
        found = _TOKEN.match(text, at)
        if found is None:
            raise Damaged(f"its metadata are damaged at {text[at : at + 40]!r}")
        budget.charge()
        yield found[0]
        at = found.end()
