"""Plain lines, JSON lines and the log of GitHub Actions, from one scripted story."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from publisher import events
from publisher.cli.github import ANNOTATED, Actions, annotation, inert
from publisher.cli.jsonl import JsonLines
from publisher.cli.plain import Plain
from publisher.cli.screen import choose
from publisher.cli.text import (
    clean,
    encodable,
    show_amount,
    show_bytes,
    show_clock,
    show_seconds,
)
from publisher.model import GIB, MIB
from tests.unit.cli_fakes import FINISHED, STORY


class Clock:
    """Eleven seconds pass between two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# -- words and numbers


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        ("10%\r50%\r100%\r\n", "100%"),
        ("a\tb\x00\x07\x9b", "a   b"),
        ("  indented  ", "  indented"),
        ("\x1b(Bnormal\x1b=", "normal"),
    ],
)
def test_foreign_lines_cannot_steer_a_terminal(line: str, cleaned: str) -> None:
    assert clean(line) == cleaned


def test_numbers_read_well() -> None:
    assert [show_bytes(n) for n in (0, 2048, 5 * MIB, 48 * MIB, 2 * GIB)] == [
        "0 B",
        "2.0 KiB",
        "5.0 MiB",
        "48 MiB",
        "2.0 GiB",
    ]
    assert [show_seconds(s) for s in (0.04, 9.94, 59.4, 252, 3780)] == [
        "0.0 s",
        "9.9 s",
        "59 s",
        "4 min 12 s",
        "1 h 03 min",
    ]
    assert [show_clock(s) for s in (5, 75, 3779)] == ["0:05", "1:15", "1:02:59"]
    assert show_amount(GIB, 2 * GIB, "bytes") == "1.0 of 2.0 GiB"
    assert show_amount(5 * MIB, 2 * GIB, "bytes") == "5.0 MiB of 2.0 GiB"
    assert show_amount(5 * MIB, 0, "bytes") == "5.0 MiB"
    assert show_amount(3, 7, "items") == "3 of 7"


def test_what_a_stream_cannot_show_becomes_ascii() -> None:
    assert encodable("✓ done … ü", "utf-8") == "✓ done … ü"
    assert encodable("✓ done … ü", "ascii") == "ok done ... ?"
    assert encodable("✓ done", "no-such-encoding") == "ok done"
    assert encodable("✓ done", None) == "✓ done"


# -- which renderer


@pytest.mark.parametrize(
    ("options", "log", "environ", "kind"),
    [
        ({"json": True, "plain": False}, Terminal(), {"GITHUB_ACTIONS": "true"}, "JsonLines"),
        ({"json": False, "plain": False}, Terminal(), {"GITHUB_ACTIONS": "true"}, "Actions"),
        ({"json": False, "plain": False}, io.StringIO(), {"TERM": "xterm"}, "Plain"),
        ({"json": False, "plain": True}, Terminal(), {"TERM": "xterm"}, "Plain"),
        ({"json": False, "plain": False}, Terminal(), {"TERM": "dumb"}, "Plain"),
        ({"json": False, "plain": False}, Terminal(), {"TERM": "xterm"}, "LiveConsole"),
    ],
)
def test_the_renderer_fits_the_place(
    options: dict[str, bool], log: io.StringIO, environ: dict[str, str], kind: str
) -> None:
    chosen = choose(
        json=options["json"], plain=options["plain"], out=io.StringIO(), log=log, environ=environ
    )
    assert type(chosen).__name__ == kind


# -- plain lines


def test_plain_lines_tell_the_story_and_the_result_apart() -> None:
    out, log = io.StringIO(), io.StringIO()
    plain = Plain(out, log, clock=lambda: 0.0)
    for event in STORY:
        plain(event)
    assert log.getvalue().splitlines() == [
        "web 1.2.0: run run-1",
        "[ 0:00] build          reused: done yesterday",
        "[ 0:00] nimbus.upload  sending blocks",
        "[ 0:00] cirrus.upload  | ::error::not a command",
        "[ 0:00] cirrus.upload  ↻ attempt 1 failed, next in 2.5 s: 503 busy",
        "[ 0:00] cirrus.upload  warning: 3 labels, dropped (use lower case) [labels]",
        "[ 0:00] cirrus.upload  ✓ done in 12 s: demo/object",
        "[ 0:00] nimbus.upload  ✓ done in 1 min 01 s: snap-1",
        "warning: the disk is nearly full",
    ]
    assert out.getvalue().splitlines() == [
        "web 1.2.0: published in 6 min 12 s",
        "nimbus:north/img-1",
        "cirrus:demo/web-1-2-0",
        "manifest: /state/manifest.json",
    ]


