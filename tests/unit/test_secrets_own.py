"""The secret gate: a build's own secrets, at hand or by their traces."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

import pytest

from publisher.errors import ProofError
from publisher.model import Severity
from publisher.proof.secrets import Known, engine, refuse
from publisher.proof.secrets import trace as traces
from publisher.proof.secrets.trace import Trace
from tests.unit.secret_samples import SWAP, drawn, found, secrets

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
    "in hex, in capitals": lambda value: value.hex().upper().encode(),
    "in base64 for URLs": base64.urlsafe_b64encode,
    "in UTF-16, big-endian": lambda value: value.decode().encode("utf-16-be"),
}


def remembered(values: Mapping[str, str]) -> Known:
    """Known by what a journal holds of the values."""
    stored = json.dumps([Trace.of(label, value).to_json() for label, value in values.items()])
    for value in values.values():
        for start in range(len(value) - 5):
            assert value[start : start + 5] not in stored
    return Known(traces=[Trace.from_json(trace) for trace in json.loads(stored)])


@pytest.mark.parametrize("kept", [False, True], ids=["at hand", "by its trace"])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_of_the_build_is_found_in_any_form(tmp_path: Path, form: str, kept: bool) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + FORMS[form](OWN.strip().encode()) + b"#" * 5000)
    values = {"secret TOKEN of build.steps[1]": OWN}
    known = remembered(values) if kept else Known(values)
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
    disk.write_bytes(SWAP + FORMS[form](on_disk.encode()) + b"#" * 5000)
    known = remembered({"TOKEN": given}) if kept else Known({"TOKEN": given})
    [finding] = secrets(found(disk, tmp_path, known))
    assert finding.rule == "secrets.build-secret"
    assert "TOKEN (with other ends of lines)" in finding.evidence


def test_a_value_with_both_ends_of_lines_is_looked_for_as_it_is(tmp_path: Path) -> None:
    value = LINES.replace("\n", "\r\n", 2)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + value.encode() + b"#" * 5000)
    kept = Trace.of("TOKEN", value)
    [finding] = secrets(found(disk, tmp_path, Known(traces=[kept])))
    assert "other ends" not in finding.evidence
    assert (kept.longer, kept.later) == (0, 0)


def test_another_value_with_the_same_start_is_not_taken_for_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes((OWN[:20] + drawn(12)).encode() * 20)
    assert secrets(found(disk, tmp_path, Known({"TOKEN": OWN}))) == []
    assert secrets(found(disk, tmp_path, remembered({"TOKEN": OWN}))) == []


@pytest.mark.parametrize("length", [12, 15, 19, 20, 64])
def test_a_trace_finds_values_of_any_length_that_is_kept(tmp_path: Path, length: int) -> None:
    value = drawn(length)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + b"password=" + value.encode() + b"\n" + b"password=" * 1000)
    assert len(secrets(found(disk, tmp_path, remembered({"PASSWORD": value})))) == 1


def test_a_value_too_short_for_a_trace_is_told_of_when_only_traces_are_left(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + b"hunter2hunter" * 100)
    kept = Trace.of("PASSWORD", "hunter2h")
    assert (kept.anchor, kept.digest, len(kept.sieve)) == ("", "", 2)
    [told] = found(disk, tmp_path, Known(traces=[kept]))
    assert (told.rule, told.severity) == ("secrets.too-short", Severity.WARNING)
    assert "PASSWORD was not looked for: it is not at hand any more" in told.evidence


def test_known_secrets_do_not_show_themselves_and_short_ones_are_told_of(tmp_path: Path) -> None:
    known = Known({"TOKEN": OWN, "PIN": "1234"})
    assert str(known) == repr(known) == "Known(TOKEN, PIN)"
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + b"1234" * 100)
    [finding] = found(disk, tmp_path, known)
    assert (finding.rule, finding.severity) == ("secrets.too-short", Severity.WARNING)
    assert 'ignore = [{ rule = "secrets.too-short", reason = "…" }]' in finding.fix
    with pytest.raises(ProofError, match="must be searched as a whole: PIN was not looked for"):
        refuse([finding], public=True)
    refuse([finding], public=False)


@pytest.mark.parametrize("length", [8, 9, 11])
def test_a_short_value_is_found_while_it_is_at_hand(tmp_path: Path, length: int) -> None:
    disk = tmp_path / "disk.raw"
    value = drawn(length)
    disk.write_bytes(SWAP + b"password=" + value.encode() + b"\n" * 5000)
    known = Known({"PASSWORD": value}, [Trace.of("PASSWORD", value)])
    assert [finding.rule for finding in found(disk, tmp_path, known)] == ["secrets.build-secret"]


@pytest.mark.parametrize("length", [8, 40])
def test_the_value_that_a_secret_had_before_is_looked_for_too(tmp_path: Path, length: int) -> None:
    before, now = drawn(length), drawn(length)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + b"password=" + before.encode() + b"\n" * 5000)
    kept = Trace.of("TOKEN", before)
    while kept.may_be(now.encode()):  # as one of 256 short values may
        kept = Trace.of("TOKEN", before)
    [finding] = found(disk, tmp_path, Known({"TOKEN": now}, [kept]))
    assert "an earlier value of TOKEN" in finding.evidence
    assert finding.rule == ("secrets.build-secret" if length == 40 else "secrets.too-short")


AWKWARD = "pa\"s\\wörd'$x&/<#," + drawn(10)
PROGRAMS: dict[str, Callable[[str], str]] = {
    "in JSON": lambda value: json.dumps({"p": value}, ensure_ascii=False),
    "in JSON of ASCII": lambda value: json.dumps({"p": value}),
    "in JSON of PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "in JSON of Go": lambda value: (
        json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c")
    ),
    "in a URL": lambda value: f"https://me:{quote(value, safe='')}@h/",
    "in a URL, in small letters": lambda value: re.sub(
        "%..", lambda match: match[0].lower(), quote(value, safe="")
    ),
    "in a form": lambda value: urlencode({"p": value + " x"}).removesuffix("+x"),
    "quoted for a shell": lambda value: value.replace("'", "'\\''"),
    "quoted by Python": shlex.quote,
    "in double quotes": lambda value: re.sub(r"([\\\"$`])", r"\\\1", value),
    "by printf %q": lambda value: re.sub(r"([^A-Za-z0-9ö/#])", r"\\\1", value),
    "in XML": escape,
    "in an attribute of XML": html.escape,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_secret_is_found_as_programs_quote_it(tmp_path: Path, program: str) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + PROGRAMS[program](AWKWARD).encode() + b"#" * 5000)
    [finding] = found(disk, tmp_path, Known({"TOKEN": AWKWARD}))
    assert finding.rule == "secrets.build-secret"


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n    ", "\\n"])
@pytest.mark.parametrize("width", [64, 76])
def test_a_secret_is_found_in_base64_that_is_broken_into_lines(
    tmp_path: Path, before: int, end: str, width: int
) -> None:
    text = base64.b64encode((drawn(50 + before) + LINES).encode()).decode()
    broken = end.join(text[at : at + width] for at in range(0, len(text), width))
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + broken.encode() + b"#" * 5000)
    [finding] = found(disk, tmp_path, Known({"TOKEN": LINES}))
    assert "TOKEN (in base64)" in finding.evidence
    assert "(2 of them)" not in finding.evidence


@pytest.mark.parametrize("form", ["indented", "cut off"])
def test_of_a_secret_of_several_long_lines_one_is_enough(tmp_path: Path, form: str) -> None:
    value = "\n".join(drawn(64) for _ in range(10))
    disk = tmp_path / "disk.raw"
    text = value.replace("\n", "\n    ") if form == "indented" else value[:400]
    disk.write_bytes(SWAP + text.encode() + b"#" * 5000)
    [finding] = found(disk, tmp_path, Known({"TOKEN": value}))
    assert "TOKEN (a line of it)" in finding.evidence


def test_no_form_is_missing_because_of_the_ends_of_chunks(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    text = base64.encodebytes(LINES.encode())
    disk.write_bytes(SWAP.ljust(engine.CHUNK - len(text) // 2, b"#") + text + b"#" * 5000)
    assert len(secrets(found(disk, tmp_path, Known({"TOKEN": LINES})))) == 1
