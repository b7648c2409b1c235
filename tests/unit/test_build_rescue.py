"""A step that failed: the machine goes, is kept, or is opened to the user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from publisher.build import builder, cleaning, steps
from publisher.build.builder import _Build, _FromCheckpoint
from publisher.build.checkpoints import Checkpoint, Checkpoints, failed_key
from publisher.build.rescue import OnError, converse
from publisher.build.room import Room
from publisher.build.secrets import untraced
from publisher.build.sources import Work
from publisher.errors import BootError, BuildError, Cancelled
from publisher.memory import Memory
from publisher.model import Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm.shell import Shell
from tests.unit.test_build_checkpoints import keep, levels

FAILED = BuildError("step 2 (run false) ended with status 1", key="build.steps[1]")


class Guest:
    """A shell in which the user's visits end as `visits` say."""

    def __init__(self, *visits: int | Exception) -> None:
        self.visits = list(visits)

    def interact(self, keyboard: int, screen: int) -> int:
        visit = self.visits.pop(0)
        if isinstance(visit, Exception):
            raise visit
        return visit


class User:
    """A terminal at which the user answers; None is the end of the input."""

    files = (0, 2)

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.seen = ""
        self.display: list[str] = []

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self.display.append("aside")
        yield
        self.display.append("back")

    def write(self, text: str) -> None:
        self.seen += text

    def ask(self, question: str, check: Callable[[], None]) -> str | None:
        self.write(question)
        check()
        return self.answers.pop(0)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("build", Memory(tmp_path / "memory"))


def talk(user: User, guest: Guest, task: Task) -> str:
    return converse(user, cast(Shell, guest), "step 2", FAILED, task)


@pytest.mark.parametrize(
    ("answer", "status", "decision"),
    [
        ("\n", 0, "retry"),
        ("\n", 1, "give up"),
        ("r\n", 1, "retry"),
        ("c\n", 0, "again"),
        ("K\n", 0, "keep"),
        ("a\n", 0, "give up"),
        (None, 0, "give up"),
    ],
)
def test_who_leaves_the_shell_decides_what_comes_next(
    answer: str | None, status: int, decision: str, task: Task
) -> None:
    user = User(answer)
    assert talk(user, Guest(status), task) == decision
    assert "step 2 (run false) ended with status 1" in user.seen


def test_the_user_may_go_back_into_the_shell_and_mistype(task: Task) -> None:
    guest = Guest(0, 0)
    assert talk(User("s\n", "what?\n", "r\n"), guest, task) == "retry"
    assert guest.visits == []


def test_a_guest_that_is_gone_can_only_be_left(task: Task) -> None:
    gone = BootError("it powered off", phase="ready")
    user = User("r\n", "\n")
    assert talk(user, Guest(gone, gone), task) == "again"
    assert "can't be reached: it powered off" in user.seen
    assert "only c and a are left" in user.seen


def test_cancelling_ends_the_conversation(task: Task) -> None:
    task.cancellation.cancel()
    with pytest.raises(Cancelled):
        talk(User("r\n"), Guest(0), task)


# -- in a build


class FakeRoom:
    """Keeps what it is told to keep, and has a shell."""

    def __init__(self, kept: Checkpoints, *visits: int) -> None:
        self.kept, self.shell = kept, Guest(*visits)
        self.machine, self.keys = MagicMock(), MagicMock()

    def join_early(self, into: Path) -> None:
        assert not into.exists()

    def keep(self, name: str, path: Any, facts: Any, *, failed: str = "") -> Checkpoint:
        key = failed_key(path[-1]) if failed else path[-1].key
        return keep(self.kept, path, key=key, name=name, facts=facts, failed=failed)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Checkpoints]:
    with Checkpoints(tmp_path) as kept:
        yield kept


RECIPE = Recipe.model_validate(
    {"source": {"debian": {}}, "size": "2GiB", "steps": [{"run": "true"}, {"run": "false"}]}
)
WORK = Work(Path("disk.raw"), False, (0,), 0)


def a_build(task: Task, kept: Checkpoints, on_error: OnError) -> _Build:
    build = _Build.__new__(_Build)
    build.recipe, build.spec, build.task, build.kept = RECIPE, Spec("demo", "1"), task, kept
    build.workspace = MagicMock(directory=kept.directory)
    build.sealed = kept.directory / "sealed.raw"
    build.on_error, build.path = on_error, levels("true", "false")
    build.evidence, build.by_hand, build.traces, build.directory = [], [], [], Path()
    build.epoch = None
    build.trace = untraced
    return build


