"""SIGINT and SIGTERM: cancelled once, ended at once the second time, never longer than 5 s."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from tests.unit.pipeline_fakes import GOOD

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
import publisher.run
from publisher.cli import main, signals
from publisher.errors import Cancelled
from tests.unit import pipeline_fakes

def polite(plan, *, state, sink, cancellation, **_):
    print("running", flush=True)
    cancellation.wait(60)
    cancellation.check()

def deaf(plan, *, state, sink, cancellation, **_):
    print("running", flush=True)
    while True:
        time.sleep(0.05)

class ForGood:  # in place of pytest.MonkeyPatch, whose import is a third of the start
    setattr = staticmethod(setattr)

pipeline_fakes.install(ForGood)
signals.GRACE = float(sys.argv[4])
publisher.run.run = {"polite": polite, "deaf": deaf}[sys.argv[2]]
main.main(["run", sys.argv[3], "--plain"])
"""


@contextmanager
def running(directory: Path, kind: str, grace: float = 4.8) -> Iterator[Popen[str]]:
    file = directory / "pipeline.toml"
    file.write_text(GOOD)
    environ = {**os.environ, "PUBLISH_STATE_DIR": str(directory)}
    with Popen(
        [sys.executable, "-c", PROGRAM, str(ROOT), kind, str(file), str(grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_run(tmp_path: Path, name: signal.Signals) -> None:
    with running(tmp_path, "polite", grace=60) as process:
        process.send_signal(name)
        _, said = process.communicate(timeout=50)
    assert process.returncode == 130
    assert said == "error: cancelled\n  hint: run the same command again to continue\n"


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "deaf", grace=60) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=2)
    assert process.returncode == 130
    assert said == "publish: stopped at once; run the same command again to continue\n"


def test_a_run_that_does_not_stop_is_stopped(tmp_path: Path) -> None:
    with running(tmp_path, "deaf", grace=0.3) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=4)
    assert process.returncode == 130
    assert said == "publish: stopped hard after 5 s; run the same command again to continue\n"
