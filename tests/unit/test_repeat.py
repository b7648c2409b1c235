"""A build that is verified is done twice, with nothing of the first one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher import events, plan, repeat, run, steps
from publisher.context import Context
from publisher.errors import BuildError, ProofError
from publisher.model import MIB
from publisher.pipeline import load
from publisher.plan import Plan, Step
from publisher.task import Cancellation, Task
from tests.unit import pipeline_fakes


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    pipeline_fakes.install(monkeypatch)
    file = tmp_path / "pipeline.toml"
    file.write_text(pipeline_fakes.GOOD)
    return plan.builds(plan.plan(load(file, environ={"PROJECT": "p", "TOKEN": "t"})))


class Builder:
    """Builds what `content` says, and notes in which state directories."""

    def __init__(self, *content: bytes, by_hand: tuple[str, ...] = ()) -> None:
        self.content, self.by_hand = list(content), by_hand
        self.states: list[Path] = []

    def __call__(self, step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        self.states.append(context.state)
        if not self.content:
            raise BuildError("out of content")
        task.phase("building")
        path = context.store.scratch("made")
        path.write_bytes(self.content.pop(0).ljust(MIB, b"\0"))
        return {"sha256": context.store.add(path).sha256, "by_hand": self.by_hand}


def verify(
    builds: Plan, state: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> list[events.Event]:
    seen: list[events.Event] = []
    monkeypatch.setattr(steps, "RUNBOOK", {"build": builder})
    made = run.build(builds, state=state)
    repeat.verify(builds, made, state=state, sink=seen.append, cancellation=Cancellation())
    return seen


def test_the_same_bits_pass_and_leave_nothing_of_the_second_build(
    builds: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(b"same", b"same")
    seen = verify(builds, tmp_path, builder, monkeypatch)
    first, second = builder.states
    assert first == tmp_path
    assert second != first
    assert not (tmp_path / "verify").exists()
    assert not [e for e in seen if isinstance(e, (events.RunStarted, events.DiskBuilt))]
    assert "build again" in {e.step for e in seen if isinstance(e, events.StepPhase)}


def test_other_bits_are_an_error_that_says_where(
    builds: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProofError, match="1 blocks of 4096 bytes, the first one at byte 0"):
        verify(builds, tmp_path, Builder(b"one", b"two"), monkeypatch)
    assert not (tmp_path / "verify").exists()


def test_a_second_build_that_fails_leaves_nothing(
    builds: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BuildError, match="out of content"):
        verify(builds, tmp_path, Builder(b"one"), monkeypatch)
    assert not (tmp_path / "verify").exists()


def test_what_a_killed_verification_left_goes_with_the_next(
    builds: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "verify" / "999999999" / "store").mkdir(parents=True)
    verify(builds, tmp_path, Builder(b"same", b"same"), monkeypatch)
    assert not (tmp_path / "verify").exists()


def test_an_image_changed_by_hand_is_not_built_again(
    builds: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(b"one", by_hand=("step 1: true",))
    with pytest.raises(ProofError, match="open to changes by hand"):
        verify(builds, tmp_path, builder, monkeypatch)
    assert len(builder.states) == 1
