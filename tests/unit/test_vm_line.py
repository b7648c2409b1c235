"""Commands over a machine's port: a shell of this computer stands at its other end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from publisher.errors import BootError, Cancelled
from publisher.task import Task, detached
from publisher.vm import line
from publisher.vm.console import Tracker
from publisher.vm.keys import Keys
from publisher.vm.line import Line
from publisher.vm.machine import Machine
from publisher.vm.process import Completed
from publisher.vm.shell import Shell

pytestmark = pytest.mark.long

SHELLS = [["dash"], ["bash", "--posix"]]


class Guest:
    """A line, and the process at its other end."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.shell = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                env={"PATH": os.environ["PATH"], **environment},
                start_new_session=True,
            )
        self.end = ours
        self.check: Callable[[], None] = lambda: None
        self.line = Line(ours, lambda: self.shell.poll() is None, lambda: self.check())

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        self.end.close()

    def run(self, command: str, stdin: bytes | None = None, **how: bool) -> Completed:
        return self.line.run(command, stdin, None, **how)


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture(params=SHELLS, ids=lambda argv: argv[0])
def guest(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Guest]:
    made = Guest(request.param, environment)
    yield made
    made.close()


@pytest.mark.parametrize("plain", [False, True], ids=["shell", "plain"])
def test_a_command_gives_its_output_and_its_status(plain: bool, guest: Guest) -> None:
    assert guest.line.greet(25)
    done = guest.run("echo one; echo two >&2; printf three; exit 7", plain=plain)
    assert (done.status, done.tail) == (7, ("one", "two", "three"))
    assert guest.run("true", plain=plain) == Completed(0, ())
    assert guest.run("cd /; pwd", plain=plain).text == "/"
    assert guest.run("exit 255", plain=plain).status == 255
    assert guest.run('echo "it\'s"\n# the end', plain=plain).text == "it's"


@pytest.mark.parametrize("plain", [False, True], ids=["shell", "plain"])
@pytest.mark.parametrize(
    "stdin", [bytes(range(1, 256)) * 2, b"", b"'\n'\"$x`y`\\\n", b"x" * line.MOST]
)
def test_every_byte_of_the_input_arrives(
    stdin: bytes, plain: bool, guest: Guest, tmp_path: Path
) -> None:
    done = guest.run(f"cat > {tmp_path}/got; cat", stdin, plain=plain)
    assert done == Completed(0, ())
    assert (tmp_path / "got").read_bytes() == stdin


@pytest.mark.parametrize("plain", [False, True], ids=["shell", "plain"])
def test_without_input_there_is_none_and_unread_input_does_not_matter(
    plain: bool, guest: Guest
) -> None:
    assert guest.run("cat; echo end", plain=plain).text == "end"
    assert guest.run("echo unread", b"echo never\n" * 1000, plain=plain).text == "unread"
    assert guest.run("echo next", plain=plain).text == "next"


def test_input_that_a_shell_can_not_hold_goes_another_way() -> None:
    assert line.takes(None)
    assert line.takes(b"text")
    assert not line.takes(b"a\0b")
    assert not line.takes(b"x" * (line.MOST + 1))


def test_lines_are_told_when_they_are_printed(guest: Guest, tmp_path: Path) -> None:
    told: list[str] = []

    def hear(said: str) -> None:
        told.append(said)
        (tmp_path / "heard").touch()

    wait = f"while ! [ -e {tmp_path}/heard ]; do sleep 0.02; done"
    assert guest.line.run(f"echo first; {wait}; echo second", None, hear).status == 0
    assert told == ["first", "second"]


def test_only_the_last_lines_are_kept(guest: Guest) -> None:
    done = guest.run(f"seq {line.KEPT + 50}")
    assert done.tail == tuple(str(n) for n in range(51, line.KEPT + 51))


def test_what_is_left_running_does_not_speak_into_the_next_command(guest: Guest) -> None:
    """As with ssh, a command is over when nobody holds its output open."""
    assert guest.run("(sleep 0.3; echo late) & echo early").tail == ("early", "late")
    assert guest.run("(sleep 60) >/dev/null 2>&1 & echo early").tail == ("early",)
    assert guest.run("echo next").tail == ("next",)


@pytest.fixture
def home(environment: dict[str, str], tmp_path: Path) -> Path:
    (tmp_path / ".bashrc").write_text("FROM_BASHRC=read\n")
    environment |= {"HOME": str(tmp_path), "SSH_CLIENT": "10.0.2.2 1 22", "SHLVL": "3"}
    environment["SHELL"] = shutil.which("bash") or "bash"
    return tmp_path


def test_the_users_shell_runs_a_command_as_over_ssh(home: Path, guest: Guest) -> None:
    assert guest.run("echo ${BASH_VERSION:+bash} $FROM_BASHRC").text == "bash read"
    assert guest.run("FROM_BASHRC=x; echo $FROM_BASHRC", plain=True).text == "x"
    assert guest.run("echo $FROM_BASHRC", plain=True).text == ""


@pytest.mark.parametrize("private", [True, False])
def test_what_is_private_stays_in_no_memory(private: bool, guest: Guest, tmp_path: Path) -> None:
    word = b"swordfish-" + os.urandom(20).hex().encode()
    secret = word * 500
    took = guest.run(f"cat > {tmp_path}/got", secret, plain=True, private=private)
    assert took.status == 0
    assert guest.run("echo on").text == "on"
    assert (tmp_path / "got").read_bytes() == secret
    assert (word not in memory(guest.shell.pid)) is private


def memory(pid: int) -> bytes:
    """All that a process holds."""
    held = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        for place in maps:
            if "rw" in place.split()[1]:
                start, stop = (int(number, 16) for number in place.split()[0].split("-"))
                file.seek(start)
                held += file.read(stop - start)
    assert len(held) > 10_000
    return held


