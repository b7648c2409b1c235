"""`publish sandbox` and --sandbox: stand-ins that run as long as they are needed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.plan import Plan
from publisher.sandbox import Sandboxes
from tests.unit.cli_fakes import Command
from tests.unit.pipeline_fakes import Cirrus


class StandIn:
    """Remembers what happened to it."""

    made: list[StandIn]

    def __init__(self, state: Path, port: int) -> None:
        self.state = state
        self.port = port
        self.running = False
        StandIn.made.append(self)

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    @property
    def environment(self) -> Mapping[str, str]:
        return {"CIRRUS_ENDPOINT": f"http://127.0.0.1:{self.port}/a b"}


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    StandIn.made = []
    monkeypatch.setattr(Cirrus, "sandbox", lambda state, port=0: StandIn(state, port))
    return Command(tmp_path, monkeypatch, capsys)


def test_a_run_in_the_sandbox_sees_the_stand_ins_environment(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str | None, bool]] = []

    def run(plan: Plan, **_: Any) -> None:
        seen.append((os.environ.get("CIRRUS_ENDPOINT"), StandIn.made[0].running))

    publish.engine(run)
    assert publish("run", str(publish.file), "--only", "cirrus", "--sandbox").code == 0
    assert seen == [("http://127.0.0.1:0/a b", True)]
    assert not StandIn.made[0].running
    assert "CIRRUS_ENDPOINT" not in os.environ
    assert StandIn.made[0].state == publish.state / "sandbox" / "cirrus"


def test_a_run_without_the_option_starts_nothing(publish: Command) -> None:
    publish.engine(lambda plan, **_: None)
    assert publish("run", str(publish.file), "--only", "cirrus").code == 0
    assert StandIn.made == []


def test_a_cloud_without_a_stand_in_is_named(publish: Command) -> None:
    publish.engine(lambda plan, **_: None)
    assert publish("run", str(publish.file), "--sandbox").code == 2
    assert publish.err == "error: nimbus has no sandbox\n  hint: leave it out with --only\n"


def test_sandbox_prints_the_environment_and_waits_for_a_signal(publish: Command) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert publish("sandbox", "--port", "cirrus=5005").code == 0
    assert publish.out == "export CIRRUS_ENDPOINT='http://127.0.0.1:5005/a b'\n"
    assert publish.err == (f"cirrus: ready, state in {publish.state / 'sandbox'}; Ctrl-C stops\n")
    assert not StandIn.made[0].running


@pytest.mark.parametrize(
    ("number", "next_action"),
    [(errno.EADDRINUSE, "is another one running?"), (errno.ENOSPC, "--state, or free some space")],
)
def test_a_stand_in_that_cannot_start_says_what_to_do(
    publish: Command, monkeypatch: pytest.MonkeyPatch, number: int, next_action: str
) -> None:
    def refuse(self: StandIn) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(StandIn, "start", refuse)
    assert publish("run", str(publish.file), "--only", "cirrus", "--sandbox").code == 4
    assert os.strerror(number) in publish.err
    assert next_action in publish.err


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (
            ["--port", "cirrus"],
            "error: --port cirrus: not of the form NAME=PORT\n  hint: such as aws=5000\n",
        ),
        (
            ["--port", "cirus=5000"],
            "error: there is no sandbox 'cirus'\n  hint: did you mean \"cirrus\"?\n",
        ),
        (["--only", "nimbus"], "error: there is no sandbox 'nimbus'\n  hint: known are: cirrus\n"),
    ],
)
def test_wrong_words_start_nothing(publish: Command, words: list[str], printed: str) -> None:
    assert publish("sandbox", *words).code == 2
    assert publish.err == printed
    assert StandIn.made == []


def test_two_processes_do_not_run_one_stand_in(publish: Command) -> None:
    publish.engine(lambda plan, **_: None)
    run = ("run", str(publish.file), "--only", "cirrus", "--sandbox")
    with Sandboxes(["cirrus"], publish.state):
        assert publish(*run).code == 13
        assert "another process runs the stand-in of cirrus" in publish.err
    assert publish(*run).code == 0