def test_a_phase_that_goes_on_is_not_repeated() -> None:
    log = io.StringIO()
    plain = Plain(io.StringIO(), log, clock=lambda: 0.0)
    for phase in ("waiting", "waiting", "reading", "waiting"):
        plain(events.StepPhase("a.x", "a", phase))
    assert [line.split()[-1] for line in log.getvalue().splitlines()] == [
        "waiting",
        "reading",
        "waiting",
    ]


def test_plain_progress_comes_every_ten_seconds_with_rate_and_rest() -> None:
    clock, log = Clock(), io.StringIO()
    plain = Plain(io.StringIO(), log, clock=clock)
    plain(events.RunStarted("r", "web", (("a.upload", "a"),)))
    for second in range(23):
        clock.now = second
        plain(events.StepProgress("a.upload", "a", second * 10 * MIB, 400 * MIB))
    assert log.getvalue().splitlines()[1:] == [
        "[ 0:10] a.upload   25 %, 100 of 400 MiB, 10 MiB/s, 0:30 left",
        "[ 0:20] a.upload   50 %, 200 of 400 MiB, 10 MiB/s, 0:20 left",
    ]


def test_what_an_earlier_run_sent_is_no_speed() -> None:
    clock, log = Clock(), io.StringIO()
    plain = Plain(io.StringIO(), log, clock=clock)
    plain(events.StepProgress("a.upload", "a", 300 * MIB, 400 * MIB))
    clock.now = 10
    plain(events.StepProgress("a.upload", "a", 310 * MIB, 400 * MIB))
    assert "1.0 MiB/s, 1:30 left" in log.getvalue()


def test_a_failure_is_one_line_with_the_time_it_took() -> None:
    log = io.StringIO()
    plain = Plain(io.StringIO(), log, clock=lambda: 0.0)
    plain(events.StepFailed("a.upload", "a", 3.2, "refused\nall of it", "log in"))
    assert log.getvalue() == "[ 0:00] a.upload  ✗ failed after 3.2 s: refused\n"


def test_a_cancelled_step_is_no_failure() -> None:
    log, (renderer, out) = io.StringIO(), actions()
    cancelled = events.StepFailed("a.upload", "a", 3.2, "cancelled", "run again")
    Plain(io.StringIO(), log, clock=lambda: 0.0)(cancelled)
    renderer(cancelled)
    assert log.getvalue() == "[ 0:00] a.upload  ✗ cancelled after 3.2 s\n"
    assert "::error" not in out.getvalue()


def test_plain_lines_work_where_there_is_only_ascii() -> None:
    raw = io.BytesIO()
    log = io.TextIOWrapper(raw, encoding="ascii")
    plain = Plain(io.StringIO(), log, clock=lambda: 0.0)
    plain(events.StepFinished("a.upload", "a", 1.0, "naïve"))
    assert raw.getvalue() == b"[ 0:00] a.upload  ok done in 1.0 s: na?ve\n"


# -- JSON lines


def test_json_lines_carry_every_event_with_its_time() -> None:
    out = io.StringIO()
    lines = JsonLines(out)
    for event in STORY:
        lines(event)
    read = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in read] == [type(event).__name__ for event in STORY]
    assert all(line["time"].endswith("+00:00") for line in read)
    assert read[-1]["images"][0]["ref"] == "north/img-1"
    assert read[-1]["manifest"] == "/state/manifest.json"


# -- GitHub Actions


def actions(path: Path | None = None) -> tuple[Actions, io.StringIO]:
    out = io.StringIO()
    environ = {"GITHUB_STEP_SUMMARY": str(path)} if path else {}
    return Actions(out, environ, clock=lambda: 0.0), out


