"""Restarting the guest: QEMU lets it for once, the login is a new one, another boot is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from publisher.errors import BootError, BuildError
from publisher.task import Cancellation, Clock, Task, detached
from publisher.vm import shell
from publisher.vm.console import Phase, Tracker
from publisher.vm.process import Completed
from publisher.vm.shell import Shell


class Skipping(Clock):
    """Does not wait."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        self.at += max(seconds, 1)


class Machine:
    """Stands for QEMU; restarts some looks after it was told to."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.resets = 0
        self.looks = 3
        self.going = False
        self.actions: list[object] = []
        self.fault: Exception | None = None

    def execute(self, command: str, **arguments: object) -> None:
        assert command == "set-action"
        self.actions.append(arguments["reboot"])

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.looks -= self.going
        if self.looks == 0:
            self.resets += 1

    def boot_error(self, why: str) -> BootError:
        return BootError(why, phase="ready")


class Guest(Shell):
    def __init__(self, machine: Machine, directory: Path, status: int = 255) -> None:
        self.machine = machine
        self._machine = machine  # type: ignore[assignment]
        self.status = status
        self.boots = ["first", "second"]
        self.calls: list[str] = []

    def connect(self) -> None:
        self.calls.append(f"connect after {self.machine.resets} restarts")

    def close(self) -> None:
        self.calls.append("close")

    def command(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        plain: bool = False,
        private: bool = False,
    ) -> Completed:
        if "boot_id" in command:
            return Completed(0, (self.boots.pop(0),))
        assert "reboot" in command
        assert self.machine.actions == ["reset"]
        self.machine.going = True
        return Completed(self.status, ("no such unit",))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(detached(tmp_path, clock=Skipping()))


@pytest.mark.parametrize("status", [0, 255])
def test_the_login_comes_back_after_the_restart(
    status: int, machine: Machine, tmp_path: Path
) -> None:
    guest = Guest(machine, tmp_path, status)
    guest.reboot()
    assert guest.calls == ["close", "connect after 1 restarts"]
    assert machine.actions == ["reset", "shutdown"]


def test_a_guest_that_refuses_says_why(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="refuses to restart: no such unit"):
        Guest(machine, tmp_path, status=1).reboot()


def test_a_guest_that_does_not_go_down_is_given_up(machine: Machine, tmp_path: Path) -> None:
    machine.looks = 10**6
    with pytest.raises(BootError, match=f"did not restart within {shell.DOWN:.0f} s"):
        Guest(machine, tmp_path).reboot()


def test_a_guest_that_powers_off_instead_is_noticed(machine: Machine, tmp_path: Path) -> None:
    guest = Guest(machine, tmp_path)
    machine.fault = BootError("it powered off", phase="ready")
    with pytest.raises(BootError, match="powered off"):
        guest.reboot()


def test_the_same_boot_is_no_restart(machine: Machine, tmp_path: Path) -> None:
    guest = Guest(machine, tmp_path)
    guest.boots = ["same", "same"]
    with pytest.raises(BuildError, match="did not restart"):
        guest.reboot()


def test_another_boot_has_its_own_phases_and_faults() -> None:
    told: list[Phase] = []
    now = [0.0]
    tracker = Tracker(told.append, clock=lambda: now[0])
    tracker.enter(Phase.READY)
    tracker.feed(b"You are in emergency mode\n")
    assert tracker.fatal
    now[0] = 50.0
    tracker.restart()
    tracker.restart()
    assert (tracker.phase, tracker.fatal) == (Phase.FIRMWARE, "")
    now[0] = 53.0
    tracker.feed(b"[    0.000000] Linux version 6.1\n")
    assert told == [Phase.READY, Phase.FIRMWARE, Phase.KERNEL]
    assert tracker.seconds == {"firmware": 0.0, "kernel": 3.0}
