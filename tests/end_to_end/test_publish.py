"""The demo, as the README tells it: a real Debian image to three local clouds, and on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from publisher import provider as seam
from publisher.disks import raw
from publisher.memory import Memory
from publisher.model import Disk
from publisher.sandbox import Sandboxes
from publisher.task import Task
from publisher.vm.boot import boot_check
from tests.end_to_end.command import RUN_DEMO, Ended, publish

pytestmark = pytest.mark.qemu
CLOUDS = ("aws", "azure", "gcp")


def content_digest(sandboxes: Sandboxes, image: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for piece in sandboxes[image["provider"]].content(image["ref"]):
        digest.update(piece)
    return digest.hexdigest()


def test_the_demo_ends_with_an_image_in_every_region_of_every_cloud(
    demo: Ended, manifest: dict[str, Any]
) -> None:
    assert {(i["provider"], i["region"]) for i in demo.images()} >= {
        ("aws", "us-east-1"),
        ("aws", "eu-central-1"),
        ("azure", "westeurope"),
        ("azure", "northeurope"),
    }
    assert {image["provider"] for image in demo.images()} == set(CLOUDS)
    assert manifest["images"] == list(demo.images())
    (flavour,) = manifest["flavours"]
    assert flavour["size"] == 2 * 1024**3
    assert flavour["data"] < flavour["size"] / 2


def test_a_second_demo_is_up_to_date(demo: Ended, state: Path) -> None:
    second = publish(*RUN_DEMO, "--state", str(state))
    assert second.finished["reused"]
    assert second.steps("StepStarted") == []
    assert second.images() == demo.images()


def test_the_bytes_behind_every_image_are_the_sealed_disk(
    demo: Ended, sealed: Disk, state: Path
) -> None:
    with Sandboxes(CLOUDS, state) as sandboxes:
        for image in demo.images():
            assert content_digest(sandboxes, dict(image)) == sealed.sha256, image["ref"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_a_cloud_gives_back_is_the_sealed_disk(
    cloud: str, demo: Ended, sealed: Disk, state: Path, tmp_path: Path
) -> None:
    image = demo.images(cloud)[0]
    with Sandboxes([cloud], state):
        kind = seam.load(cloud)
        options = kind.options.model_validate(
            {
                **cast("type[seam.Emulated]", kind).sandbox_options(),
                **kind.options.from_reference(
                    image["ref"], cast("type[seam.Emulated]", kind).sandbox_options()
                ),
            }
        )
        source = cast("seam.Source", kind(options))
        task = Task(f"{cloud}.download", Memory(tmp_path / "memory"))
        disk = source.download(image["ref"], tmp_path / "back.raw", task)
    assert disk.sha256 == sealed.sha256


@pytest.fixture(scope="session")
def travelled(demo: Ended, state: Path) -> list[Ended]:
    """AWS ▶ Google Cloud ▶ Azure ▶ AWS, each from the image that the last one made."""
    journeys = []
    image = demo.images("aws")[0]
    for number, cloud in enumerate(("gcp", "azure", "aws")):
        ended = publish(
            "migrate",
            f"{image['provider']}:{image['ref']}",
            cloud,
            "--name",
            f"travelled-{number}",
            "--version",
            "1.0.0",
            "--sandbox",
            "--state",
            str(state),
        )
        image = ended.images(cloud)[0]
        journeys.append(ended)
    return journeys


def test_an_image_that_travels_through_all_clouds_keeps_every_bit(
    travelled: list[Ended], sealed: Disk, state: Path
) -> None:
    with Sandboxes(CLOUDS, state) as sandboxes:
        for ended in travelled:
            for image in ended.images():
                assert content_digest(sandboxes, dict(image)) == sealed.sha256


def test_the_image_that_came_back_boots(
    travelled: list[Ended], state: Path, tmp_path: Path
) -> None:
    image = travelled[-1].images("aws")[0]
    back = tmp_path / "back.raw"
    with Sandboxes(["aws"], state) as sandboxes, back.open("wb") as file:
        for piece in sandboxes["aws"].content(image["ref"]):
            if raw.is_zero(piece):
                file.seek(len(piece), 1)
            else:
                file.write(piece)
        file.truncate(file.tell())
    task = Task("boot", Memory(tmp_path / "memory"))
    report = boot_check(raw.inspect(back), firmware="bios", task=task, scratch=tmp_path)
    assert report.cloud_init == "done"
