"""Building alone: no cloud is asked, and what was built is what a run publishes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher import events, plan, run, steps
from publisher.context import Context
from publisher.errors import BuildError
from publisher.journal import read_outcomes, release_directory
from publisher.manifest import manifests
from publisher.model import MIB
from publisher.pipeline import load
from publisher.plan import Plan, Step
from publisher.task import Task
from tests.unit import pipeline_fakes


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    pipeline_fakes.install(monkeypatch)
    file = tmp_path / "pipeline.toml"
    file.write_text(pipeline_fakes.GOOD)
    return plan.plan(load(file, environ={"PROJECT": "p", "TOKEN": "t"}))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that were built, each one a disk with its own key in it."""
    done: list[str] = []

    def build(step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        done.append(step.id)
        path = context.store.scratch(step.id)
        path.write_bytes(step.key.encode().ljust(MIB, b"\0"))
        disk = context.store.add(path)
        by_hand = ["step 1: true"] if context.on_error.action == "keep" else []
        return {"sha256": disk.sha256, "by_hand": by_hand, "evidence": []}

    monkeypatch.setattr(steps, "RUNBOOK", {"build": build})
    return done


def test_it_holds_the_builds_alone_under_the_same_keys(whole: Plan) -> None:
    alone = plan.builds(whole)
    assert {step.kind for step in alone.steps} == {"build"}
    assert all(step.key == whole.step(step.id).key for step in alone.steps)


def test_a_build_is_done_once_and_no_manifest_is_written(
    whole: Plan, tmp_path: Path, built: list[str]
) -> None:
    seen: list[events.Event] = []
    alone = plan.builds(whole)
    (disk, *_) = run.build(alone, state=tmp_path, sink=seen.append)
    assert Path(disk.path).stat().st_size == disk.size == MIB
    assert [e for e in seen if isinstance(e, events.DiskBuilt)] == [disk]
    (again, *_) = run.build(alone, state=tmp_path)
    assert again == disk
    assert len(built) == len(alone.steps)
    assert manifests(tmp_path) == []
    recorded = read_outcomes(release_directory(tmp_path, whole.name, whole.version))
    assert whole.step(disk.step).key in recorded, "a run of the whole plan finds it"


def test_a_disk_after_changes_by_hand_says_so(
    whole: Plan, tmp_path: Path, built: list[str]
) -> None:
    from publisher.build.rescue import OnError

    alone = plan.builds(whole)
    (disk, *_) = run.build(alone, state=tmp_path, on_error=OnError("keep"))
    assert disk.by_hand == ("step 1: true",)
    seen: list[events.Event] = []
    run.build(alone, state=tmp_path, sink=seen.append)
    assert any("changes by hand" in e.reason for e in seen if isinstance(e, events.StepReused))


def test_a_failed_build_is_the_error(
    whole: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> Mapping[str, Any]:
        raise BuildError("step 1 failed")

    monkeypatch.setattr(steps, "RUNBOOK", {"build": build})
    with pytest.raises(BuildError, match="step 1 failed"):
        run.build(plan.builds(whole), state=tmp_path)
