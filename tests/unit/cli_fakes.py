"""A command line run in this process, and a run whose events are scripted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import publisher.run
from publisher import events
from publisher.cli import main
from publisher.model import GIB, Finding, Image, Severity
from tests.unit.pipeline_fakes import GOOD, install


class Command:
    """Runs `publish` with a good pipeline file at hand; keeps code and output."""

    def __init__(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(monkeypatch)
        for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
            monkeypatch.delenv(name, raising=False)
        self.state = directory / "state"
        monkeypatch.setenv("PUBLISH_STATE_DIR", str(self.state))
        monkeypatch.setenv("COLUMNS", "80")
        self.file = directory / "pipeline.toml"
        self.file.write_text(GOOD)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.code = 0
        self.out = ""
        self.err = ""

    def __call__(self, *arguments: str) -> Command:
        self._capsys.readouterr()
        self.code = main.run(arguments)
        self.out, self.err = self._capsys.readouterr()
        return self

    def engine(self, run: Callable[..., Any]) -> None:
        """What stands in for publisher.run.run."""
        self._monkeypatch.setattr(publisher.run, "run", run)


IMAGES = (
    Image("nimbus", "north", "north/img-1", "web", "1.2.0", "0" * 64),
    Image("cirrus", "global", "demo/web-1-2-0", "web", "1.2.0", "0" * 64),
)
FINISHED = events.RunFinished("run-1", 372.2, IMAGES, "/state/manifest.json")
STORY: tuple[events.Event, ...] = (
    events.RunStarted(
        "run-1",
        "web 1.2.0",
        (("build", "build"), ("nimbus.upload", "nimbus"), ("cirrus.upload", "cirrus")),
    ),
    events.StepReused("build", "build", "done yesterday"),
    events.StepStarted("nimbus.upload", "nimbus"),
    events.StepStarted("cirrus.upload", "cirrus"),
    events.StepPhase("nimbus.upload", "nimbus", "sending blocks"),
    events.StepOutput("cirrus.upload", "cirrus", "\x1b[31m::error::not a command\x1b[0m"),
    events.StepProgress("nimbus.upload", "nimbus", GIB, 2 * GIB),
    events.StepRetry("cirrus.upload", "cirrus", "503 busy", 1, 2.5),
    events.StepFinding(
        "cirrus.upload",
        "cirrus",
        Finding("labels", Severity.WARNING, "3 labels, dropped", "use lower case"),
    ),
    events.StepFinished("cirrus.upload", "cirrus", 12.0, "demo/object"),
    events.StepFinished("nimbus.upload", "nimbus", 61.2, "snap-1"),
    events.Note("warning", "the disk is nearly full"),
    FINISHED,
)
