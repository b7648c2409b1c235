"""What is kept of a build's secrets, to look for them in its disk: of all that ever went in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

from publisher import proofs, steps
from publisher.build import builder, cleaning, installed, secrets
from publisher.build import steps as build_steps
from publisher.build.builder import TRACES
from publisher.build.checkpoints import Checkpoints, Level
from publisher.build.rescue import CLEANUP
from publisher.build.work import Work
from publisher.errors import BuildError
from publisher.model import MIB, Disk, Extent, Spec
from publisher.plan import Step
from publisher.proof.secrets import trace
from publisher.proof.secrets.trace import Trace
from publisher.recipe import Recipe
from publisher.secret import Secret
from publisher.task import Task, detached
from publisher.vm import keys

BEFORE, NOW = "the value that it had before", "the value that it has now"
LOGIN, HOST = "a private key to log in with", "a private key of the machine"
PASSWORD = "the password of root in the preseed file"
STEP = "build.steps[0].secrets.TOKEN"


@pytest.fixture(autouse=True)
def _values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "COST", 2)
    monkeypatch.setenv("TOKEN", NOW)
    monkeypatch.setenv("PASSWORD", PASSWORD)


def recipe(**source: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "size": "1GiB",
            "source": source or {"debian": {}},
            "steps": [{"run": "true", "secrets": {"TOKEN": {"environment": "TOKEN"}}}],
        }
    )


INSTALLER = {
    "kernel": "k",
    "initrd": "i",
    "arguments": "url={url}/preseed.cfg",
    "files": {"preseed.cfg": "p"},
    "secrets": {"password": {"environment": "PASSWORD"}},
}


def whose(traces: Sequence[Mapping[str, Any]], values: Mapping[str, str]) -> list[str]:
    """Which of the values the traces are of, each with the trace's label."""
    found = []
    for kept in map(Trace.from_json, traces):
        name = next((n for n, v in values.items() if kept.may_be(v.encode())), "nobody's")
        found.append(f"{kept.label}: {name}")
    return found


VALUES = {"before": BEFORE, "now": NOW, "login": LOGIN, "host": HOST, "password": PASSWORD}


class Room:
    """A machine that runs every step; its keys are LOGIN and HOST."""

    def __init__(self, directory: Path) -> None:
        identity = directory / "identity"
        identity.write_text(LOGIN)
        self.keys = SimpleNamespace(identity=identity, host_private=HOST, user_public="k")
        self.shell = self.machine = None
        self.kept: list[Mapping[str, Any]] = []

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None: ...

    def boot(self, *_: object, **__: object) -> None: ...

    def join_early(self, _: Path) -> None: ...

    def keep(self, _name: str, _levels: object, facts: Mapping[str, Any]) -> None:
        self.kept.append(json.loads(json.dumps(facts)))

    def flatten(self, into: Path) -> Path:
        return into


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Room]:
    """A build in a Room, with traces as a run makes them."""
    given = recipe()
    room = Room(tmp_path)
    monkeypatch.setattr(builder, "platform_of", lambda _: None)
    monkeypatch.setattr(builder, "_firmware", lambda *_: None)
    monkeypatch.setattr(builder, "_erase", lambda *_: None)
    monkeypatch.setattr(cleaning, "clean", lambda *_: None)
    monkeypatch.setattr(build_steps, "_run", lambda *_: None)
    monkeypatch.setattr(builder, "check_files", lambda *_: None)
    quiet = SimpleNamespace(sync_soon=lambda: None, pause=lambda: None, along=lambda _: [])
    path = [Level(title, {}, title) for title in ("boot", "step")]
    work: Any = SimpleNamespace(directory=tmp_path)
    one = builder._Build(
        given,
        Spec("web", "1"),
        tmp_path,
        None,  # type: ignore[arg-type]
        work,
        quiet,  # type: ignore[arg-type]
        path,
        detached(tmp_path / "memory"),
        CLEANUP,
        lambda label, value: Trace.of(label, value).to_json(),
    )
    monkeypatch.setattr(one, "_room", lambda: room)
    monkeypatch.setattr(one, "_resume", lambda *_: True)
    return one, room


def work(**facts: Any) -> Work:
    return Work(Path("disk"), foreign=False, systems=(), root=None, **facts)


def test_secrets_of_steps_and_the_builds_own_keys_are_traced(made: tuple[Any, Room]) -> None:
    build, room = made
    build.run(work)
    found = whose(build.traces, VALUES)
    assert found == [
        f"{STEP}: now",
        "the key of the build's login: login",
        "the host key of the build's machine: host",
    ]
    assert [whose(facts[TRACES], VALUES) for facts in room.kept] == [[], [f"{STEP}: now"]]


def test_what_an_installer_was_given_is_traced_with_all_that_follows(
    made: tuple[Any, Room],
) -> None:
    build, room = made
    kept = Trace.of("build.source.installer.secrets.password", PASSWORD).to_json()
    build.run(lambda: work(traces=(kept,)))
    first = "build.source.installer.secrets.password: password"
    assert whose(build.traces, VALUES)[:2] == [first, f"{STEP}: now"]
    assert [whose(facts[TRACES], VALUES)[0] for facts in room.kept] == [first, first]


