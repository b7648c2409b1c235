"""What a machine is told before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from publisher.build import resting
from publisher.task import Cancellation, Clock, Task, detached
from publisher.vm.process import Completed
from publisher.vm.shell import Shell


class Ticking(Clock):
    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        self.slept += seconds


class Guest:
    """A Shell whose kernel lets its caches be dropped, or does not."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.told: list[str] = []

    def command(self, command: str, **_: Any) -> Completed:
        self.told.append(command)
        return Completed(self.status, ())

    def script(self, text: str) -> Completed:
        self.told.append(text)
        return Completed(127, ())  # a small guest may lack the programs


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


@pytest.fixture
def task(tmp_path: Path, clock: Ticking) -> Task:
    return detached(tmp_path, clock=clock)


def test_after_a_long_step_its_free_memory_is_waited_for(task: Task, clock: Ticking) -> None:
    guest = Guest()
    resting.rest(cast(Shell, guest), 60, task)
    assert "drop_caches" in guest.told[0]
    assert "systemctl" in guest.told[1]
    assert clock.slept == resting.REPORTED


def test_a_short_step_is_not_made_a_long_one(task: Task, clock: Ticking) -> None:
    guest = Guest()
    resting.rest(cast(Shell, guest), 2, task)
    assert len(guest.told) == 1
    assert clock.slept == 0


def test_a_guest_that_keeps_its_caches_is_kept_as_it_is(task: Task, clock: Ticking) -> None:
    resting.rest(cast(Shell, Guest(status=1)), 60, task)
    assert clock.slept == 0
