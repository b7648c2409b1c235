"""What a rehearsed machine is made of, the user's checks, and how many run at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from pydantic import ValidationError

from publisher.disks import foreign
from publisher.errors import BootError, Cancelled, HostError
from publisher.events import Event, StepPhase
from publisher.model import GIB, Disk, Spec
from publisher.proof import rehearse as package
from publisher.proof.guest import Guest, Instance, Look, Report, Service
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rehearse import Rehearsal, capacity, judge, props, rehearse
from publisher.proof.rehearse.checks import OUTPUT_MOST, _Output, left, run_all
from publisher.proof.rehearse.stage import _order_of_boots
from publisher.proof.rehearse.verdict import Claim, Status
from publisher.proof.rules import Rule
from publisher.rehearsal import Check, Rehearse
from publisher.task import Task, detached
from publisher.vm import cgroup, process, relay
from publisher.vm.board import Board
from publisher.vm.namespace import PrivateNetwork
from publisher.vm.network import HOST
from publisher.vm.process import Completed
from publisher.vm.restricted import RestrictedNetwork
from publisher.vm.shell import Shell
from publisher.vm.web import WebServer
from tests.unit.rehearsal_world import LOOK, facts, seen

SPEC = Spec("web", "1")
DISK = Disk(Path("/disk.raw"), GIB, "", ())
READY = Report(40.0, "ready", "POST /health")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def test_the_overlay_is_larger_and_leaves_the_disk_alone(tmp_path: Path, task: Task) -> None:
    base = tmp_path / "disk.raw"
    base.write_bytes(b"\xaa" * 2**20)
    made = props.overlay(Disk(base, 2**20, "", ()), tmp_path / "overlay.qcow2", task)
    info = foreign.info(made, "qcow2")
    assert info["virtual-size"] == 3 * GIB
    assert info["full-backing-filename"] == str(base)
    assert base.read_bytes() == b"\xaa" * 2**20


def test_a_cd_holds_its_files_by_their_names(tmp_path: Path) -> None:
    path = props.cd({"ovf-env.xml": b"<Environment/>"}, tmp_path / "cd.iso")
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    try:
        (child,) = [c for c in iso.list_children(rr_path="/") if c.is_file()]
        assert child.rock_ridge.name() == b"ovf-env.xml"
        out = tmp_path / "out"
        iso.get_file_from_iso(str(out), joliet_path="/ovf-env.xml")
        assert out.read_bytes() == b"<Environment/>"
    finally:
        iso.close()


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ("nvme", "nvme,drive=disk0,serial=disk0,bootindex=0"),
        ("virtio-scsi", "scsi-hd,bus=scsi0.0,drive=disk0,bootindex=0"),
        ("virtio-blk", "virtio-blk-pci,drive=disk0,bootindex=0"),
    ],
)
def test_the_disk_hangs_on_the_clouds_controller(disk: Any, expected: str) -> None:
    assert expected in Board(disk=disk).drive_devices(0)


def test_a_board_has_identity_cd_and_tpm(tmp_path: Path) -> None:
    board = Board(smbios=("type=1,serial=ec2",), cdrom=tmp_path / "a,b.iso", tpm=7)
    text = " ".join(board.arguments("tpm-crb"))
    assert "-smbios type=1,serial=ec2" in text
    assert f"file={tmp_path}/a,,b.iso" in text
    assert "scsi-cd" in text
    assert "socket,id=tpm,fd=7" in text
    assert Board().arguments("tpm-crb") == []


def test_without_namespaces_qemu_answers_for_addresses_of_its_own_network() -> None:
    def app(environ: Any, start: Any) -> Iterable[bytes]:
        return []

    endpoints: dict[tuple[str, int], Any] = {
        ("169.254.169.254", 80): app,
        ("168.63.129.16", 32526): app,
        ("fd00:ec2::254", 80): app,
    }
    with RestrictedNetwork(endpoints) as network:
        words = network.netdev.split(",")
    assert words[:3] == ["user", "net=168.0.0.0/7", "restrict=on"]
    assert [w.partition("-cmd:")[0] for w in words[3:]] == [
        "guestfwd=tcp:169.254.169.254:80",
        "guestfwd=tcp:168.63.129.16:32526",
    ]


def test_the_relay_carries_a_request_in_and_an_answer_out() -> None:
    def app(environ: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = WebServer(listening, app)
    try:
        done = subprocess.run(
            [sys.executable, "-IS", relay.__file__, str(port)],
            input=b"GET /latest HTTP/1.0\r\n\r\n",
            capture_output=True,
            check=True,
        )
    finally:
        server.close()
    assert done.stdout.startswith(b"HTTP/1.0 200 OK\r\n")
    assert done.stdout.endswith(b"/latest")


def test_one_look_is_booted_twice_and_several_once_each() -> None:
    other = Look("Nimbus n1, BIOS", "bios", "nvme", (), "Nimbus")
    assert _order_of_boots([LOOK], again=True) == (LOOK, LOOK)
    assert _order_of_boots([LOOK], again=False) == [LOOK]
    assert _order_of_boots([LOOK, other], again=True) == [LOOK, other]


# -- the user's checks


class Local(Shell):
    """A login whose commands run here, without sudo; `kills` ends the guest."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.ran: list[str] = []

    @property
    def task(self) -> Task:
        return self._task

    def command(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        plain: bool = False,
        private: bool = False,
    ) -> Completed:
        self.ran.append(command)
        if " kills " in command:
            raise BootError("it restarted; its console said last:\n…", phase="ready")
        local = command.removeprefix("sudo -n ")
        assert local != command
        return process.run(["sh", "-c", local], self._task, on_line=on_line)