def fail(build: _Build, room: FakeRoom) -> BuildError | None:
    """The error that ends the build; None when the step is tried again."""
    error = BuildError("it failed", hint="correct the step")
    try:
        build._rescue(cast(Room, room), WORK, 1, error)
    except BuildError as raised:
        return raised
    return None


def test_a_failed_machine_goes_away_unless_it_is_asked_for(kept: Checkpoints, task: Task) -> None:
    assert fail(a_build(task, kept, OnError()), FakeRoom(kept)) is not None
    assert kept.failures("demo") == []


def test_a_failed_machine_is_kept_listed_and_told_of(kept: Checkpoints, task: Task) -> None:
    error = fail(a_build(task, kept, OnError("keep")), FakeRoom(kept))
    (machine,) = kept.failures("demo")
    assert error is not None
    assert "correct the step" in error.hint
    assert f"kept as {machine.key[:12]}" in error.hint
    assert machine.failed == "it failed"
    path = levels("true", "false")
    assert kept.deepest(path) is None, "no build goes on from it by itself"
    assert kept.failures("another image") == []
    for depth in (1, 2):
        keep(kept, path[:depth])
    assert kept.why("demo", path)[2] == "failed the last time"


def test_a_retry_on_a_changed_machine_leaves_its_mark(kept: Checkpoints, task: Task) -> None:
    user = User("r\n")
    build = a_build(task, kept, OnError("shell", user))
    assert fail(build, FakeRoom(kept, 0)) is None
    assert build.by_hand == ["step 2: run false"]
    assert build._facts(WORK)["by_hand"] == ["step 2: run false"]
    assert user.display == ["aside", "back"]


def test_what_was_changed_by_hand_becomes_no_checkpoint(
    kept: Checkpoints, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = a_build(task, kept, OnError("shell", User("r\n")))
    outcomes = iter([BuildError("it failed"), None])

    def run(step: Any, *_: object) -> None:
        outcome = next(outcomes) if step.run == "false" else None
        if outcome is not None:
            raise outcome

    class Enough(Exception):
        pass

    def clean(*_: object) -> None:
        raise Enough

    room = FakeRoom(kept, 0)
    monkeypatch.setattr(steps, "run", run)
    monkeypatch.setattr(builder, "check_files", lambda *_: None)
    monkeypatch.setattr(cleaning, "clean", clean)
    with pytest.raises(Enough):
        build._finish(cast(Room, room), WORK, 0)
    assert [c.title for c in kept.all()] == ["true"], "the step before it is clean"
    assert build.by_hand == ["step 2: run false"]


def test_the_last_checkpoint_is_gone_back_to(kept: Checkpoints, task: Task) -> None:
    build = a_build(task, kept, OnError("shell", User("c\n")))
    with pytest.raises(_FromCheckpoint):
        fail(build, FakeRoom(kept, 0))
    assert build.by_hand == []


def test_an_unusable_checkpoint_gives_way_to_the_one_before_it(
    kept: Checkpoints, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = a_build(task, kept, OnError())
    path = levels("true", "false")
    shallow, deep = keep(kept, path[:1]), keep(kept, path[:2])
    tried: list[Checkpoint] = []

    def resume(room: object, where: str, checkpoint: Checkpoint) -> bool:
        tried.append(checkpoint)
        return checkpoint == shallow

    monkeypatch.setattr(build, "_room", lambda: contextlib.nullcontext())
    monkeypatch.setattr(build, "_resume", resume)
    monkeypatch.setattr(build, "_recall", lambda _: WORK)
    monkeypatch.setattr(build, "_finish", lambda _room, _work, first: first)

    def prepare() -> Work:
        raise AssertionError("nothing is installed again")

    assert cast(int, build._attempt(prepare)) == 0
    assert tried == [deep, shallow]
    assert kept.get(deep.key) is None, "nor is it tried again"
    assert kept.get(shallow.key) == shallow


@pytest.mark.parametrize(("inputs", "opened"), [("false", True), ("false || true", False)])
def test_a_kept_machine_is_opened_while_its_step_is_the_same(
    inputs: str, opened: bool, kept: Checkpoints, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(a_build(task, kept, OnError("keep")), FakeRoom(kept))
    build = a_build(task, kept, OnError("shell", User("r\n")))
    build.path = path = levels("true", inputs)
    keep(kept, path[:2])
    monkeypatch.setattr(build, "_room", lambda: contextlib.nullcontext(FakeRoom(kept, 0)))
    monkeypatch.setattr(build, "_resume", lambda *_: True)
    monkeypatch.setattr(build, "_recall", lambda _: WORK)
    monkeypatch.setattr(build, "_finish", lambda _room, work, first: replace(work, root=first))
    assert build._reopen() == (replace(WORK, root=1) if opened else None)
