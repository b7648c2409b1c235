"""QEMU's command line, and a QEMU that dies, fails or is cancelled."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.errors import BootError, BuildError, Cancelled, HostError
from publisher.events import Event, StepPhase
from publisher.memory import Memory
from publisher.model import Arch
from publisher.task import Task, detached
from publisher.vm import machine as qemu_machine
from publisher.vm import process
from publisher.vm.accelerator import decide
from publisher.vm.arch import PLATFORMS
from publisher.vm.board import Board
from publisher.vm.console import Phase
from publisher.vm.host import which
from publisher.vm.machine import Drive, Hardware, Machine, arguments

TCG = decide("x86_64", native=True, device="none", guest="", cpus=2)

# Speaks enough QMP to be driven; then does what the test says.
FAKE = """
import json, re, socket, sys, time
argv = " ".join(sys.argv)
qmp = socket.socket(fileno=int(re.search(r"id=qmp,fd=(\\d+)", argv)[1]))
console = socket.socket(fileno=int(re.search(r"id=console,fd=(\\d+)", argv)[1]))
def say(**message):
    qmp.sendall(json.dumps(message).encode() + b"\\n")
def event(name, **data):
    say(event=name, data=data, timestamp={"seconds": 1, "microseconds": 0})
def answer(text=""):
    data = b""
    while True:  # QMP messages need no line break
        data += qmp.recv(4096)
        try:
            request = json.loads(data)
            break
        except ValueError:
            continue
    say(**{"return": text if text else {}}, **({"id": request["id"]} if "id" in request else {}))
