"""What a machine that goes on from a checkpoint is told, run by a shell of this computer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from publisher.build import waking

ACTIVE = "apt-daily.timer loaded active waiting Daily apt\nrun-r1.timer loaded active waiting x"


class Guest:
    """Commands that are not to reach this computer, and what they were given."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = directory / "calls"
        self.stamps = directory / "timers"
        self.stamps.mkdir()
        monkeypatch.setattr(waking, "STAMPS", str(self.stamps))
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.program("systemctl", f'if [ "$1" = list-units ]; then echo "{ACTIVE}"; fi')
        self.program("date")

    def program(self, name: str, then: str = "") -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{then}\n')
        path.chmod(0o755)

    def stamp(self, *timers: str) -> None:
        for timer in timers:
            (self.stamps / f"stamp-{timer}").touch()
            os.utime(self.stamps / f"stamp-{timer}", (1, 1))

    def touched(self) -> list[str]:
        return sorted(path.name for path in self.stamps.iterdir() if path.stat().st_mtime > 1)

    def wake(self, rested: float) -> tuple[int, list[str]]:
        command = waking.command("root", 1000.5, rested)
        done = subprocess.run(
            ["sh", "-c", command],
            input=b"seed\n",
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
            check=False,
        )
        return done.returncode, self.calls.read_text().splitlines()


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    return Guest(tmp_path, monkeypatch)


def test_a_machine_that_rested_for_minutes_only_learns_the_time(guest: Guest) -> None:
    guest.stamp("apt-daily.timer")
    assert guest.wake(waking.OLD) == (0, ["date -u -s @1000.500"])
    assert guest.touched() == []


def test_timers_that_make_up_for_missed_runs_do_not_see_the_clock_jump(guest: Guest) -> None:
    guest.stamp("apt-daily.timer", "stopped-before.timer")
    status, calls = guest.wake(waking.OLD + 1)
    assert status == 0
    assert calls[1:] == [
        "systemctl stop apt-daily.timer dpkg-db-backup.timer",
        "date -u -s @1000.500",
        "systemctl start --no-block apt-daily.timer",
    ]
    assert guest.touched() == ["stamp-apt-daily.timer"]


def test_timers_of_a_step_are_left_alone(guest: Guest) -> None:
    status, calls = guest.wake(waking.OLD + 1)
    assert status == 0
    assert calls[1:] == ["systemctl stop dpkg-db-backup.timer", "date -u -s @1000.500"]


@pytest.mark.parametrize("broken", ["systemctl", "date"])
def test_the_clock_must_be_set_and_timers_need_not_exist(guest: Guest, broken: str) -> None:
    guest.stamp("apt-daily.timer")
    guest.program(broken, "exit 1")
    status, calls = guest.wake(waking.OLD + 1)
    assert (status != 0) == (broken == "date")
    assert "date -u -s @1000.500" in calls


def test_who_is_not_root_becomes_root() -> None:
    command = waking.command("lab", 1000.5, 0)
    assert command.startswith("sudo -n sh -c 'date -u -s @1000.500 ")
