"""Where a migration goes and comes from, in each cloud's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher import provider
from publisher.errors import UsageError
from publisher.migrate import plan_migration

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("cloud", "place", "expected"),
    [
        ("aws", "us-east-1,eu-west-1", {"regions": ["us-east-1", "eu-west-1"]}),
        ("gcp", "my-project/my-bucket", {"project": "my-project", "bucket": "my-bucket"}),
        (
            "azure",
            f"{SUBSCRIPTION}/images/gallery:westeurope",
            {
                "subscription": SUBSCRIPTION,
                "resource_group": "images",
                "gallery": "gallery",
                "regions": ["westeurope"],
            },
        ),
    ],
)
def test_a_target_says_where_to(cloud: str, place: str, expected: dict[str, Any]) -> None:
    options = provider.load(cloud).options
    assert options.from_target(place) == expected
    options.model_validate(expected)


def test_a_source_in_another_project_is_read_by_a_worker_in_our_own() -> None:
    options = provider.load("gcp").options
    assert options.from_reference("debian-cloud/debian-12", {"project": "ours"}) == {
        "project": "ours"
    }
    assert options.from_reference("ours/web-1", {}) == {"project": "ours"}


def test_a_gallery_image_is_read_beside_itself_unless_told_where() -> None:
    options = provider.load("azure").options
    reference = f"{SUBSCRIPTION}/images/gallery/web/1.0.0"
    beside = options.from_reference(reference, {})
    assert options.model_validate(beside).locations() == ()
    assert options.from_reference(reference, {"resource_group": "mine"}) == {
        **beside,
        "resource_group": "mine",
    }


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("aws:ami-0123", "gcp:project/bucket", "names no image"),
        ("gcp:image", "aws:us-east-1", "names no image"),
        ("azure:group/gallery/web", "aws:us-east-1", "names no image in Azure"),
        ("aws:us-east-1/ami-0123", "azure:gallery", "names no gallery"),
        ("aws:us-east-1/ami-0123", f"azure:{SUBSCRIPTION}/g/gallery", "names no region"),
        ("aws:us-east-1/ami-0123", "gcp:project", "bucket: is required"),
        ("aws:us-east-1/ami-0123", "aws:mars", r'regions\[0\]: "mars" is not allowed'),
    ],
)
def test_a_place_that_is_incomplete_is_refused(source: str, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_migration(source, [target])


@pytest.mark.parametrize(
    ("target", "name", "version", "key"),
    [
        (f"azure:{SUBSCRIPTION}/images/gallery:westeurope", "web", "1", "targets.azure.version"),
        ("gcp:my-project/my-bucket", "1web", "1.0.0", "targets.gcp.name"),
        ("aws:us-east-1", "w" * 100, "1" * 40, "targets.aws.name"),
    ],
)
def test_a_name_that_a_cloud_refuses_is_refused_before_anything_runs(
    target: str, name: str, version: str, key: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024))
    with pytest.raises(UsageError) as caught:
        plan_migration(f"file:{disk}", [target], name=name, version=version)
    assert caught.value.key == key
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "version", "option"),
    [("../../web", "1.0.0", "--name"), ("web", "1/2", "--version")],
)
def test_a_name_that_is_no_file_name_is_refused(
    name: str, version: str, option: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024))
    with pytest.raises(UsageError, match="start and end with a letter or digit") as caught:
        plan_migration(f"file:{disk}", ["aws:us-east-1"], name=name, version=version)
    assert caught.value.key == option


def test_stand_ins_and_real_clouds_have_steps_of_their_own_but_share_the_disk(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024))
    real, stand_in = (
        {
            step.id: step.key
            for step in plan_migration(f"file:{disk}", ["aws:us-east-1"], realm=realm).steps
        }
        for realm in ("", "sandbox")
    )
    assert real["download"] == stand_in["download"]
    for verb in ("check", "upload", "register", "copy", "verify", "release"):
        assert real[f"aws.{verb}"] != stand_in[f"aws.{verb}"]


def test_the_image_of_a_file_does_not_tell_where_the_file_was(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").touch()
    plan = plan_migration(f"file:{tmp_path}/disk.raw", ["files:/tmp/out"])
    upload = next(step for step in plan.steps if step.kind == "upload")
    assert upload.inputs["spec"]["description"] == "Migrated from file:disk.raw"