version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
say(QMP={"version": version, "capabilities": []})
answer()
answer("  TCP[HOST_FORWARD]  14  127.0.0.1 40022  10.0.2.15  22  0 0")
"""


@pytest.mark.parametrize("arch", PLATFORMS)
def test_the_devices_of_an_architecture_are_its_qemus(arch: Arch, tmp_path: Path) -> None:
    platform = PLATFORMS[arch]
    if which(platform.qemu) is None:
        pytest.skip(f"{platform.qemu} is not installed")
    board = Board(disk="nvme", cdrom=tmp_path / "cd.iso", tpm=7)
    hardware = Hardware((Drive(tmp_path / "a"),), tmp_path / "log", arch=arch, board=board)
    chosen = decide(arch, native=False, device="", guest="", cpus=2)
    argv = arguments(hardware, chosen, 5, 6, 7, 512)
    devices = {argv[n + 1].split(",")[0] for n, word in enumerate(argv) if word == "-device"}
    told = subprocess.run([platform.qemu, "-device", "help"], capture_output=True, text=True)
    assert devices <= set(re.findall(r'name "([^"]+)"', told.stdout))
    assert platform.tpm in devices


@pytest.mark.parametrize("arch", PLATFORMS)
def test_a_bare_board_is_one_that_qemu_can_make(arch: Arch, hardware: Hardware) -> None:
    platform = PLATFORMS[arch]
    if which(platform.qemu) is None:
        pytest.skip(f"{platform.qemu} is not installed")
    plain = replace(hardware, arch=arch)
    bare = replace(plain, board=Board(bare=True))
    machines = [" ".join(arguments(each, TCG, 5, 6, 7, 512)) for each in (plain, bare)]
    assert platform.bare not in machines[0] or not platform.bare
    assert f"-machine {platform.machine}{platform.bare} " in machines[1]
    kind = platform.machine.partition(",")[0]
    told = subprocess.run(
        [platform.qemu, "-machine", f"{kind},help"], capture_output=True, text=True
    )
    for word in filter(None, platform.bare.split(",")):
        assert f" {word.partition('=')[0]}=<bool>" in told.stdout


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(drives=(Drive(tmp_path / "disk.raw"),), log=tmp_path / "console.log")


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "qemu.py"
    monkeypatch.setattr(process, "command", lambda argv: [sys.executable, str(program), *argv[1:]])
    return program


def until(condition: object, within: float = 5) -> None:
    deadline = time.monotonic() + within
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_line_boots_the_first_drive_and_holds_no_path_for_qmp(tmp_path: Path) -> None:
    hardware = Hardware(
        drives=(Drive(tmp_path / "a,b.raw"), Drive(tmp_path / "seed", read_only=True)),
        log=tmp_path / "log",
        firmware_code=Path("/code.fd"),
        firmware_variables=Path("/variables.fd"),
    )
    argv = arguments(hardware, TCG, 7, 8, 9, 512)
    text = " ".join(argv)
    assert argv[0] == "qemu-system-x86_64"
    assert "socket,id=qmp,fd=7" in text
    assert "drive=disk0,bootindex=0" in text
    assert f"file={tmp_path}/a,,b.raw" in text
    assert "discard=unmap" in argv[argv.index("virtio-blk-pci,drive=disk0,bootindex=0") - 2]
    assert "readonly=on,file=/code.fd" in text
    assert "hostfwd=tcp:127.0.0.1:0-:22" in text
    assert "thread=multi" in text


def test_a_port_is_the_last_device_and_only_where_it_is_asked_for(hardware: Hardware) -> None:
    """The addresses of all others, and so the names of network cards, stay as they are."""
    without = arguments(hardware, TCG, 7, 8, 9, 512)
    argv = arguments(replace(hardware, aided=True), TCG, 7, 8, 9, 512)
    assert argv[: len(without)] == without
    added = " ".join(argv[len(without) :])
    assert "socket,id=port,fd=9" in added
    assert "name=org.publisher.shell.0" in added


@pytest.mark.skipif(not which("qemu-system-x86_64"), reason="QEMU is missing")
def test_a_port_that_no_process_of_the_guest_has_open_is_no_line(
    hardware: Hardware, task: Task
) -> None:
    chosen = decide("x86_64", native=False, device="", guest="", cpus=1)
    bare = replace(hardware, drives=(), memory=32, cpus=1)
    with Machine(replace(bare, aided=True), task, chosen) as machine:
        assert machine.line() is None
    with Machine(bare, task, chosen) as machine:
        assert machine.line() is None


def test_a_qemu_that_can_not_start_says_why(qemu: Path, hardware: Hardware, task: Task) -> None:
    qemu.write_text("import sys; sys.exit('qemu: -drive: Could not open disk.raw')")
    with (
        pytest.raises(HostError, match=r"could not start: .*Could not open"),
        Machine(hardware, task, TCG),
    ):
        pass


def test_the_port_is_asked_of_qemu(qemu: Path, hardware: Hardware, task: Task) -> None:
    qemu.write_text(FAKE + "time.sleep(60)")
    with Machine(hardware, task, TCG) as machine:
        assert machine.ssh_port == 40022
        child = machine._process
        assert not machine.crashed
    assert child is not None
    assert child.returncode == -9
    assert not machine.crashed


def test_a_guest_gets_the_room_for_code_that_is_there_when_it_starts(
    qemu: Path, hardware: Hardware, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu.write_text("import sys; sys.exit(' '.join(w for w in sys.argv if 'tb-size' in w))")
    monkeypatch.setattr(qemu_machine, "code_room", lambda crowded: 555 if crowded else 777)
    with pytest.raises(HostError, match="tb-size=777"), Machine(hardware, task, TCG):
        pass
    with (
        pytest.raises(HostError, match="tb-size=555"),
        Machine(replace(hardware, crowded=True), task, TCG),
    ):
        pass


@pytest.mark.parametrize(("end", "crashed"), [("os.abort()", True), ("sys.exit(1)", False)])
def test_a_qemu_that_crashed_is_told_from_one_that_ended(
    end: str, crashed: bool, qemu: Path, hardware: Hardware, task: Task
) -> None:
    qemu.write_text("import os\n" + FAKE + end)
    with Machine(hardware, task, TCG) as machine:
        assert machine.wait(5)
        assert machine.crashed is crashed


def test_a_guest_that_panics_fails_with_its_phase_and_its_last_words(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    said = (
        "[    0.000000] Linux version 6.1\\r\\n"
        "[    2.5] Kernel panic - not syncing: no init found\\r\\n"
    )
    qemu.write_text(f'{FAKE}\nconsole.sendall(b"{said}")\ntime.sleep(60)')
    with Machine(hardware, task, TCG) as machine:
        until(lambda: machine.tracker.fatal)
        with pytest.raises(BootError, match="phase kernel: kernel panic: no init found") as caught:
            machine.check()
    assert caught.value.phase == "kernel"
    assert "no init found" in caught.value.console
    assert str(hardware.log) in caught.value.hint
    assert b"Linux version" in hardware.log.read_bytes()


def test_a_guest_that_restarts_is_noticed(qemu: Path, hardware: Hardware, task: Task) -> None:
    qemu.write_text(f'{FAKE}\nevent("SHUTDOWN", guest=True, reason="guest-reset")\ntime.sleep(0.2)')
    with Machine(hardware, task, TCG) as machine:
        until(lambda: machine.ended)
        with pytest.raises(BootError, match="it restarted"):
            machine.check()
        with pytest.raises(BuildError, match="it restarted"):
            machine.wait_down(5)


def test_a_restart_that_was_asked_for_begins_another_boot(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    qemu.write_text(
        f'{FAKE}\nconsole.sendall(b"[    0.000000] Linux version 6.1\\r\\n")\ntime.sleep(0.3)\n'
        'event("RESET", guest=False, reason="host-qmp-system-reset")\n'
        'event("RESET", guest=True, reason="guest-reset")\ntime.sleep(60)'
    )
    with Machine(hardware, task, TCG) as machine:
        until(lambda: machine.tracker.phase is Phase.KERNEL)
        until(lambda: machine.resets)
        assert machine.tracker.phase is Phase.FIRMWARE
        assert machine.resets == 1
        machine.check()


def test_a_resumed_machine_boots_only_once_it_restarts(
    qemu: Path, hardware: Hardware, tmp_path: Path
) -> None:
    qemu.write_text(
        f'{FAKE}\nanswer()\nevent("RESET", guest=True, reason="guest-reset")\ntime.sleep(60)'
    )
    told: list[Event] = []
    task = Task("build", Memory(tmp_path / "memory"), sink=told.append)
    with Machine(replace(hardware, incoming=True), task, TCG) as machine:
        machine.tracker.enter(Phase.READY)
        assert told == []
        machine.execute("cont")
        until(lambda: machine.resets)
    assert [e.phase for e in told if isinstance(e, StepPhase)] == ["booting: firmware"]


def test_a_guest_that_powers_off_is_what_sealing_waits_for(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    qemu.write_text(
        f'{FAKE}\nevent("SHUTDOWN", guest=True, reason="guest-shutdown")\ntime.sleep(0.2)'
    )
    with Machine(hardware, task, TCG) as machine:
        machine.wait_down(5)


def test_a_guest_that_never_powers_off_is_given_up(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    qemu.write_text(FAKE + "time.sleep(60)")
    with Machine(hardware, task, TCG) as machine:
        machine.tracker.enter(Phase.READY)
        with pytest.raises(BuildError, match="did not power off"):
            machine.wait_down(0.3)


def test_a_full_disk_of_the_host_is_the_hosts_error(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    data = {"device": "disk0", "operation": "write", "action": "stop", "nospace": True}
    data |= {"reason": "No space left on device", "node-name": "n"}
    qemu.write_text(
        f'{FAKE}\nevent("BLOCK_IO_ERROR", **json.loads({json.dumps(data)!r}))\ntime.sleep(60)'
    )
    with Machine(hardware, task, TCG) as machine:
        until(lambda: machine._fault)
        with pytest.raises(HostError, match="no space left") as caught:
            machine.check()
    assert "free some space" in caught.value.hint


def test_cancelling_kills_the_guest_within_two_seconds(
    qemu: Path, hardware: Hardware, task: Task
) -> None:
    qemu.write_text(FAKE + "time.sleep(60)")
    with Machine(hardware, task, TCG) as machine:
        timer = threading.Timer(0.2, task.cancellation.cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            machine.wait_down(60)
        until(lambda: machine.ended)
        assert time.monotonic() - started < 2
        timer.join()