def test_a_resumed_step_is_traced_with_the_value_that_it_had(
    made: tuple[Any, Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, _ = made
    kept = Trace.of(STEP, BEFORE).to_json()
    facts = {**work().to_json(), TRACES: [kept]}
    build.kept.along = lambda _: [(1, SimpleNamespace(facts=facts))]
    build.run(work)
    assert f"{STEP}: before" in whose(build.traces, VALUES)
    assert f"{STEP}: now" not in whose(build.traces, VALUES)


def test_the_secrets_of_a_failed_step_stay_traced(
    made: tuple[Any, Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, _ = made
    attempts = iter([False, True])

    def run(*_: object) -> None:
        if not next(attempts):
            monkeypatch.setenv("TOKEN", NOW)
            raise BuildError("it failed")

    monkeypatch.setenv("TOKEN", BEFORE)
    monkeypatch.setattr(build_steps, "_run", run)
    monkeypatch.setattr(build, "_rescue", lambda *_: None)
    build.run(work)
    assert whose(build.traces, VALUES)[:2] == [f"{STEP}: before", f"{STEP}: now"]


def test_an_installer_hands_over_what_its_answers_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(installer=INSTALLER)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"x")
    fake = SimpleNamespace(secrets={"password": PASSWORD}, run=lambda *_, **__: disk)
    monkeypatch.setattr(installed, "Installation", lambda *_, **__: fake)
    monkeypatch.setattr(keys, "generate", lambda *_: None)
    monkeypatch.setattr(keys, "copy", lambda *_: None)
    monkeypatch.setattr(installed, "_examine", lambda *_: work())
    monkeypatch.setattr(installed, "has_esp", lambda _: True)
    store = SimpleNamespace(directory=tmp_path / "store", scratch=lambda name: tmp_path / name)
    place = SimpleNamespace(directory=tmp_path, store=store, need=lambda _: None)
    kept = Checkpoints(tmp_path / "store")
    task = detached(tmp_path / "memory")
    tracer: secrets.Tracer = lambda label, value: Trace.of(label, value).to_json()  # noqa: E731
    with kept:
        site = installed.Site(place, kept, None, None, tmp_path, task, tracer)  # type: ignore[arg-type]
        level = Level("installation", {}, "k" * 64)
        made = installed.prepare(given, Spec("web", "1"), level, {}, site)
        again = installed.prepare(given, Spec("web", "1"), level, {}, site)
    expected = ["build.source.installer.secrets.password: password"]
    assert whose(made.traces, VALUES) == whose(again.traces, VALUES) == expected


def test_a_build_leaves_its_traces_in_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_: Recipe, __: Spec, *, task: Task, trace: secrets.Tracer, **___: object) -> Disk:
        task.memory.set(TRACES, [trace(STEP, NOW)])
        return Disk(Path("disk"), MIB, "0" * 64, (Extent(0, MIB),))

    monkeypatch.setattr("publisher.build.build", build)
    inputs = recipe().model_dump(mode="json", by_alias=True, exclude_none=True)
    step = Step(
        "build",
        "build",
        "build",
        {"recipe": {**inputs, "files": {}}, "spec": Spec("web", "1").to_json()},
        (),
        "key",
        local={"directory": str(tmp_path)},
    )
    plan = SimpleNamespace(origins={"build": {}})
    context: Any = SimpleNamespace(store=None, on_error=None, run="run", plan=plan)
    value = steps.build(step, context, detached(tmp_path / "memory"))
    assert NOW not in json.dumps(value)
    assert whose(value[TRACES], VALUES) == [f"{STEP}: now"]
    known = proofs._known(step, step, value)
    assert known.labels == ("the secret TOKEN of build.steps[0]",)
    monkeypatch.setenv("TOKEN", "another value by now")
    known = proofs._known(step, step, value)
    name = "the secret TOKEN of build.steps[0]"
    assert known.labels == (name, f"an earlier value of {name}")


# -- every place where a recipe has a secret


def places(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Where below a section a Secret may stand."""
    for name, hint in get_type_hints(model).items():
        for kind in _classes(hint):
            here = f"{path}.{name}".lstrip(".")
            if issubclass(kind, Secret):
                yield here
            elif issubclass(kind, BaseModel):
                yield from places(kind, here)


def _classes(hint: object) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)


def test_no_secret_of_a_recipe_is_left_out(tmp_path: Path) -> None:
    assert set(places(Recipe)) == {"source.installer.secrets", "steps.secrets"}
    found = secrets.at_hand(recipe(installer=INSTALLER), tmp_path)
    assert found == {STEP: NOW, "build.source.installer.secrets.password": PASSWORD}


def test_what_can_not_be_read_any_more_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN")
    assert secrets.at_hand(recipe(), tmp_path) == {}
