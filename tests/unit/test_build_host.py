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
from publisher.model import GIB, MIB
from publisher.task import Task, detached
from publisher.vm import host, locks

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


def test_a_sweep_that_comes_before_the_lock_takes_nothing_away(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, scratch = fcntl.flock, Store(tmp_path).scratch("x").parent
    swept: list[int] = []

    def slow(handle: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not swept:
            swept.append(handle)
            locks.sweep(scratch, "build-")
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with Workspace(Store(tmp_path), NOBODY, task) as workspace:
        assert swept
        assert workspace.directory.is_dir()
        locks.sweep(scratch, "build-")
        assert workspace.directory.is_dir()
    assert list(workspace.directory.parent.iterdir()) == []


def test_what_a_sweep_cannot_remove_is_left_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Store(tmp_path).scratch("x").parent
    (scratch / "build-dead").mkdir()
    (scratch / "build-dead.lock").touch()
    with monkeypatch.context() as patched:
        patched.setattr("publisher.vm.locks.shutil.rmtree", lambda *_, **__: None)
        locks.sweep(scratch, "build-")
    locks.sweep(scratch, "build-")
    assert list(scratch.iterdir()) == []


def test_too_little_space_is_said_before_the_work(tmp_path: Path, task: Task) -> None:
    with (
        Workspace(Store(tmp_path), NOBODY, task) as workspace,
        pytest.raises(HostError, match=r"needs 1048576\.0 GiB .* GiB left") as caught,
    ):
        workspace.need(GIB * 1024 * 1024)
    assert "free some space" in caught.value.hint


def test_free_memory_is_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "MemTotal: 8 kB\nMemAvailable:    4096 kB\n")
    assert host.free_memory() == 4 * MIB


def test_free_memory_is_guessed_where_the_kernel_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_path: Path) -> str:
        raise FileNotFoundError

    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for reading in (lambda _: "MemTotal: 8 kB\n", refuse):
        monkeypatch.setattr(Path, "read_text", reading)
        assert host.free_memory() == everything // 2
