"""The rules of lint: what they are, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from publisher.model import Severity
from publisher.proof.inspect.inspection import Inspection


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that breaks a rule: where it was seen and what. `path` is one within
    the disk's file systems, `line` counts from 1. `severity` where it differs from
    the rule's own; `key` of the pipeline where that claims what is not so. What
    belongs to the cloud `belongs_to` is only a note when the image is for it, too."""

    text: str
    path: str = ""
    line: int = 0
    severity: Severity | None = None
    key: str = ""
    belongs_to: str = ""


Check: TypeAlias = Callable[[Inspection], Iterable[Evidence]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`id` is stable: people ignore findings by it. `why` says what happens to an
    image that breaks the rule, `url` is the page of the vendor or project that
    says so, `fix` the next action. A check raises Unreadable where it can't decide.
    """

    id: str
    severity: Severity
    title: str
    why: str
    url: str
    fix: str
    check: Check


ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