def test_parallel_steps_are_kept_apart_in_groups() -> None:
    renderer, out = actions()
    for event in STORY:
        renderer(event)
    renderer.close()
    assert out.getvalue().splitlines() == [
        "web 1.2.0: run run-1",
        "::group::nimbus.upload",
        "sending blocks",
        "::warning title=cirrus.upload::3 labels, dropped%0Ause lower case",
        "✓ done in 1 min 01 s: snap-1",
        "::endgroup::",
        "::group::✓ cirrus.upload (12 s)",
        "| ::error::not a command",
        "↻ attempt 1 failed, next in 2.5 s: 503 busy",
        "warning: 3 labels, dropped (use lower case) [labels]",
        "✓ done in 12 s: demo/object",
        "::endgroup::",
        "::warning::the disk is nearly full",
        "web 1.2.0: published in 6 min 12 s",
        "nimbus:north/img-1",
        "cirrus:demo/web-1-2-0",
        "manifest: /state/manifest.json",
    ]


def test_the_next_step_gets_the_floor_with_what_it_said_so_far() -> None:
    renderer, out = actions()
    for step in ("a.x", "b.x"):
        renderer(events.StepStarted(step, step[0]))
    renderer(events.StepPhase("b.x", "b", "early"))
    renderer(events.StepFinished("a.x", "a", 1.0))
    renderer(events.StepPhase("b.x", "b", "late"))
    assert out.getvalue().splitlines() == [
        "::group::a.x",
        "✓ done in 1.0 s",
        "::endgroup::",
        "::group::b.x",
        "early",
        "late",
    ]


def test_a_failed_step_is_annotated_once_with_its_hint() -> None:
    renderer, out = actions()
    renderer(events.StepStarted("a.x", "a"))
    renderer(events.StepFailed("a.x", "a", 1.0, "50 % done\nthen refused", "log in"))
    assert out.getvalue().splitlines()[-2:] == [
        "::endgroup::",
        "::error title=a.x::50 %25 done%0Athen refused%0Alog in",
    ]
    assert "50 % done\nthen refused" in ANNOTATED


def test_annotations_are_escaped() -> None:
    assert annotation("error", "1%\r\nx", "a:b,c") == "::error title=a%3Ab%2Cc::1%25%0D%0Ax"


def test_foreign_lines_are_no_workflow_commands() -> None:
    assert inert("  ::set-env name=A::b") == "|   ::set-env name=A::b"
    assert inert("x ##[add-path]/tmp") == "x # #[add-path]/tmp"
    assert inert("a::b") == "a::b"


def test_the_step_summary_is_a_table_of_images_and_steps(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    renderer, _ = actions(summary)
    for event in STORY:
        renderer(event)
    renderer.close()
    renderer.close()
    assert summary.read_text().splitlines() == [
        "before",
        "### web 1.2.0: published in 6 min 12 s",
        "",
        "| Cloud | Region | Image |",
        "|---|---|---|",
        "| nimbus | north | `nimbus:north/img-1` |",
        "| cirrus | global | `cirrus:demo/web-1-2-0` |",
        "",
        "| Step | Result | Time |",
        "|---|---|---|",
        "| build | reused |  |",
        "| cirrus.upload | ✓ | 12 s |",
        "| nimbus.upload | ✓ | 1 min 01 s |",
        "",
    ]


def test_the_summary_of_a_run_that_stopped_says_so(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    renderer, out = actions(summary)
    renderer(STORY[0])
    renderer(events.StepStarted("nimbus.upload", "nimbus"))
    renderer.close()
    assert out.getvalue().endswith("::endgroup::\n")
    assert summary.read_text().startswith("### web 1.2.0: not finished\n")
    assert "| nimbus.upload | ✗ | stopped |" in summary.read_text()


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    renderer, out = actions(tmp_path)
    renderer(STORY[0])
    renderer(FINISHED)
    renderer.close()
    assert out.getvalue().splitlines()[-1] == (
        "::warning::cannot write the step summary: Is a directory"
    )