@pytest.mark.parametrize("plain", [False, True], ids=["shell", "plain"])
def test_a_shell_that_ends_is_noticed(plain: bool, guest: Guest) -> None:
    done = guest.run(f"echo last words; kill -9 {guest.shell.pid}; sleep 1", plain=plain)
    assert done.status == line.LOST
    assert guest.run("true").status == line.LOST
    assert not guest.line.greet(5)


def test_waiting_ends_with_the_guest(guest: Guest) -> None:
    looks = iter([None, None, None])

    def check() -> None:
        if next(looks, "over") == "over":
            raise Cancelled

    guest.check = check
    with pytest.raises(Cancelled):
        guest.run("sleep 60")


def test_a_greeting_passes_over_what_was_said_before_and_has_an_end(guest: Guest) -> None:
    guest.end.sendall(b"echo stale; echo unfinished\n")
    time.sleep(0.2)
    assert guest.line.greet(25)
    assert guest.run("echo fresh").tail == ("fresh",)
    guest.end.sendall(b"sleep 60\n")
    started = time.monotonic()
    assert not guest.line.greet(2)
    assert time.monotonic() - started < 5


# -- a Shell that has a line


class QEMU:
    """A machine whose port leads to a local shell while `guest` lives."""

    def __init__(self, task: Task, guest: Guest | None) -> None:
        self.task = task
        self.guest = guest
        self.hardware = SimpleNamespace(aided=guest is not None)
        self.tracker = Tracker(lambda _: None)
        self.ended = False

    def check(self) -> None:
        if self.ended:
            raise BootError("it powered off", phase="ready")

    def wait(self, seconds: float) -> bool:
        return False

    def line(self) -> Line | None:
        held = self.guest is not None and self.guest.shell.poll() is None
        return self.guest.line if held and self.guest else None


class Caller(Shell):
    """Notes what goes by ssh."""

    def __init__(self, machine: QEMU, directory: Path, user: str, *, awake: bool) -> None:
        keys = cast(Keys, SimpleNamespace(identity=directory / "identity", pinned=True))
        super().__init__(cast(Machine, machine), keys, user, awake=awake)
        self.by_ssh: list[str] = []

    def connect(self) -> None:
        self.by_ssh.append("connect")
        self._master = cast(Any, SimpleNamespace(poll=lambda: None))
        self._open_line()

    def hang_up(self) -> None:
        self._master = None

    def _by_ssh(self, command: str, *_: Any) -> Completed:
        self.by_ssh.append(command)
        return Completed(0, ("by ssh",))


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[QEMU]:
    local = Guest(["sh"], {})
    machine = QEMU(detached(tmp_path / "memory"), local)
    local.check = machine.check
    yield machine
    local.close()


def test_a_resumed_machine_is_not_logged_in_to(qemu: QEMU, tmp_path: Path) -> None:
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        assert shell.output("echo over the line") == "over the line"
        shell.leave(f"printf 'a script' > {tmp_path}/left")
        assert shell.by_ssh == []
    assert (tmp_path / "left").read_text() == "a script"


def test_what_needs_more_logs_in_first(qemu: QEMU, tmp_path: Path) -> None:
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        shell.command("tar -xf -", stdin=iter([b"an archive"]))
        shell.command("cat", stdin=[b"\0"])
        assert shell.by_ssh == ["connect", "tar -xf -", "cat"]
        assert shell.output("echo still") == "still"
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        shell.log_in()
        shell.log_in()
        assert shell.by_ssh == ["connect"]


def test_a_boot_leaves_a_shell_at_the_port(qemu: QEMU, tmp_path: Path) -> None:
    with Caller(qemu, tmp_path, "root", awake=False) as shell:
        assert shell.by_ssh == ["connect", line.OPEN]
        assert shell.output("echo over the line") == "over the line"


@pytest.mark.parametrize(("user", "port"), [("debian", True), ("root", False)])
def test_without_root_or_a_port_all_goes_by_ssh(
    user: str, port: bool, qemu: QEMU, tmp_path: Path
) -> None:
    if not port:
        qemu.guest, qemu.hardware = None, SimpleNamespace(aided=False)
    with Caller(qemu, tmp_path, user, awake=True) as shell:
        assert shell.output("true") == "by ssh"
        assert shell.by_ssh == ["connect", "true"]


def test_a_command_that_ends_the_shell_is_the_last_over_the_line(
    qemu: QEMU, tmp_path: Path
) -> None:
    assert qemu.guest is not None
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        assert shell.command(f"kill -9 {qemu.guest.shell.pid}; sleep 1").status == line.LOST
        assert shell.command("true").text == "by ssh"
        assert shell.by_ssh[:2] == ["connect", line.OPEN]
        assert shell.by_ssh[-1] == "true"


def test_the_end_of_the_machine_is_the_end_of_leaving_it(qemu: QEMU, tmp_path: Path) -> None:
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        qemu.ended = True
        with pytest.raises(BootError, match="powered off"):
            shell.command("sleep 60")
        shell.leave("sleep 60")
    assert shell.by_ssh == []


def test_a_script_and_its_variables_go_over_the_line(
    qemu: QEMU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.vm.script.RUN", str(tmp_path))
    monkeypatch.setattr(
        "publisher.vm.script.store_exports", lambda: f"cat > {tmp_path}/publisher-environment"
    )
    with Caller(qemu, tmp_path, "root", awake=True) as shell:
        done = shell.script(
            'echo "$GREETING"; pwd', environment={"GREETING": "it's"}, directory="/"
        )
        assert done.tail == ("it's", "/")
        late = shell.script("sleep 60", timeout=0.3)
        assert late.late
        assert shell.by_ssh == []
