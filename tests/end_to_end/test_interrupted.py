"""A publish that is killed, anywhere: the next one continues, and nothing is doubled.

Needs no guest: a disk file goes to the three local clouds.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from publisher.conformance import make_disk
from publisher.model import GIB, Disk
from publisher.sandbox import Sandboxes
from tests.end_to_end.command import Ended, Event, publish

CLOUDS = ("aws", "azure", "gcp")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", GIB)


def to_all(disk: Disk, state: Path) -> tuple[str, ...]:
    return ("migrate", f"file:{disk.path}", *CLOUDS, "--sandbox", "--state", str(state))


def held(state: Path) -> tuple[Counter[str], Mapping[str, set[str]]]:
    """How many resources of each kind all clouds hold, and the digests behind
    all images that the last manifest names."""
    manifest = json.loads(next(state.glob("releases/*/*/manifest.json")).read_text())
    with Sandboxes(CLOUDS, state) as sandboxes:
        kinds: Counter[str] = Counter()
        digests: dict[str, set[str]] = {}
        for cloud in CLOUDS:
            kinds.update(
                f"{cloud} {name.partition('/')[0]}" for name in sandboxes[cloud].resources()
            )
        for image in manifest["images"]:
            content = hashlib.sha256()
            for piece in sandboxes[image["provider"]].content(image["ref"]):
                content.update(piece)
            digests.setdefault(image["provider"], set()).add(content.hexdigest())
        return kinds, digests


@pytest.fixture(scope="module")
def calm(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """What an undisturbed publish leaves in the clouds."""
    state = tmp_path_factory.mktemp("calm")
    ended = publish(*to_all(disk, state))
    assert {image["provider"] for image in ended.images()} == set(CLOUDS)
    kinds, digests = held(state)
    assert digests == {cloud: {disk.sha256} for cloud in CLOUDS}
    return kinds


MOMENTS = (
    "download",
    "aws.upload",
    "gcp.register",
    "azure.copy",
    "azure.verify",
    "aws.release",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_publish_killed_at_any_step_continues(
    moment: str, disk: Disk, tmp_path: Path, calm: Counter[str]
) -> None:
    killed = publish(
        *to_all(disk, tmp_path),
        until=lambda event: event["event"] == "StepStarted" and event["step"] == moment,
        ok=False,
    )
    assert killed.code == -signal.SIGKILL
    again = publish(*to_all(disk, tmp_path))
    cheap = {"barrier", *(f"{cloud}.{verb}" for cloud in CLOUDS for verb in ("check", "upload"))}
    twice = set(killed.steps("StepFinished")) & set(again.steps("StepStarted")) - cheap
    assert not twice, "a finished step was done twice"
    kinds, digests = held(tmp_path)
    assert kinds == calm
    assert digests == {cloud: {disk.sha256} for cloud in CLOUDS}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_within_five_seconds_and_the_next_one_continues(
    how: signal.Signals, disk: Disk, tmp_path: Path, calm: Counter[str]
) -> None:
    moment = 0.0

    def uploading(event: Event) -> bool:
        nonlocal moment
        moment = time.monotonic()
        return event["event"] == "StepProgress" and ".upload" in event["step"]

    ended = publish(*to_all(disk, tmp_path), until=uploading, then=how, ok=False)
    assert time.monotonic() - moment < 5
    assert ended.code == 130
    assert "run the same command again to continue" in ended.errors
    publish(*to_all(disk, tmp_path))
    kinds, digests = held(tmp_path)
    assert kinds == calm
    assert digests == {cloud: {disk.sha256} for cloud in CLOUDS}


def test_a_second_run_does_nothing(disk: Disk, tmp_path: Path) -> None:
    first = publish(*to_all(disk, tmp_path))
    second: Ended = publish(*to_all(disk, tmp_path))
    assert second.finished["reused"]
    assert second.steps("StepStarted") == []
    assert second.finished["images"] == first.finished["images"]


def test_a_lost_state_directory_of_the_program_doubles_nothing(
    disk: Disk, tmp_path: Path, calm: Counter[str]
) -> None:
    first = publish(*to_all(disk, tmp_path))
    for file in sorted(tmp_path.glob("releases/**/*"), reverse=True):
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
    second = publish(*to_all(disk, tmp_path))
    assert {i["ref"] for i in second.images()} == {i["ref"] for i in first.images()}
    assert held(tmp_path)[0] == calm
