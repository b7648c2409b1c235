"""Joining the layers of a machine's disk ahead of time, with real qcow2 files."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.build.joining import Joining
from publisher.errors import Cancelled
from publisher.model import MIB
from publisher.task import Cancellation, Task, detached

pytestmark = pytest.mark.skipif(not shutil.which("qemu-io"), reason="qemu-utils is missing")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def change(layer: Path, *commands: str) -> None:
    argv = ["qemu-io", "-f", "qcow2", "-d", "unmap"]
    for command in commands:
        argv += ["-c", command]
    subprocess.run([*argv, str(layer)], check=True, capture_output=True)


def over(below: Path, name: str) -> Path:
    kind = below.suffix.removeprefix(".")
    made = below.with_name(name)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", below.name, str(made)]
    subprocess.run(argv, check=True)
    return made


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    layers = tmp_path / "layers"
    layers.mkdir()
    base = layers / "base.raw"
    with base.open("wb") as file:
        file.write(os.urandom(4 * MIB))
        file.truncate(16 * MIB)
    layer = over(base, "frozen.qcow2")
    change(layer, "write -P 7 1M 64k", "discard 2M 1M", "write -P 8 9M 200k")
    return layer


def active_over(frozen: Path) -> Path:
    made = over(frozen, "active.qcow2")
    change(made, "write -P 9 1M 4k", "write -P 10 12M 100k", "discard 0 512k", "write -z 9M 64k")
    return made


def plainly(layer: Path) -> bytes:
    whole = layer.with_suffix(".plain")
    argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(layer), str(whole)]
    subprocess.run(argv, check=True)
    return whole.read_bytes()


def test_what_the_machine_wrote_and_deleted_since_is_added(
    frozen: Path, tmp_path: Path, task: Task
) -> None:
    into = tmp_path / "joined.raw"
    joining = Joining(frozen, into, task)
    active = active_over(frozen)
    wanted, below = plainly(active), frozen.read_bytes()
    assert joining.add(active)
    joining.close()
    assert into.read_bytes() == wanted
    assert frozen.read_bytes() == below, "a frozen layer is never written again"
    assert into.stat().st_blocks * 512 < 4 * MIB, "what was deleted is a hole"


def test_what_a_failed_build_has_joined_is_taken_by_the_next_one(
    frozen: Path, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    joining = Joining(frozen, tmp_path / "joined.raw", task)
    middle = active_over(frozen)
    joining.follow(middle)
    until(lambda: joining._coming.empty())
    monkeypatch.setattr("publisher.build.joining.BEQUEST", 20.0)
    joining.leave(lambda name: left / name)
    joining.close()
    assert [path.name for path in left.iterdir()] == [middle.name]
    top = over(middle, "top.qcow2")
    change(top, "write -P 11 3M 64k")
    wanted = plainly(top)
    monkeypatch.setenv("PATH", str(without_convert(tmp_path)))
    again = Joining(middle, tmp_path / "again.raw", task, left / middle.name)
    assert again.add(top)
    again.close()
    assert (tmp_path / "again.raw").read_bytes() == wanted
    assert list(left.iterdir()) == [], "nobody else may take it"


def without_convert(directory: Path) -> Path:
    """A directory with a qemu-img that joins nothing."""
    real = shutil.which("qemu-img")
    bin_ = directory / "bin"
    bin_.mkdir()
    (bin_ / "qemu-img").write_text(f'#!/bin/sh\n[ "$1" != convert ] && exec {real} "$@"\n')
    (bin_ / "qemu-img").chmod(0o755)
    for name in ("setpriv", "sh"):
        (bin_ / name).symlink_to(str(shutil.which(name)))
    return bin_


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_what_is_not_joined_soon_is_left_to_nobody(
    frozen: Path, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = threading.Event()

    def slow(*_: object) -> None:
        enough.wait(60)

    monkeypatch.setattr("publisher.build.joining._lay", slow)
    joining = Joining(frozen, tmp_path / "joined.raw", task)
    joining.follow(active_over(frozen))
    started = time.monotonic()
    joining.leave(lambda name: tmp_path / "left")
    assert time.monotonic() - started < 0.9
    enough.set()
    joining.close()
    assert not (tmp_path / "left").exists()


def test_layers_that_could_not_be_joined_ahead_are_left_as_they_were(
    frozen: Path, tmp_path: Path, task: Task
) -> None:
    active = active_over(frozen)
    wanted = plainly(active)
    joining = Joining(frozen, tmp_path / "no such directory" / "joined.raw", task)
    joining.follow(active)
    assert not joining.add(active)
    assert plainly(active) == wanted


def test_layers_that_freeze_meanwhile_are_added_in_their_order(
    frozen: Path, tmp_path: Path, task: Task
) -> None:
    into = tmp_path / "joined.raw"
    joining = Joining(frozen, into, task)
    second = active_over(frozen)
    joining.follow(second)
    third = over(second, "third.qcow2")
    change(third, "write -P 11 1M 2k", "discard 9M 1M", "write -P 12 0 64k")
    joining.follow(third)
    active = over(third, "last.qcow2")
    change(active, "write -P 13 12M 4k", "write -P 14 15M 1M")
    wanted, below = plainly(active), [one.read_bytes() for one in (second, third)]
    assert joining.add(active)
    joining.close()
    assert into.read_bytes() == wanted
    assert [one.read_bytes() for one in (second, third)] == below


def test_what_is_no_layer_spoils_the_file(frozen: Path, tmp_path: Path, task: Task) -> None:
    joining = Joining(frozen, tmp_path / "joined.raw", task)
    active = active_over(frozen)
    active.write_bytes(b"no layer")
    assert not joining.add(active)
    joining.close()


def test_a_layer_whose_data_are_packed_is_left_to_others(
    frozen: Path, tmp_path: Path, task: Task
) -> None:
    joining = Joining(frozen, tmp_path / "joined.raw", task)
    active = active_over(frozen)
    change(active, "write -c -P 15 4M 64k")
    assert not joining.add(active)
    joining.close()


def test_joining_ends_when_the_build_does(
    frozen: Path, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "qemu-img"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    started = time.monotonic()
    Joining(frozen, tmp_path / "joined.raw", task).close()
    task.cancellation = Cancellation()
    joining = Joining(frozen, tmp_path / "joined.raw", task)
    task.cancellation.cancel()
    with pytest.raises(Cancelled):
        joining.add(tmp_path / "active.qcow2")
    joining.close()
    assert time.monotonic() - started < 10