@pytest.mark.parametrize(
    ("check", "status", "evidence"),
    [
        ({"run": "echo nginx/1.22"}, Status.PROVED, "status 0: nginx/1.22"),
        ({"run": "echo boom; exit 1"}, Status.FAILED, "status 1: boom (expected status 0)"),
        ({"run": "exit 3", "status": 3}, Status.PROVED, "status 3"),
        ({"run": "exit 124", "status": 124}, Status.PROVED, "status 124"),
        ({"run": "exit 137", "status": 137}, Status.PROVED, "status 137"),
        ({"run": "kill -9 $$", "status": 137}, Status.PROVED, "status 137"),
        ({"run": "printf a/1", "output": r"a/\d$"}, Status.PROVED, "status 0: a/1"),
        ({"run": "printf '1\n2\n\n'", "output": r"\A1\n2\n\Z"}, Status.PROVED, "0: 1 / 2"),
        ({"run": "echo out; echo err >&2", "output": "out\nerr"}, Status.PROVED, "out / err"),
        ({"run": "echo y", "output": "^x$"}, Status.FAILED, "nothing matches '^x$'"),
        ({"run": "seq 9999", "output": r"^2\n3$|\n7\n8\n"}, Status.PROVED, "9998 / 9999"),
        ({"run": "echo hi; sleep 9", "timeout": 0.2}, Status.FAILED, "not done after 0.2 s: hi"),
        (
            {"run": "trap '' TERM; echo hi; sleep 1; exit 124", "timeout": 0.2},
            Status.FAILED,
            "not done after 0.2 s: hi",
        ),
    ],
)
def test_a_check_is_a_line_of_the_verdict(
    task: Task, check: dict[str, Any], status: Status, evidence: str
) -> None:
    shell = Local(task)
    (claim,) = run_all(shell, [Check(**check)], "aws")
    assert claim.evidence.endswith(evidence) or evidence in claim.evidence
    assert claim.status is status
    assert claim.title == " ".join(check["run"].split())
    assert "</dev/null" in shell.ran[0]


def test_a_command_of_several_lines_is_one_line_of_the_verdict() -> None:
    assert Check(run="set -e\ntest -e /srv\n").title == "set -e test -e /srv"
    assert Check(run="set -e\ntrue\n", name="fine").title == "fine"


def test_of_an_endless_output_a_bounded_part_is_searched(task: Task) -> None:
    run = f"echo first; yes $(printf %0999d 0) | head -c {2 * OUTPUT_MOST}; echo; echo last"
    found = {"first": Status.PROVED, "last": Status.PROVED, "missing": Status.FAILED}
    checks = [Check(run=run, output=f"^{word}$|^{word}\n|\n{word}$") for word in found]
    assert [c.status for c in run_all(Local(task), checks, "aws")] == list(found.values())
    output = _Output("mark")
    tracemalloc.start()
    try:
        for number in range(1000):
            output.take(f"{number:09999}")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6 * OUTPUT_MOST


def test_a_check_that_ends_the_guest_fails_and_the_next_are_not_reached(
    task: Task, tmp_path: Path
) -> None:
    checks = [Check(run="true"), Check(run=": kills it"), Check(run="a"), Check(run="b", on=["x"])]
    done: list[Claim] = []
    with pytest.raises(BootError):
        done.extend(claim for claim in run_all(Local(task), checks, "aws"))
    boot = seen(tmp_path, known=facts(), error="it restarted", reports=[READY])
    done += left(checks, "aws", done, boot)
    assert [(c.id, c.status) for c in done] == [
        ("check-1", Status.PROVED),
        ("check-2", Status.FAILED),
        ("check-3", Status.UNREACHED),
    ]
    assert "the guest ended under it: it restarted" in done[1].evidence
    assert "console" not in done[1].evidence
    whole = {claim.id: claim.status for claim in judge.claims(boot, GIB, done)}
    assert whole["shutdown"] is Status.UNREACHED
    assert Status.FAILED not in whole.values()


@pytest.mark.parametrize(
    ("blind", "error", "status"),
    [
        (True, "", Status.UNPROVABLE),
        (True, "no sign of life", Status.UNREACHED),
        (False, "no sign of life", Status.UNREACHED),
    ],
)
def test_checks_in_a_guest_that_nobody_could_enter_have_their_lines(
    tmp_path: Path, blind: bool, error: str, status: Status
) -> None:
    boot = seen(tmp_path, error=error)
    boot.blind = blind
    assert [c.status for c in left([Check(run="a")], "aws", [], boot)] == [status]


