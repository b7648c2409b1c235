"""Children are streamed, cancelled within two seconds, and never outlive us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from publisher.errors import Cancelled, HostError
from publisher.task import Task, detached
from publisher.vm import process


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_lines_come_as_they_are_printed(task: Task) -> None:
    seen: list[tuple[float, str]] = []
    started = time.monotonic()
    done = process.run(
        ["sh", "-c", "echo one; sleep 0.5; echo two >&2; exit 3"],
        task,
        on_line=lambda line: seen.append((time.monotonic() - started, line)),
    )
    assert done.status == 3
    assert [line for _, line in seen] == ["one", "two"]
    assert done.text == "one\ntwo"
    assert seen[1][0] - seen[0][0] > 0.3


def test_only_the_last_lines_are_kept(task: Task) -> None:
    done = process.run(["seq", "1", "1000"], task, keep=3)
    assert done.tail == ("998", "999", "1000")


def test_standard_input_is_fed_while_output_flows(task: Task) -> None:
    chunks = (b"x" * 65535 + b"\n" for _ in range(20))
    done = process.run(["wc", "-c"], task, stdin=chunks)
    assert done.text == str(20 * 65536)


def test_a_child_that_ends_before_its_input_does_not_fail_for_that(task: Task) -> None:
    done = process.run(["true"], task, stdin=(b"x" * 65536 for _ in range(100)))
    assert done.status == 0


def test_an_error_while_making_the_input_is_raised(task: Task) -> None:
    def broken() -> object:
        yield b"a"
        raise HostError("the file is gone")

    with pytest.raises(HostError, match="gone"):
        process.run(["cat"], task, stdin=broken())  # type: ignore[arg-type]


def test_cancelling_kills_the_whole_group_within_two_seconds(task: Task, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}; echo $$ >> {pids}; echo ready; wait"
    timer = threading.Timer(60, lambda: None)
    cancelled_at = []

    def cancel(line: str) -> None:
        assert line == "ready"
        cancelled_at.append(time.monotonic())
        task.cancellation.cancel()

    with pytest.raises(Cancelled):
        process.run(["sh", "-c", script], task, on_line=cancel)
    timer.cancel()
    assert time.monotonic() - cancelled_at[0] < 2
    assert all(gone(int(pid), 1) for pid in pids.read_text().split())


def test_a_check_that_raises_ends_a_silent_child(task: Task) -> None:
    def check() -> None:
        if time.monotonic() - started > 0.3:
            raise HostError("the guest's disk is full")

    started = time.monotonic()
    with pytest.raises(HostError, match="full"):
        process.run(["sleep", "60"], task, check=check)
    assert time.monotonic() - started < 2


@pytest.mark.long
def test_a_daemon_that_keeps_the_pipe_open_does_not_hold_us_up(task: Task) -> None:
    started = time.monotonic()
    done = process.run(["sh", "-c", "echo said; sleep 30 & exit 0"], task)
    assert done.text == "said"
    assert time.monotonic() - started < 10


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from publisher.vm import process\n"
        "child = process.spawn(['sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid, 2)


def test_a_missing_tool_names_its_package(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from publisher.vm import host

    real = host.which
    monkeypatch.setattr(host, "which", lambda name: None if name == "mmdebstrap" else real(name))
    with pytest.raises(HostError, match="mmdebstrap is not installed") as caught:
        process.run(["mmdebstrap"], task)
    assert "publish doctor --fix" in caught.value.hint
    assert "package mmdebstrap" in caught.value.hint
    with pytest.raises(HostError, match=r"lacks .*mmdebstrap \(mmdebstrap\)") as caught:
        host.require_all("x86_64")
    assert "mmdebstrap" in caught.value.hint
