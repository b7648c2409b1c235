"""The demo's disk as a machine of each cloud; one that was spoilt; one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from publisher import provider
from publisher.model import Disk, Spec
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.rehearse import Rehearsal, Status, rehearse
from publisher.rehearsal import Check, Rehearse
from publisher.task import detached
from tests.end_to_end.command import publish

pytestmark = pytest.mark.qemu

CLOUDS = ("aws", "azure", "gcp")
SPEC = Spec("demo", "1.0.0")
CHECKS = (
    Check(run="! getent hosts deb.debian.org", name="other names do not exist"),
    Check(run="! timeout 20 bash -c '</dev/tcp/1.1.1.1/80'", name="no way leads out"),
    Check(run="cat /sys/class/dmi/id/chassis_asset_tag", output="^7783-7084-", on=("azure",)),
    Check(run="cat /sys/class/dmi/id/product_name", output="^Google Compute Engine$", on=("gcp",)),
    Check(run="ls /sys/class/nvme", output="^nvme0$", on=("aws",)),
)


def guest(name: str) -> Guest:
    kind = provider.load(name)
    assert issubclass(kind, Rehearsable)
    return kind.guest(None)


@pytest.fixture(scope="module")
def verdicts(sealed: Disk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rehearsal]:
    directory = tmp_path_factory.mktemp("rehearsals")
    before = sealed.path.stat()
    done = rehearse(
        sealed,
        [guest(name) for name in CLOUDS],
        SPEC,
        Rehearse(checks=CHECKS),
        detached(directory / "memory"),
        scratch=directory / "scratch",
        logs=directory / "logs",
    )
    after = sealed.path.stat()
    assert (before.st_mtime_ns, before.st_blocks) == (after.st_mtime_ns, after.st_blocks)
    assert list((directory / "scratch").iterdir()) == []
    return {verdict.cloud: verdict for verdict in done}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_demo_is_a_good_machine_of_each_cloud(
    verdicts: dict[str, Rehearsal], cloud: str
) -> None:
    verdict = verdicts[cloud]
    assert verdict.failures == ()
    by_boot = [claim for claim in verdict.claims if claim.id != "hardware"]
    assert {claim.status for claim in by_boot} == {Status.PROVED}
    assert {"identity", "growth", "datasource", "shutdown"} < {claim.id for claim in by_boot}
    assert len([claim for claim in by_boot if claim.id.startswith("check-")]) == 3
    assert len(verdict.boots) == 2


def test_what_qemu_lacks_is_said(verdicts: dict[str, Rehearsal]) -> None:
    for verdict in verdicts.values():
        assert [claim for claim in verdict.claims if claim.status is Status.LINT]


def pin_datasource(disk: Disk, into: Path) -> Path:
    """The disk with one file more, which keeps cloud-init from seeing any cloud."""
    subprocess.run(["cp", "--sparse=always", disk.path, into], check=True)
    into.chmod(0o600)
    storage = RawFile(into, Budget())
    try:
        partition = Inspection(storage, Budget()).root().partition
    finally:
        storage.close()
    assert partition is not None
    text = into.with_name("90.cfg")
    text.write_text("datasource_list: [ NoCloud ]\n")
    subprocess.run(
        [
            *("debugfs", "-w", "-R", f"write {text} /etc/cloud/cloud.cfg.d/90.cfg"),
            f"{into}?offset={partition.offset}",
        ],
        check=True,
        capture_output=True,
    )
    return into


def test_a_pinned_datasource_is_found_and_named(sealed: Disk, tmp_path: Path) -> None:
    disk = pin_datasource(sealed, tmp_path / "pinned.raw")
    ended = publish(
        *("rehearse", str(disk), "--as", "gcp", "--state", str(tmp_path / "state")), ok=False
    )
    assert ended.code == 6
    (event,) = ended.named("Rehearsed")
    (verdict,) = [Rehearsal.from_json(data) for data in event["rehearsals"]]
    (failure,) = [claim for claim in verdict.failures if claim.cause]
    assert "datasource_list is pinned to NoCloud" in failure.cause
    assert "/etc/cloud/cloud.cfg.d/90.cfg, line 1" in failure.cause
    assert verdict.consoles[0].stat().st_size > 10_000


def processes(text: str) -> list[int]:
    """The processes that have this text in their command line."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                if text.encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
    return found


def test_nothing_is_left_of_a_rehearsal_that_was_killed(sealed: Disk, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended = publish(
        *("rehearse", str(sealed.path), "--as", "azure", "--state", str(state)),
        until=lambda e: e.get("event") == "StepPhase" and e["phase"] == "booting: kernel",
        then=signal.SIGKILL,
        ok=False,
    )
    assert ended.code == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while processes(str(state)) or any((state / "scratch").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
