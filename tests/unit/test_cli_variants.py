"""What the command line does with a release of several images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from publisher import events, manifest
from publisher.cli.github import Actions
from publisher.cli.progress import result_lines
from publisher.executors import slots
from publisher.manifest import Flavour, Manifest, Timing, manifest_path
from publisher.model import GIB, MIB, Image
from publisher.plan import Plan
from tests.unit.cli_fakes import Command
from tests.unit.pipeline_fakes import GOOD

VARIANTS = """
[variants.dev]
targets.cirrus = false

[variants.prod]
image.arch = ["x86_64", "aarch64"]
targets.nimbus.name = "{name}"
"""


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    made = Command(tmp_path, monkeypatch, capsys)
    made.file.write_text(GOOD + VARIANTS)
    return made


@pytest.fixture
def ran(publish: Command) -> list[tuple[Plan, Any]]:
    """What was handed to the engine."""
    found: list[tuple[Plan, Any]] = []
    publish.engine(lambda plan, **options: found.append((plan, options)))
    return found


def labels(plan: Plan) -> list[str]:
    return [planned.label for planned in plan.flavours]


def keep(state: Path) -> None:
    """A release of three images, and an older one of a single image."""
    flavours, images = [], []
    for variant, arch in (("dev", "x86_64"), ("prod", "x86_64"), ("prod", "aarch64")):
        label = variant if variant == "dev" else f"{variant}-{arch}"
        image = Image("nimbus", "north", f"north/{label}", f"web-{label}", "1.2.0", "ab" * 32)
        images.append(image)
        flavours.append(
            Flavour(
                name=image.name,
                arch=arch,
                firmware="uefi",
                digest=label.ljust(64, "0"),
                size=2 * GIB,
                data=MIB,
                label=label,
                variant=variant,
                references=(image.reference,),
            )
        )
    for name, kept, of in (
        ("web", flavours, images),
        ("db", [Flavour("db", "x86_64", "bios", "0" * 64, GIB, MIB)], []),
    ):
        path = manifest_path(state, name, "1.2.0")
        path.parent.mkdir(parents=True)
        audience = {f"{f.label}.nimbus": "private" for f in kept if f.label}
        timings = tuple(Timing(f"{f.label}.build", 1.0) for f in kept if f.label)
        manifest.write(
            Manifest(
                name,
                "1.2.0",
                "run",
                "2026-11-01T10:00:00+00:00",
                tuple(kept),
                tuple(of),
                audience,
                {},
                timings,
            ),
            path,
        )


def test_run_takes_variants_and_architectures(
    publish: Command, ran: list[tuple[Plan, Any]]
) -> None:
    publish("run", str(publish.file), "--variant", "dev")
    publish("run", str(publish.file), "--variant", "dev", "--variant", "prod", "--arch", "x86_64")
    publish("run", str(publish.file), "--only", "cirrus")
    assert [labels(plan) for plan, _ in ran] == [
        ["dev"],
        ["dev", "prod-x86_64"],
        ["prod-x86_64", "prod-aarch64"],
    ]
    assert [options["builds"] for _, options in ran] == [1, 1, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--variant", "prd"),
            "--variant: there is no variant 'prd'\n  hint: did you mean \"prod\"?",
        ),
        (
            ("--arch", "arch64"),
            "--arch: no image is for 'arch64'\n  hint: did you mean \"aarch64\"?",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_nearest(
    publish: Command, words: tuple[str, ...], said: str
) -> None:
    for command in ("run", "plan"):
        publish(command, str(publish.file), *words)
        assert publish.code == 2
        assert said in publish.err


def test_several_builds_at_once_need_the_room(
    publish: Command, ran: list[tuple[Plan, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "processors", lambda: 4)
    monkeypatch.setattr(slots, "free_memory", lambda: 4 * GIB)
    assert publish("run", str(publish.file), "--builds", "2").code == 0
    assert ran[0][1]["builds"] == 2
    assert publish("run", str(publish.file), "--builds", "3").code == 2
    assert "3 builds at once are too many for 4 cores and 4096 MiB" in publish.err
    assert "at most 2 fit" in publish.err
    assert publish("run", str(publish.file), "--builds", "0").code == 2


def test_a_plan_shows_the_steps_of_each_image(publish: Command) -> None:
    publish("plan", str(publish.file), "--json")
    plan = json.loads(publish.out)
    assert [flavour["name"] for flavour in plan["flavours"]] == [
        "web-dev",
        "web-prod-x86_64",
        "web-prod-aarch64",
    ]
    steps = [step["step"] for step in plan["steps"]]
    assert {"dev.build", "prod-aarch64.cirrus.upload", "barrier"} <= set(steps)
    assert "dev.cirrus.upload" not in steps


def test_list_shows_each_image_and_narrows(publish: Command) -> None:
    keep(publish.state)

    def names(*words: str) -> list[str]:
        return [line.split()[0] for line in publish("list", *words).out.splitlines()[1:]]

    assert sorted(names()) == ["db", "web-dev", "web-prod-aarch64", "web-prod-x86_64"]
    assert names("--variant", "dev") == ["web-dev"]
    assert sorted(names("--arch", "x86_64")) == ["db", "web-dev", "web-prod-x86_64"]
    (only,) = json.loads(publish("list", "--arch", "aarch64", "--json").out)
    assert [flavour["label"] for flavour in only["flavours"]] == ["prod-aarch64"]
    assert [image["name"] for image in only["images"]] == ["web-prod-aarch64"]
    assert publish("list", "--variant", "de").code == 2
    assert "there is no variant 'de'" in publish.err
    assert 'did you mean "dev"?' in publish.err


def test_show_tells_the_images_apart(publish: Command) -> None:
    keep(publish.state)
    lines = publish("show", "web").out.splitlines()
    assert lines[:6] == [
        "web 1.2.0",
        "",
        "web-dev",
        "nimbus:north/dev",
        "arch      x86_64, uefi",
        "size      2.0 GiB, 1.0 MiB of data",
    ]
    shown = publish("show", "web", "--variant", "prod", "--arch", "aarch64").out
    assert "nimbus:north/prod-aarch64" in shown
    assert "dev" not in shown
    assert publish("show", "web-dev").out.splitlines()[2] == "web-dev"
    assert publish("show", "db", "--variant", "dev").code == 2


def test_export_wants_one_image(publish: Command) -> None:
    keep(publish.state)
    assert publish("export", "web", "--to", "raw").code == 2
    assert "web 1.2.0 has several images" in publish.err
    assert "name one: web-dev, web-prod-x86_64, web-prod-aarch64" in publish.err
    publish("export", "web-dev", "--to", "raw")
    assert "the disk of web-dev 1.2.0 is not in" in publish.err


def test_the_result_names_the_image_of_each_reference() -> None:
    images = tuple(
        Image("nimbus", "north", f"north/{name}", name, "1", "0" * 64) for name in ("a", "b")
    )
    assert result_lines("web 1", events.RunFinished("run", 1.0, images), "1 s")[1:] == [
        "a nimbus:north/a",
        "b nimbus:north/b",
    ]
    alone = events.RunFinished("run", 1.0, images[:1])
    assert result_lines("web 1", alone, "1 s")[1:] == ["nimbus:north/a"]


def test_a_jobs_summary_names_the_images(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    images = tuple(
        Image("nimbus", "north", f"north/{name}", name, "1", "0" * 64) for name in ("a", "b")
    )
    screen = Actions(io.StringIO(), {"GITHUB_STEP_SUMMARY": str(summary)})
    screen(events.RunStarted("run", "web 1", ()))
    screen(events.RunFinished("run", 1.0, images))
    screen.close()
    assert "| Name | Cloud | Region | Image |\n|---|---|---|---|\n" in summary.read_text()
    assert "| a | nimbus | north | `nimbus:north/a` |" in summary.read_text()
