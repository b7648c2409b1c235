"""What the proofs in an attestation amount to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from publisher.proof.attest.results import PROOFS, results


def findings(*severities: str) -> Mapping[str, Any]:
    return {"findings": [{"rule": "x", "severity": severity} for severity in severities]}


def boot(*states: str) -> Mapping[str, Any]:
    return {"claims": [{"id": "login", "status": state} for state in states]}


@pytest.mark.parametrize(
    ("proof", "value", "passed", "told"),
    [
        ("lint", findings(), True, "passed"),
        ("lint", findings("note", "warning", "warning"), True, "passed, 2 warnings, 1 note"),
        ("lint", findings("error"), False, "not passed, 1 error"),
        ("secrets", findings("note"), True, "passed, 1 note"),
        ("secrets", findings("warning"), False, "not passed, 1 warning"),
        ("inventory", {"documents": [{}], "gaps": []}, True, "passed"),
        ("inventory", {"documents": [{}], "gaps": ["x"]}, False, "not passed, 1 gap"),
        ("inventory", {"documents": [], "gaps": []}, False, "not passed"),
        ("rehearsals", {"a": boot("proved by boot")}, True, "passed, as a"),
        ("rehearsals", {"a": boot("failed"), "b": boot("proved by boot")}, False,
         "not passed, not as a, as b"),
        ("rehearsals", {"a": boot()}, False, "not passed, not as a"),
        ("rehearsals", {}, False, "not passed"),
    ],
)  # fmt: skip
def test_each_proof_passes_only_as_a_whole(
    proof: str, value: Mapping[str, Any], passed: bool, told: str
) -> None:
    (result,) = (r for r in results({proof: value}) if r.proof == proof)
    assert (result.passed, result.told) == (passed, told)


def test_what_was_not_done_did_not_pass() -> None:
    assert [(r.proof, r.passed, r.told) for r in results({})] == [
        (proof, False, "not done") for proof in PROOFS
    ]
