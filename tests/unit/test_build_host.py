"""Privileges, space and leftovers: what a build asks of the host."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from publisher.build import namespace
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import HostError
from publisher.model import GIB
from publisher.task import Task, detached

NOBODY = namespace.Namespace("none", ())


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


@pytest.mark.parametrize("uid", [0, 1000])
def test_the_first_way_that_works_is_taken(uid: int) -> None:
    ways = namespace.candidates(uid)
    assert namespace.choose(uid, {ways[0].kind: ""}) is ways[0]
    refused = {ways[0].kind: "unshare failed", ways[1].kind: ""}
    assert namespace.choose(uid, refused) is ways[1]


def test_only_a_normal_user_needs_a_user_namespace() -> None:
    assert all("--user" in way.prefix for way in namespace.candidates(1000))
    assert not any("--user" in way.prefix for way in namespace.candidates(0))


def test_nothing_works_is_one_clear_message() -> None:
    why = "unshare: write failed /proc/self/uid_map: Operation not permitted"
    refused = {way.kind: why for way in namespace.candidates(1000)}
    with pytest.raises(HostError, match="neither root nor user namespaces") as caught:
        namespace.choose(1000, refused)
    assert why in str(caught.value)
    assert "uidmap" in caught.value.hint
    assert "/etc/subuid" in caught.value.hint
    with pytest.raises(HostError, match="may not mount") as caught:
        namespace.choose(0, {way.kind: "no" for way in namespace.candidates(0)})
    assert "CAP_SYS_ADMIN" in caught.value.hint


def test_a_workspace_is_private_and_goes_away(tmp_path: Path, task: Task) -> None:
    with Workspace(Store(tmp_path), NOBODY, task) as workspace:
        assert workspace.directory.stat().st_mode & 0o077 == 0
        (workspace.directory / "file").write_text("x")
    assert list(workspace.directory.parent.iterdir()) == []


def test_a_killed_builds_leftovers_go_with_the_next_one_but_a_running_ones_stay(
    tmp_path: Path, task: Task
) -> None:
    scratch = Store(tmp_path).scratch("x").parent
    for name in ("build-dead", "build-alive"):
        (scratch / name).mkdir()
        (scratch / name / "disk.raw").write_text("x")
        (scratch / f"{name}.lock").touch()
    running = os.open(scratch / "build-alive.lock", os.O_RDWR)
    fcntl.flock(running, fcntl.LOCK_EX)
    with Workspace(Store(tmp_path), NOBODY, task):
        pass
    os.close(running)
    assert sorted(p.name for p in scratch.iterdir()) == ["build-alive", "build-alive.lock"]


def test_too_little_space_is_said_before_the_work(tmp_path: Path, task: Task) -> None:
    with (
        Workspace(Store(tmp_path), NOBODY, task) as workspace,
        pytest.raises(HostError, match=r"needs 1048576\.0 GiB .* GiB left") as caught,
    ):
        workspace.need(GIB * 1024 * 1024)
    assert "free some space" in caught.value.hint
