"""What the proofs in a statement amount to: each passed, not passed, or was not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.model import Noun, Severity

MISSING = "not done"


@dataclass(frozen=True, slots=True)
class Result(Noun):
    """`proof` is its name in the statement, `told` one line for people."""

    proof: str
    passed: bool
    told: str


def results(proofs: Mapping[str, Any]) -> tuple[Result, ...]:
    """One for each kind of proof that there is."""
    return tuple(
        Result(name, *judge(proofs[name])) if name in proofs else Result(name, False, MISSING)
        for name, judge in _JUDGES.items()
    )


def _findings(value: Mapping[str, Any], *bad: Severity) -> tuple[bool, str]:
    found = Counter(Severity(finding["severity"]) for finding in value["findings"])
    told = [
        f"{found[severity]} {severity}{'s' if found[severity] > 1 else ''}"
        for severity in reversed(Severity)
        if found[severity]
    ]
    return _worded(not any(found[severity] for severity in bad), told)


def _worded(passed: bool, told: Sequence[str]) -> tuple[bool, str]:
    return passed, ", ".join(["passed" if passed else "not passed", *told])


def _lint(value: Mapping[str, Any]) -> tuple[bool, str]:
    return _findings(value, Severity.ERROR)


def _secrets(value: Mapping[str, Any]) -> tuple[bool, str]:
    # the secrets of a release that is not public are warnings
    return _findings(value, Severity.ERROR, Severity.WARNING)


def _inventory(value: Mapping[str, Any]) -> tuple[bool, str]:
    gaps = len(value["gaps"])
    told = [f"{gaps} gap{'s' if gaps > 1 else ''}"] if gaps else []
    return _worded(bool(value["documents"]) and not gaps, told)


def _rehearsals(value: Mapping[str, Any]) -> tuple[bool, str]:
    told, good = [], bool(value)
    for cloud, rehearsal in value.items():
        states = [claim["status"] for claim in rehearsal["claims"]]
        passed = bool(states) and "failed" not in states
        good = good and passed
        told.append(f"as {cloud}" if passed else f"not as {cloud}")
    return _worded(good, told)


_JUDGES: Mapping[str, Callable[[Mapping[str, Any]], tuple[bool, str]]] = {
    "lint": _lint,
    "secrets": _secrets,
    "inventory": _inventory,
    "rehearsals": _rehearsals,
}
PROOFS = tuple(_JUDGES)
