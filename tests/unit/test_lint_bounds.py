"""Lint itself on a disk that is made to break it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Sequence

import pytest

from publisher.model import Spec
from publisher.proof import checks
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.lint import Report, examine
from publisher.proof.rules import ERROR, Evidence, Rule
from tests.unit.lint_world import Blank


class Cloud:
    """With one rule."""

    name = "own"

    def __init__(self, check: Callable[[Inspection], Iterable[Evidence]]) -> None:
        self._check = check

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        return [Rule("own.rule", ERROR, "title", "why", "https://", "fix", self._check)]


@pytest.fixture(autouse=True)
def no_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "RULES", ())


def told(check: Callable[[Inspection], Iterable[Evidence]]) -> Report:
    return examine(Blank(), [Cloud(check)], (), Budget())


def test_a_rule_finds_at_most_fifty_things() -> None:
    # without the limit it ends by itself, too, or the test would hang
    found = told(lambda _: itertools.repeat(Evidence("again"), 1_000))
    assert [f.rule for f in found.findings] == ["own.rule"] * 50


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (struct.error("short"), "makes no sense (error: short)"),
        (ValueError("odd"), "makes no sense (ValueError: odd)"),
        (IndexError("far"), "makes no sense (IndexError: far)"),
        (KeyError("name"), "makes no sense (KeyError: 'name')"),
        (RecursionError("deep"), "makes no sense (RecursionError: deep)"),
        (MemoryError(), "makes no sense (MemoryError: )"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_reader_out_of_step_is_a_finding(error: Exception, said: str) -> None:
    def check(_: Inspection) -> Iterable[Evidence]:
        yield Evidence("seen before")
        raise error

    unreadable, seen = sorted(told(check).findings, key=lambda finding: finding.rule)
    assert (unreadable.rule, unreadable.severity) == ("lint.unreadable", ERROR)
    assert said in unreadable.evidence
    assert "not decided: own.rule" in unreadable.evidence
    assert seen.evidence == "seen before"


def test_a_fault_of_this_program_is_none_of_the_disks() -> None:
    def check(_: Inspection) -> Iterable[Evidence]:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        told(check)
