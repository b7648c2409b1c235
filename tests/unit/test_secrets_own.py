"""The secret gate: a build's own secrets, at hand or by their traces."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.model import Severity
from publisher.proof.secrets import Known
from publisher.proof.secrets import trace as traces
from publisher.proof.secrets.trace import Trace
from tests.unit.secret_samples import drawn, found, secrets

OWN = drawn(32) + "\n"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces whose digests cost nothing."""
    monkeypatch.setattr(traces, "COST", 2)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda value: value,
    "in hex": lambda value: value.hex().encode(),
    "in base64": base64.b64encode,
    "in base64, behind a byte": lambda value: base64.b64encode(b":" + value),
    "in base64, behind two bytes": lambda value: base64.b64encode(b"x:" + value),
    "in UTF-16": lambda value: value.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("kept", [False, True], ids=["at hand", "by its trace"])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_of_the_build_is_found_in_any_form(tmp_path: Path, form: str, kept: bool) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + FORMS[form](OWN.strip().encode()) + b"#" * 5000)
    known = Known({"secret TOKEN of build.steps[1]": OWN})
    if kept:
        stored = json.dumps([trace.to_json() for trace in known.keep()])
        for start in range(len(OWN) - 6):
            assert OWN[start : start + 5] not in stored
        known = Known(traces=[Trace.from_json(trace) for trace in json.loads(stored)])
    findings = secrets(found(disk, tmp_path, known))
    assert findings
    assert {finding.rule for finding in findings} == {"secrets.build-secret"}
    assert "secret TOKEN of build.steps[1]" in findings[0].evidence
    assert OWN.strip()[:5] not in findings[0].evidence


LINES = "\n".join(drawn(14) for _ in range(5))
"""Each too short to be looked for by itself."""


@pytest.mark.parametrize("kept", [False, True], ids=["at hand", "by its trace"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n")], ids=["CRLF", "LF"])
def test_a_secret_of_several_lines_is_found_with_other_ends_of_lines(
    tmp_path: Path, form: str, ends: tuple[str, str], kept: bool
) -> None:
    given, on_disk = (LINES.replace("\n", end) for end in ends)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + FORMS[form](on_disk.encode()) + b"#" * 5000)
    known = Known({"TOKEN": given})
    if kept:
        stored = json.dumps([trace.to_json() for trace in known.keep()])
        known = Known(traces=[Trace.from_json(trace) for trace in json.loads(stored)])
    [finding] = secrets(found(disk, tmp_path, known))
    assert finding.rule == "secrets.build-secret"
    assert "TOKEN (with other ends of lines)" in finding.evidence


def test_a_value_with_both_ends_of_lines_is_looked_for_as_it_is(tmp_path: Path) -> None:
    value = LINES.replace("\n", "\r\n", 2)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + value.encode() + b"#" * 5000)
    kept = Known({"TOKEN": value}).keep()
    [finding] = secrets(found(disk, tmp_path, Known(traces=kept)))
    assert "other ends" not in finding.evidence
    assert (kept[0].longer, kept[0].later) == (0, 0)


def test_another_value_with_the_same_start_is_not_taken_for_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes((OWN[:20] + drawn(12)).encode() * 20)
    known = Known({"TOKEN": OWN})
    assert secrets(found(disk, tmp_path, known)) == []
    assert secrets(found(disk, tmp_path, Known(traces=known.keep()))) == []


@pytest.mark.parametrize("length", [12, 15, 19, 20, 64])
def test_a_trace_finds_values_of_any_length_that_is_kept(tmp_path: Path, length: int) -> None:
    value = drawn(length)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"password=" + value.encode() + b"\n" + b"password=" * 1000)
    kept = Known({"PASSWORD": value}).keep()
    assert len(secrets(found(disk, tmp_path, Known(traces=kept)))) == 1


def test_a_value_too_short_for_a_trace_is_told_of_when_only_traces_are_left(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"hunter2hunter" * 100)
    kept = Known({"PASSWORD": "hunter2h"}).keep()
    assert [(trace.anchor, trace.digest) for trace in kept] == [("", "")]
    told = found(disk, tmp_path, Known(traces=kept))
    assert ("secrets.too-short", "PASSWORD is too short to be looked for") in {
        (finding.rule, finding.evidence) for finding in told
    }


def test_known_secrets_do_not_show_themselves_and_short_ones_are_told_of(tmp_path: Path) -> None:
    known = Known({"TOKEN": OWN, "PIN": "1234"})
    assert str(known) == repr(known) == "Known(TOKEN, PIN)"
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"1234" * 100)
    [finding] = found(disk, tmp_path, known)
    assert (finding.rule, finding.severity) == ("secrets.too-short", Severity.NOTE)
