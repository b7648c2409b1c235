"""publish rehearse FILE: the disks of a pipeline are built, and rehearsed as its clouds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from publisher import run, steps
from publisher.cli import rehearsing
from publisher.context import Context
from publisher.errors import BuildError
from publisher.model import MIB, Disk, Spec
from publisher.pipeline import load
from publisher.plan import Step, plan
from publisher.proof.guest import Guest
from publisher.proof.rehearse import Claim, Rehearsal, Status
from publisher.provider import Options, Traits
from publisher.rehearsal import Rehearse
from publisher.task import Cancellation, Task
from tests.unit import pipeline_fakes, test_rehearse_parts
from tests.unit.cli_fakes import Command

VARIANTS = """
[variants.dev]
[variants.p]
image.arch = ["x86_64", "aarch64"]
targets.cirrus.project = "shop"
"""


class CirrusGuest(test_rehearse_parts.Nimbus):
    """Remembers with which options it was made."""

    def __init__(self, options: Options | None) -> None:
        super().__init__("cirrus")
        self.options = options


class Cirrus(pipeline_fakes.Cirrus):
    traits: ClassVar[Traits] = replace(pipeline_fakes.Cirrus.traits, boots=True)

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        return CirrusGuest(options)


class World:
    """What was built and what was rehearsed; `failing` images fail."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.rehearsed: list[tuple[Disk, Spec, Rehearse]] = []
        self.guests: list[Guest] = []
        self.failing: Sequence[str] = ()

    def build(self, step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        if "build" in self.failing:
            raise BuildError("the guest is out of order")
        self.built.append(step.id)
        path = context.store.scratch(step.id)
        path.write_bytes(step.key.encode().ljust(MIB, b"\0"))
        return steps.disk_value(context.store.add(path), Spec.from_json(step.inputs["spec"]))

    def rehearse(
        self,
        disk: Disk,
        guests: Sequence[Guest],
        spec: Spec,
        settings: Rehearse,
        *_: object,
        task_of: Callable[[Guest, Cancellation], Task],
        on_end: Callable[[Rehearsal], None],
        **__: object,
    ) -> Sequence[Rehearsal]:
        self.rehearsed.append((disk, spec, settings))
        self.guests += guests
        done = []
        for guest in guests:
            task_of(guest, Cancellation()).phase("booting: kernel")
            status = Status.FAILED if spec.name in self.failing else Status.PROVED
            claim = Claim("login", "a login works", status, "as visitor")
            done.append(Rehearsal(guest.name, "Cirrus c1, UEFI", (claim,), 90, boots=(50,)))
            on_end(done[-1])
        return done


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setitem(pipeline_fakes.CLOUDS, "cirrus", Cirrus)
    monkeypatch.setitem(steps.RUNBOOK, "build", made.build)
    monkeypatch.setattr(rehearsing, "rehearse", made.rehearse)
    return made


@pytest.fixture
def publish(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


def reused(publish: Command, *settings: str) -> set[str]:
    """The rehearsals that a run of the file would not repeat."""
    drawn = plan(load(publish.file, settings=settings, environ={}))
    previews = run.preview(drawn, state=publish.state)
    return {p.step.id for p in previews if p.step.kind == "rehearse" and p.action == "reuse"}


def test_a_pipelines_disk_is_built_once_and_rehearsed_as_its_clouds(
    publish: Command, world: World
) -> None:
    for _ in range(2):
        assert publish("rehearse", str(publish.file)).code == 0
        assert "cirrus: Cirrus c1, UEFI (1 min 30 s, boots of 50 s)" in publish.out
    assert world.built == ["build"]
    (disk, spec, _), _ = world.rehearsed
    assert disk.path.parent == publish.state / "store" / "disks"
    assert (spec.name, spec.version, spec.firmware) == ("web", "1.2.0", "bios+uefi")
    assert (spec.digest, spec.size) == (disk.sha256, MIB)
    options = [guest.options for guest in world.guests if isinstance(guest, CirrusGuest)]
    assert [o.model_dump()["project"] for o in options if o] == ["demo", "demo"]
    assert list((publish.state / "scratch").iterdir()) == []


def test_settings_apply_to_the_whole_pipeline(publish: Command, world: World) -> None:
    publish.file.write_text(publish.file.read_text() + '[[rehearse.checks]]\nrun = "nginx -t"\n')
    words = [
        word for text in ("image.version=2", "rehearse.timeout=60") for word in ("--set", text)
    ]
    assert publish("rehearse", str(publish.file), *words).code == 0
    ((_, spec, settings),) = world.rehearsed
    assert spec.version == "2"
    assert settings.timeout == 60
    assert [check.run for check in settings.checks] == ["nginx -t"]


def test_a_run_repeats_only_what_has_not_passed_last(publish: Command, world: World) -> None:
    world.failing = ["web"]
    assert publish("rehearse", str(publish.file)).code == 6
    assert "1 of 1 rehearsals failed: cirrus" in publish.err
    assert reused(publish) == set()
    world.failing = []
    assert publish("rehearse", str(publish.file)).code == 0
    assert reused(publish) == {"cirrus.rehearse"}
    assert reused(publish, "rehearse.timeout=60") == set()
    world.failing = ["web"]
    assert publish("rehearse", str(publish.file)).code == 6
    assert reused(publish) == set()


def test_each_image_has_a_verdict(publish: Command, world: World) -> None:
    publish.file.write_text(publish.file.read_text() + VARIANTS)
    world.failing = ["web-p-aarch64"]
    assert publish("rehearse", str(publish.file)).code == 6
    assert world.built == ["dev.build", "p-x86_64.build", "p-aarch64.build"]
    assert [spec.arch for _, spec, _ in world.rehearsed] == ["x86_64", "x86_64", "aarch64"]
    assert "web-p-x86_64 as cirrus: Cirrus c1" in publish.out
    assert "1 of 3 rehearsals failed: p-aarch64.cirrus" in publish.err
    assert reused(publish) == {"dev.cirrus.rehearse", "p-x86_64.cirrus.rehearse"}


@pytest.mark.parametrize(
    ("words", "images"),
    [
        (["--variant", "dev"], ["web-dev"]),
        (["--arch", "aarch64"], ["web-p-aarch64"]),
        (["--variant", "p", "--arch", "x86_64"], ["web-p-x86_64"]),
    ],
)
def test_variants_and_architectures_narrow_it(
    publish: Command, world: World, words: list[str], images: list[str]
) -> None:
    publish.file.write_text(publish.file.read_text() + VARIANTS)
    assert publish("rehearse", str(publish.file), *words, "--json").code == 0
    assert len(world.built) == 1
    last = json.loads(publish.out.splitlines()[-1])
    assert [verdict["image"] for verdict in last["rehearsals"]] == images


def test_clouds_that_are_no_targets_may_be_named(publish: Command, world: World) -> None:
    text = publish.file.read_text().partition("[targets.cirrus]")[0]
    publish.file.write_text(text)
    assert publish("rehearse", str(publish.file)).code == 2
    assert "no target of" in publish.err
    assert publish("rehearse", str(publish.file), "--as", "cirrus").code == 0
    assert [guest.options for guest in world.guests if isinstance(guest, CirrusGuest)] == [None]
    assert reused(publish) == set()


def test_a_build_that_fails_ends_it(publish: Command, world: World) -> None:
    world.failing = ["build"]
    assert publish("rehearse", str(publish.file)).code == 5
    assert "the guest is out of order" in publish.err
    assert world.rehearsed == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{file}", "--pipeline", "{file}"], "pipeline.toml is a pipeline file itself"),
        (["{file}", "--firmware", "bios"], "write --set build.firmware=bios"),
        (["{file}", "--variant", "dev"], "there is no variant 'dev'"),
        (["{file}", "--arch", "aarch64"], "no image is for 'aarch64'"),
        (["missing.toml"], "missing.toml"),
        (["disk.raw", "--variant", "dev"], "disk.raw is no pipeline file"),
        (["disk.raw", "--arch", "x86_64", "--arch", "aarch64"], "a disk is for one architecture"),
        (["web", "--arch", "x86_64"], "a release knows what its disk is for"),
    ],
)
def test_what_does_not_go_together_is_refused(
    publish: Command, world: World, words: list[str], said: str
) -> None:
    assert publish("rehearse", *(w.format(file=publish.file) for w in words)).code in (2, 3)
    assert said in publish.err
    assert world.built == []
