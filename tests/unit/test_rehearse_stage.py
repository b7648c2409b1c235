"""One rehearsal around its boots: which there are, what is explained, what is kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from publisher.model import Disk, Spec
from publisher.proof.guest import Look, Report
from publisher.proof.rehearse import autopsy, props, stage
from publisher.proof.rehearse.boot import Order, Seen
from publisher.proof.rehearse.shortcut import Shortcut, find
from publisher.proof.rehearse.verdict import Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Task, detached
from tests.unit.rehearsal_world import LOOK, SIZE, Tree, facts, seen
from tests.unit.test_rehearse_parts import Nimbus

BIOS = dataclasses.replace(LOOK, title="Nimbus n1, BIOS", boot="bios")
READY = Report(40.0, "ready", "POST /health")
FRESH: dict[str, object] = {
    "hostname": "rehearsal-2",
    "begun": "token-2",
    "instance": "n-2",
    "host_keys": ("ssh-ed25519 B",),
}
PINNED = Tree({"/usr/bin/cloud-init": "", "/etc/cloud/cloud.cfg": "datasource_list: [ NoCloud ]\n"})


class World:
    """Boots as the test orders them; `booted` are their looks and shortcuts."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.looks: Sequence[Look] = (LOOK,)
        self.second: dict[str, object] = FRESH
        self.error = ""
        self.booted: list[tuple[str, bool, Shortcut | None]] = []
        monkeypatch.setattr(stage, "boot", self.boot)
        monkeypatch.setattr(props, "overlay", lambda disk, path, task: path)
        monkeypatch.setattr(autopsy, "files", self.files)
        found = Shortcut(Path("/kernel"), None, "ro")
        monkeypatch.setattr(stage, "find", lambda disk, facts, directory, task: found)

    @contextlib.contextmanager
    def files(self, image: Path, scratch: Path, task: Task) -> Iterator[Tree]:
        yield PINNED

    def boot(
        self,
        order: Order,
        directory: Path,
        task: Task,
        *,
        full: bool,
        act: Any = None,
        shortcut: Shortcut | None = None,
    ) -> Seen:
        self.booted.append((order.look.title, full, shortcut))
        number = len(self.booted)
        if number == 1:
            known = None if self.error else facts()
            return seen(
                directory, known=known, error=self.error, reports=[] if self.error else [READY]
            )
        return seen(directory, known=facts(**self.second), number=number, look=order.look)

    def rehearse(self, *, keep: bool = False, **settings: Any) -> Rehearsal:
        guest = Nimbus("nimbus")
        guest.looks = lambda spec: self.looks  # type: ignore[method-assign]
        return stage.rehearse_one(
            Disk(Path("/web.raw"), SIZE, "", ()),
            guest,
            Spec("web", "1"),
            Rehearse(**settings),
            detached(self.directory / "memory"),
            scratch=self.directory / "scratch",
            logs=self.directory / "logs",
            keep=keep,
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_disk_that_passes_boots_twice_and_leaves_nothing(world: World) -> None:
    verdict = world.rehearse()
    assert verdict.passed
    assert [(full, shortcut is not None) for _, full, shortcut in world.booted] == [
        (True, False),
        (False, True),
    ]
    assert verdict.consoles == ()
    assert list((world.directory / "logs").iterdir()) == []
    assert list((world.directory / "scratch").iterdir()) == []
    assert verdict.claims[-1].status is Status.LINT


def test_another_kind_of_machine_is_the_second_boot_and_takes_no_shortcut(world: World) -> None:
    world.looks = (LOOK, BIOS)
    verdict = world.rehearse()
    assert world.booted == [(LOOK.title, True, None), (BIOS.title, False, None)]
    (identity,) = [claim for claim in verdict.claims if claim.id == "identity"]
    assert BIOS.title in identity.title


def test_the_second_boot_can_be_left_out(world: World) -> None:
    verdict = world.rehearse(second_boot=False)
    assert len(world.booted) == 1
    assert "identity" not in {claim.id for claim in verdict.claims}


def test_no_other_kind_of_machine_boots_without_a_second_boot(world: World) -> None:
    world.looks = (LOOK, BIOS)
    verdict = world.rehearse(second_boot=False)
    assert [title for title, *_ in world.booted] == [LOOK.title]
    assert verdict.passed
    (identity,) = [claim for claim in verdict.claims if claim.id == "identity"]
    assert BIOS.title in identity.title
    assert identity.status is Status.UNREACHED
    assert "second_boot" in identity.evidence


def test_a_first_boot_that_fails_is_the_only_one_and_is_explained(world: World) -> None:
    world.error = "it asks for a login on its console and no ssh server answers"
    verdict = world.rehearse()
    assert len(world.booted) == 1
    (failure,) = verdict.failures
    assert "datasource_list is pinned to NoCloud" in failure.cause
    assert [c.status for c in verdict.claims if c.id == "identity"] == [Status.UNREACHED]
    (log,) = verdict.consoles
    assert "Linux version" in log.read_text()


def test_a_frozen_identity_fails_and_keeps_both_logs(world: World) -> None:
    world.second = {**FRESH, "host_keys": facts().host_keys}
    verdict = world.rehearse()
    assert [claim.id for claim in verdict.failures] == ["identity"]
    assert len(verdict.consoles) == 2


def test_logs_are_kept_when_asked_for(world: World) -> None:
    assert len(world.rehearse(keep=True).consoles) == 2


def test_a_disk_of_another_format_or_kind_boots_in_full(tmp_path: Path) -> None:
    task = detached(tmp_path / "memory")
    junk = tmp_path / "web.raw"
    junk.write_bytes(bytes(2**20))
    known = facts()
    assert find(Disk(junk, 2**20, "", (), "qcow2"), known, tmp_path, task) is None
    assert find(Disk(junk, 2**20, "", ()), known, tmp_path, task) is None
