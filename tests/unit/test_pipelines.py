"""The samples under pipelines/ load, pass every cloud's rules, and give a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.build import answers
from publisher.cli.actions import sandbox_defaults
from publisher.errors import PipelineError
from publisher.pipeline import load, validate
from publisher.plan import plan

PIPELINES = Path(__file__).parents[2] / "pipelines"
NETBOOT = Path("/usr/lib/debian-installer/images/12/amd64/text")
SAMPLES = sorted(PIPELINES.glob("*.toml"))
ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": "11111111-2222-4333-8444-555555555555",
    "COMMIT": "0a1b2c3",
    "GOOGLE_CLOUD_PROJECT": "example-project",
    "INITRD_SHA256": "1" * 64,
    "ISO": "https://releases.example.org/live-server.iso",
    "ISO_SHA256": "2" * 64,
    "KERNEL_SHA256": "3" * 64,
    "PUBLISH_BUCKET": "example-bucket",
    "VERSION": "1.4.0",
}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_gives_a_plan_that_verifies_each_target_before_any_release(sample: Path) -> None:
    if sample.stem == "installer" and not NETBOOT.is_dir():
        pytest.skip("debian-installer-12-netboot-amd64 is not installed")
    pipeline = load(sample, environ=ENVIRONMENT)
    validate(pipeline)
    steps = plan(pipeline).steps
    for flavour in pipeline.flavours:
        for target in flavour.targets:
            lane = ".".join(filter(None, (flavour.label, target)))
            kinds = [step.kind for step in steps if step.lane == lane]
            assert {"upload", "register", "verify", "release"} <= set(kinds)
    order = [step.kind for step in steps]
    assert max(i for i, kind in enumerate(order) if kind == "verify") < order.index("release")


def test_the_demo_needs_no_variable_in_the_sandbox() -> None:
    pipeline = load(PIPELINES / "demo.toml", environ={}, defaults=sandbox_defaults)
    validate(pipeline)
    assert list(pipeline.targets) == ["aws", "gcp", "azure"]


def test_an_answer_file_of_each_sample_reports_the_end_and_a_failure() -> None:
    for name, file in (("kickstart", "ks.cfg"), ("autoinstall", "user-data")):
        pipeline = load(PIPELINES / f"{name}.toml", environ=ENVIRONMENT)
        source = pipeline.flavours[0].build.source.installer
        assert source is not None
        assert file in source.files
        assert {"done", "failed"} <= answers.used(source, PIPELINES)


def test_the_variants_share_their_first_steps_and_differ_in_the_rest() -> None:
    pipeline = load(PIPELINES / "variants.toml", environ=ENVIRONMENT)
    steps = {f.label: [step.model_dump_json() for step in f.build.steps] for f in pipeline.flavours}
    assert list(steps) == ["dev", "test", "prod-x86_64", "prod-aarch64"]
    shared = {tuple(given[:2]) for given in steps.values()}
    assert len(shared) == 1
    assert len({tuple(given) for given in steps.values()}) == 3
    dev = pipeline.flavours[0]
    assert list(dev.targets) == ["aws"]
    assert dev.audience("aws").kind == "private"


def test_the_ci_sample_without_its_version_says_which_variable_is_missing() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "VERSION"}
    with pytest.raises(PipelineError, match="VERSION") as caught:
        load(PIPELINES / "ci.toml", environ=environment)
    assert caught.value.key == "image.version"


def test_a_setting_from_the_command_line_goes_over_the_file() -> None:
    settings = ["release.audience=public"]
    pipeline = load(PIPELINES / "ci.toml", environ=ENVIRONMENT, settings=settings)
    assert pipeline.flavours[0].audience("aws").kind == "public"


def test_each_file_beside_the_samples_is_used_by_one() -> None:
    text = "".join(sample.read_text() for sample in SAMPLES)
    for path in (PIPELINES / "files").iterdir():
        assert f'"files/{path.name}"' in text
