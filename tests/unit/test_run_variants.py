"""A release of several images: two variants for two architectures, on clouds in memory."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher import events, provenance, provider, run, steps
from publisher.context import Context
from publisher.errors import BuildError, Cancelled, ProviderError, PublishError
from publisher.journal import Journal, Outcome, read_outcomes, release_directory
from publisher.manifest import Manifest, manifests
from publisher.model import MIB, Audience, Spec
from publisher.pipeline import Pipeline, load
from publisher.plan import BUILT_AS, Plan, Step, plan, step_key
from publisher.recipe import fingerprint
from publisher.task import Cancellation, Retry, Task
from tests.unit.nimbus import CLOUDS, PROVIDERS, Cloud
from tests.unit.secret_samples import SWAP

FILE = """
[image]
name = "web"
version = "1.0.0"
arch = ["x86_64", "aarch64"]

[build]
size = "2GiB"
source.debian.suite = "bookworm"
steps = [{ run = "one" }]

[targets.nimbus]
regions = ["north", "south"]

[targets.stratus]

[release]
audience = "public"
"""
VARIANTS = """
[variants.dev]
build.extra_steps = [{ run = "debug" }]

[variants.prod]
"""
LABELS = ["dev-x86_64", "dev-aarch64", "prod-x86_64", "prod-aarch64"]
EVERYWHERE = {
    (cloud, region, f"web-{label}")
    for label in LABELS
    for cloud, region in (("nimbus", "north"), ("nimbus", "south"), ("stratus", "north"))
}


class Builder:
    """Stands in for the build: a disk whose bytes tell what was asked for."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.at_once = 0
        self.most = 0
        self.before: Callable[[str], None] = lambda label: None
        self.lock = threading.Lock()

    def __call__(self, step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            time.sleep(0.01)
            self.before(step.flavour)
            spec = dataclasses.replace(Spec.from_json(step.inputs["spec"]), run=context.run)
            path = context.store.scratch(f"{spec.name}.raw")
            content = SWAP + json.dumps(step.inputs, sort_keys=True).encode()
            path.write_bytes(content.ljust(MIB, b"\0"))
            value = steps.disk_value(context.store.add(path), spec)
            self.built.append(step.flavour)
            return value
        finally:
            with self.lock:
                self.at_once -= 1


@pytest.fixture(autouse=True)
def clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(provider, "load", PROVIDERS.__getitem__)
    monkeypatch.setattr(provider, "names", lambda: sorted(PROVIDERS))
    monkeypatch.setattr(provenance, "host_tools", lambda *archs: dict.fromkeys(archs, "1"))
    for name in PROVIDERS:
        CLOUDS[name] = Cloud()
    yield
    CLOUDS.clear()


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setitem(steps.RUNBOOK, "build", made)
    return made


class Release:
    """Publishes pipelines into one state directory."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.path = directory / "pipeline.toml"

    def pipeline(self, text: str = FILE + VARIANTS, *settings: str) -> Pipeline:
        self.path.write_text(text)
        return load(self.path, settings=settings, environ={})

    def __call__(self, drawn: Plan | None = None, **options: Any) -> Manifest:
        wanted = drawn or plan(self.pipeline())
        return run.run(wanted, state=self.state, retry=Retry(2, 0.001, 0.001), **options)


@pytest.fixture
def release(tmp_path: Path, builder: Builder) -> Release:
    return Release(tmp_path)


def opened() -> set[tuple[str, str, str]]:
    return {
        (name, image.region, image.name)
        for name, cloud in CLOUDS.items()
        for image in cloud.images.values()
        if image.audience == Audience("public")
    }


def calls() -> list[str]:
    return [call for cloud in CLOUDS.values() for call in cloud.calls]


def refuse(cloud: str, verb: str, name: str) -> None:
    """Let a verb fail from when there is an image of that name."""

    def before(called: str) -> None:
        images = CLOUDS[cloud].images.values()
        if called == verb and any(image.name == name for image in images):
            raise ProviderError(f"{cloud} refuses {name}", provider=cloud)

    CLOUDS[cloud].before = before


def forget_calls() -> None:
    for cloud in CLOUDS.values():
        cloud.calls.clear()
        cloud.before = cloud.after = lambda verb: None


def test_every_variant_and_architecture_is_published_in_one_release(
    release: Release, builder: Builder
) -> None:
    made = release()
    assert opened() == EVERYWHERE
    assert builder.built == LABELS
    assert [flavour.label for flavour in made.flavours] == LABELS
    assert {"x86_64", "aarch64"} <= set(made.tools)
    assert manifests(release.state) == [made]


def test_the_manifest_has_the_references_of_each_image(release: Release) -> None:
    made = release()
    for flavour in made.flavours:
        images = [i for cloud in CLOUDS.values() for i in cloud.images.values()]
        own = {image.reference for image in images if image.name == flavour.name}
        assert set(flavour.references) == own
        assert len(own) == 3
        assert {i.digest for i in images if i.name == flavour.name} == {flavour.digest}
        assert flavour.label == f"{flavour.variant}-{flavour.arch}"
    assert len({flavour.digest for flavour in made.flavours}) == 4
    assert {flavour.firmware for flavour in made.flavours if flavour.arch == "aarch64"} == {"uefi"}
    assert set(made.audience) == {f"{a}.{b}" for a in LABELS for b in ("nimbus", "stratus")}


def test_a_second_run_asks_each_cloud_once_for_each_image_and_does_nothing(
    release: Release, builder: Builder
) -> None:
    first = release()
    forget_calls()
    assert release() == first
    assert calls() == ["find"] * 8
    assert builder.built == LABELS


def test_nothing_opens_while_one_image_is_not_verified(release: Release) -> None:
    refuse("stratus", "verify", "web-prod-aarch64")
    with pytest.raises(ProviderError, match="refuses web-prod-aarch64"):
        release()
    assert opened() == set()
    assert "release" not in calls()


def test_a_build_that_fails_leaves_everything_closed_and_the_rest_for_the_next_run(
    release: Release, builder: Builder
) -> None:
    def fail(label: str) -> None:
        if label == "dev-aarch64":
            raise BuildError("step 2 failed", key="build.steps[1]")

    builder.before = fail
    with pytest.raises(BuildError) as caught:
        release()
    assert caught.value.key == "variants.dev.build.extra_steps[0]"
    assert opened() == set()
    assert builder.built == ["dev-x86_64", "prod-x86_64", "prod-aarch64"]
    builder.before = lambda label: None
    forget_calls()
    release()
    assert opened() == EVERYWHERE
    assert builder.built[3:] == ["dev-aarch64"]
    assert CLOUDS["nimbus"].calls.count("upload") == 1


def test_what_was_opened_is_closed_again_when_another_image_cannot_open(
    release: Release,
) -> None:
    def before(verb: str) -> None:
        if verb == "release" and any(where[0] == "nimbus" for where in opened()):
            raise ProviderError("no more", provider="nimbus")

    CLOUDS["nimbus"].before = before
    with pytest.raises(ProviderError, match="no more"):
        release()
    assert opened() == set()
    assert "withdraw" in CLOUDS["nimbus"].calls
    forget_calls()
    release()
    assert opened() == EVERYWHERE


def test_a_run_that_was_stopped_doubles_nothing(release: Release, builder: Builder) -> None:
    cancellation = Cancellation()

    def stop(verb: str) -> None:
        if verb == "register" and len(CLOUDS["nimbus"].images) >= 2:
            cancellation.cancel()

    CLOUDS["nimbus"].after = stop
    with pytest.raises(Cancelled):
        release(cancellation=cancellation)
    assert opened() == set()
    forget_calls()
    release()
    assert opened() == EVERYWHERE
    for cloud, count in (("nimbus", 8), ("stratus", 4)):
        assert len(CLOUDS[cloud].images) == count
    assert sorted(builder.built) == sorted(LABELS)


def test_a_lost_journal_costs_no_second_resource(release: Release) -> None:
    first = release()
    (release_directory(release.state, "web", "1.0.0") / "journal").unlink()
    forget_calls()
    again = release()
    assert {i.reference for i in again.images} == {i.reference for i in first.images}
    assert "upload" not in calls()
    assert len(CLOUDS["nimbus"].images) == 8


def test_a_journal_that_a_crash_cut_short_doubles_nothing(release: Release) -> None:
    first = release()
    journal = release_directory(release.state, "web", "1.0.0") / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20])
    forget_calls()
    again = release()
    assert {i.reference for i in again.images} == {i.reference for i in first.images}
    assert "upload" not in calls()
    assert (len(CLOUDS["nimbus"].images), len(CLOUDS["stratus"].images)) == (8, 4)


def test_one_changed_variant_leaves_the_other_alone(release: Release, builder: Builder) -> None:
    release()
    forget_calls()
    for cloud in CLOUDS.values():  # the same version again needs the old images gone
        gone = [ref for ref, i in cloud.images.items() if i.name.startswith("web-dev")]
        for ref in gone:
            del cloud.images[ref]
    release(plan(release.pipeline(FILE + VARIANTS.replace("debug", "trace"))))
    assert opened() == EVERYWHERE
    assert builder.built[4:] == ["dev-x86_64", "dev-aarch64"]
    assert CLOUDS["stratus"].calls.count("upload") == 2
    assert CLOUDS["stratus"].calls.count("check") == 2, "only clouds of what is made are asked"


def test_an_image_that_vanished_is_made_again_and_only_that_one(release: Release) -> None:
    release()
    gone = next(r for r, i in CLOUDS["stratus"].images.items() if i.name == "web-dev-aarch64")
    del CLOUDS["stratus"].images[gone]
    forget_calls()
    release()
    assert opened() == EVERYWHERE
    assert CLOUDS["stratus"].calls.count("register") == 1
    assert set(CLOUDS["nimbus"].calls) == {"find"}


def test_builds_go_one_after_another_unless_asked_for_more(
    release: Release, builder: Builder
) -> None:
    release()
    assert builder.most == 1
    together = threading.Barrier(2)

    def meet(label: str) -> None:
        together.wait(10)

    builder.before = meet
    release(plan(release.pipeline(FILE + VARIANTS, "image.version=2")), builds=2)
    assert builder.most == 2


def test_a_variant_that_may_fail_does_not_keep_the_others_closed(
    release: Release, builder: Builder
) -> None:
    def fail(label: str) -> None:
        if label.startswith("dev"):
            raise BuildError("broken")

    builder.before = fail
    optional = "release.all_or_nothing = false\n[variants.prod]"
    drawn = plan(release.pipeline(FILE + VARIANTS.replace("[variants.prod]", optional)))
    with pytest.raises(PublishError, match="published, but without dev-aarch64"):
        release(drawn)
    assert opened() == {where for where in EVERYWHERE if "prod" in where[2]}
    (made,) = manifests(release.state)
    assert [flavour.label for flavour in made.flavours] == LABELS[2:]
    assert "dev-x86_64.build" in made.failed


def test_a_run_of_one_variant_keeps_the_others_in_the_manifest(
    release: Release, builder: Builder
) -> None:
    pipeline = release.pipeline()
    dev = release(plan(pipeline.choose(["dev"], [])))
    assert {where[2] for where in opened()} == {"web-dev-x86_64", "web-dev-aarch64"}
    assert [flavour.label for flavour in dev.flavours] == LABELS[:2]
    both = release(plan(pipeline.choose(["prod"], [])))
    assert [flavour.label for flavour in both.flavours] == LABELS
    assert {i.reference for i in both.images} > {i.reference for i in dev.images}
    assert opened() == EVERYWHERE
    forget_calls()
    whole = release()
    assert {i.reference for i in whole.images} == {i.reference for i in both.images}
    assert builder.built == LABELS
    assert set(calls()) == {"find"}


def test_a_variant_that_left_the_file_leaves_the_manifest(release: Release) -> None:
    release()
    made = release(plan(release.pipeline(FILE + "[variants.prod]\n")))
    assert [flavour.label for flavour in made.flavours] == LABELS[2:]


def test_variants_with_the_same_bytes_are_images_of_their_own(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        spec = Spec.from_json(step.inputs["spec"])
        path = context.store.scratch(f"{spec.name}.raw")
        path.write_bytes(SWAP.ljust(MIB, b"\0"))
        return steps.disk_value(context.store.add(path), spec)

    monkeypatch.setitem(steps.RUNBOOK, "build", same)
    made = release(builds=4)
    assert opened() == EVERYWHERE
    assert len({i.reference for i in made.images}) == 12


# -- the plan


def test_the_first_steps_of_all_variants_are_built_under_one_name(release: Release) -> None:
    drawn = plan(release.pipeline())
    builds = [step for step in drawn.steps if step.kind == "build"]
    assert [step.id for step in builds] == [f"{label}.build" for label in LABELS]
    assert {step.inputs[BUILT_AS] for step in builds} == {"web"}
    assert len({step.key for step in builds}) == 4
    assert {step.lane for step in drawn.steps if step.kind == "upload"} == {
        f"{label}.{cloud}" for label in LABELS for cloud in ("nimbus", "stratus")
    }
    (barrier,) = [step for step in drawn.steps if step.kind == "barrier"]
    assert set(barrier.after) == {s.id for s in drawn.steps if s.kind == "verify"}
    checks = {step.id for step in drawn.steps if step.kind == "check"}
    assert all(set(step.after) == checks for step in builds)


def test_a_file_without_variants_has_the_steps_and_keys_of_old(release: Release) -> None:
    pipeline = release.pipeline(FILE, "image.arch=x86_64")
    drawn = plan(pipeline)
    proofs = {"lint", "secrets", "inventory", "rehearse"}
    assert [step.id for step in drawn.steps if step.kind not in proofs] == [
        *("nimbus.check", "stratus.check", "build"),
        *("nimbus.upload", "nimbus.register", "nimbus.copy", "nimbus.verify"),
        *("stratus.upload", "stratus.register", "stratus.copy", "stratus.verify"),
        *("barrier", "nimbus.release", "stratus.release"),
    ]
    (only,) = pipeline.flavours
    spec = {
        "name": "web",
        "version": "1.0.0",
        "arch": "x86_64",
        "firmware": "bios+uefi",
        "size": 2 * 1024**3,
        "description": "",
        "tags": {},
        "digest": "",
        "run": "",
    }
    made_of = {"recipe": fingerprint(only.build, pipeline.directory), "spec": spec}
    build = step_key("build", made_of, [])
    assert drawn.step("build").key == build
    options = only.targets["nimbus"].model_dump(mode="json", by_alias=True)
    inputs = {"provider": "nimbus", "options": options, "spec": spec}
    upload = step_key("upload", inputs, [build])
    register = step_key("register", inputs, [build, upload])
    assert drawn.step("nimbus.upload").key == upload
    assert drawn.step("nimbus.register").key == register


def test_the_journal_of_an_older_run_of_one_image_is_still_believed(
    release: Release, builder: Builder
) -> None:
    """As an older program wrote it: outcomes without anything of flavours."""
    drawn = plan(release.pipeline(FILE, "image.arch=x86_64"))
    release(drawn)
    directory = release_directory(release.state, "web", "1.0.0")
    known = read_outcomes(directory)
    (directory / "journal").unlink()
    with Journal(release.state, "web", "1.0.0") as journal:
        journal.begin()
        for old in known.values():
            journal.done(Outcome(old.step, old.key, old.value, old.seconds, old.finished))
        journal.finish()
    old_manifest(directory / "manifest.json")
    forget_calls()
    seen: list[events.Event] = []
    release(drawn, sink=seen.append)
    assert calls() == ["find", "find"]
    assert builder.built == [""]
    assert isinstance(seen[-1], events.RunFinished)
    assert seen[-1].reused


def old_manifest(path: Path) -> None:
    """Write it anew as before there were flavours."""
    data = json.loads(path.read_text())
    (flavour,) = data.pop("flavours")
    told = ("arch", "firmware", "digest", "size", "data", "source", "evidence")
    path.write_text(json.dumps({**data, **{k: flavour[k] for k in told}, "schema": 1}))


def test_a_manifest_of_one_image_from_an_older_program_is_read(release: Release) -> None:
    made = release(plan(release.pipeline(FILE, "image.arch=x86_64")))
    path = release_directory(release.state, "web", "1.0.0") / "manifest.json"
    old_manifest(path)
    (read,) = manifests(release.state)
    assert read.flavours == tuple(dataclasses.replace(f, proofs={}) for f in made.flavours)
    assert read.images == made.images
