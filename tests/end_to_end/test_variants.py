"""Two variants of the demo, from the machine that the demo's build has left behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from publisher.build.layout import ROOT_OFFSET
from tests.end_to_end.command import ARCHIVE_AT_REST, DEMO, Ended, publish

pytestmark = pytest.mark.qemu

VARIANTS = """
[variants.dev]
[[variants.dev.build.extra_steps]]
run = "echo dev > /etc/variant"

[variants.prod]
[[variants.prod.build.extra_steps]]
run = "test ! -e /etc/variant; echo prod > /etc/variant"
"""


def inside(path: str, command: str) -> str:
    argv = ["debugfs", "-R", command, f"{path}?offset={ROOT_OFFSET}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_variants_resume_behind_the_steps_that_they_share(
    demo: Ended, state: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "pipeline"
    shutil.copytree(Path(DEMO).parent, directory)
    file = directory / "demo.toml"
    file.write_text(file.read_text().replace('family = "demo"', "") + VARIANTS)
    ended = publish("build", str(file), "--state", str(state), environ=ARCHIVE_AT_REST)
    assert ended.steps("StepFinished") == ["dev.build", "prod.build"]
    phases = [event["phase"] for event in ended.named("StepPhase")]
    assert phases.count("resuming the machine after step 3") == 2
    assert not any(phase.startswith(("booted", "booting")) for phase in phases)
    dev, prod = (event["path"] for event in ended.named("DiskBuilt"))
    assert inside(dev, "cat /etc/variant") == "dev\n"
    assert inside(prod, "cat /etc/variant") == "prod\n"