def test_a_check_for_one_cloud_does_not_run_on_another(task: Task) -> None:
    shell = Local(task)
    checks = [Check(run=":", name="a", on=("aws",)), Check(run=":", name="the b")]
    assert [c.title for c in run_all(shell, checks, "gcp")] == ["the b"]
    assert [c.title for c in run_all(shell, checks, "aws")] == ["a", "the b"]


@pytest.mark.parametrize(
    "given", [{"run": ""}, {"run": "a", "output": "("}, {"run": "a", "status": 300}]
)
def test_a_check_that_can_not_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Check(**given)


# -- several clouds


class Nimbus:
    title = "Nimbus"

    def __init__(self, name: str) -> None:
        self.name = name

    def looks(self, spec: Spec) -> Sequence[Look]:
        return (LOOK,)

    def service(self, instance: Instance, look: Look) -> Service:
        raise NotImplementedError

    def abilities(self, disk: Inspection) -> Sequence[str]:
        return ["fast"]

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        return ()


def verdict(guest: Guest) -> Rehearsal:
    return Rehearsal(guest.name, LOOK.title, (), 1.0)


def all_of(
    tmp_path: Path, task: Task, guests: Sequence[Guest], **options: Any
) -> Sequence[Rehearsal]:
    return rehearse(
        DISK, guests, SPEC, Rehearse(), task, scratch=tmp_path / "s", logs=tmp_path, **options
    )


def test_verdicts_come_in_the_order_of_the_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    task = detached(tmp_path / "memory", sink=heard.append)
    other = threading.Event()

    def one(disk: Disk, guest: Guest, spec: Spec, settings: Any, part: Task, **_: Any) -> Rehearsal:
        if guest.name == "a":
            assert other.wait(60)
        part.phase("booting: kernel")
        return verdict(guest)

    monkeypatch.setattr(package, "rehearse_one", one)
    monkeypatch.setattr(package, "at_once", lambda wanted: 2)
    ended: list[str] = []

    def on_end(found: Rehearsal) -> None:
        ended.append(found.cloud)
        other.set()

    done = all_of(tmp_path, task, [Nimbus("a"), Nimbus("b")], on_end=on_end)
    assert [r.cloud for r in done] == ["a", "b"]
    assert ended == ["b", "a"]
    phases = {event.phase for event in heard if isinstance(event, StepPhase)}
    assert phases == {"a: booting: kernel", "b: booting: kernel"}


def test_an_error_of_one_ends_the_others_soon(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, stopped = threading.Event(), threading.Event()

    def one(disk: Disk, guest: Guest, spec: Spec, settings: Any, part: Task, **_: Any) -> Rehearsal:
        if guest.name == "a":
            running.wait(5)
            raise HostError("no swtpm")
        running.set()
        try:
            part.sleep(30)
        except Cancelled:
            stopped.set()
            raise
        return verdict(guest)

    monkeypatch.setattr(package, "rehearse_one", one)
    monkeypatch.setattr(package, "at_once", lambda wanted: 2)
    with pytest.raises(HostError, match="no swtpm"):
        all_of(tmp_path, task, [Nimbus("a"), Nimbus("b")])
    assert stopped.is_set()
    assert not task.cancellation.cancelled


def test_cancelling_ends_all(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(disk: Disk, guest: Guest, spec: Spec, settings: Any, part: Task, **_: Any) -> Rehearsal:
        part.sleep(30)
        return verdict(guest)

    monkeypatch.setattr(package, "rehearse_one", one)
    threading.Timer(0.1, task.cancellation.cancel).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        all_of(tmp_path, task, [Nimbus("a"), Nimbus("b"), Nimbus("c")])
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("memory", "cpus", "machines", "pairs"),
    [(64, 8, 8, 3), (64, 2, 2, 1), (64, 4, 4, 2), (2, 8, 1, 1), (0, 8, 1, 1), (5, 8, 2, 1)],
)
def test_as_many_at_once_as_processors_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, memory: int, cpus: int, machines: int, pairs: int
) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: memory * GIB)
    monkeypatch.setattr(cgroup, "processors", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus))
    assert capacity.machines() == machines
    assert capacity.at_once(3) == pairs


def test_machines_side_by_side_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))
    monkeypatch.setattr(cgroup, "processors", lambda: None)
    assert [capacity.processors(beside) for beside in (1, 2, 3)] == [2, 1, 1]


def test_a_containers_share_bounds_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 64 * GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(cgroup, "processors", lambda: 2)
    assert capacity.machines() == 2
    assert capacity.processors(1) == 2


def test_an_address_of_the_builders_network_does_not_do_in_a_rehearsals() -> None:
    net = ip_network(PrivateNetwork.netdev.partition("net=")[2])
    assert ip_address(PrivateNetwork.address) in net
    assert ip_address(HOST.address) not in net
