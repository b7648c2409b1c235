"""The demo's disk as a machine of each cloud; one that was spoilt; one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from publisher.model import Disk, Spec
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile
from publisher.proof.rehearse import Rehearsal, Status, rehearse
from publisher.provider import load
from publisher.rehearsal import Rehearse
from publisher.task import detached
from publisher.vm import namespace
from tests.end_to_end.command import Ended, publish

pytestmark = pytest.mark.qemu

CLOUDS = ("aws", "azure", "gcp")


@pytest.fixture
def verdicts(manifest: dict[str, Any]) -> dict[str, Rehearsal]:
    """Of the demo's own rehearsals, before its upload."""
    (flavour,) = manifest["flavours"]
    found = flavour["proofs"]["rehearsals"]
    return {cloud: Rehearsal.from_json(found[cloud]) for cloud in CLOUDS}


def test_nothing_is_uploaded_before_all_rehearsals_have_passed(demo: Ended) -> None:
    order = [
        (event["event"], event["step"].rpartition(".")[2])
        for event in demo.events
        if event["event"] in ("StepStarted", "StepFinished")
    ]
    last = max(i for i, what in enumerate(order) if what == ("StepFinished", "rehearse"))
    assert last < order.index(("StepStarted", "upload"))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_demo_is_a_good_machine_of_each_cloud(
    verdicts: dict[str, Rehearsal], cloud: str
) -> None:
    verdict = verdicts[cloud]
    assert verdict.failures == ()
    by_boot = [claim for claim in verdict.claims if claim.id not in ("hardware", "rerun")]
    assert {claim.status for claim in by_boot} == {Status.PROVED}
    assert {"identity", "growth", "datasource", "shutdown"} < {claim.id for claim in by_boot}
    assert len([claim for claim in by_boot if claim.id.startswith("check-")]) == 5
    assert len(verdict.boots) == 2
    (rerun,) = [claim for claim in verdict.claims if claim.id == "rerun"]
    assert rerun.evidence == "left out: rerun is false"


def test_first_boot_work_runs_again_on_a_used_disk(sealed: Disk, tmp_path: Path) -> None:
    (verdict,) = rehearse(
        sealed,
        [load("aws").guest(None)],  # type: ignore[attr-defined]
        Spec("demo", "1", size=sealed.size),
        Rehearse(second_boot=False, rerun=True),
        detached(tmp_path / "memory"),
        scratch=tmp_path / "scratch",
        logs=tmp_path / "logs",
    )
    assert verdict.failures == ()
    assert len(verdict.boots) == 2
    (rerun,) = [claim for claim in verdict.claims if claim.id == "rerun"]
    assert rerun.status is Status.PROVED
    assert "new host name, host keys, user data" in rerun.evidence


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


def test_without_user_namespaces_the_second_best_network_does(
    sealed: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "probe", lambda: ((), "the kernel forbids them"))
    guest = load("azure").guest(None)  # type: ignore[attr-defined]
    (verdict,) = rehearse(
        sealed,
        [guest],
        Spec("demo", "1", size=sealed.size),
        Rehearse(second_boot=False),
        detached(tmp_path / "memory"),
        scratch=tmp_path / "scratch",
        logs=tmp_path / "logs",
    )
    assert verdict.failures == ()
    by_id = {claim.id: claim for claim in verdict.claims}
    for shown in ("network", "datasource", "login", "user-data", "hostname", "ready", "shutdown"):
        assert by_id[shown].status is Status.PROVED
    assert by_id["isolation"].status is Status.UNPROVABLE
    assert "the kernel forbids them" in by_id["isolation"].evidence


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
