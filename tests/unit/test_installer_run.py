"""An installation watched from its start to its end; QEMU is a script of the test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from publisher.build import installer as installing
from publisher.build.installer import Installation
from publisher.errors import BuildError
from publisher.events import Event, Note, StepOutput, StepPhase
from publisher.memory import Memory
from publisher.model import MIB, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import keys, process
from publisher.vm.accelerator import decide
from tests.unit.test_vm_machine import FAKE

pytestmark = pytest.mark.long

TCG = decide("x86_64", native=True, device="none", guest="", cpus=2)
# What the guest does besides: prints, asks for files as a guest would, ends.
GUEST = (
    FAKE
    + r"""
import http.client, shlex, subprocess
def prints(text):
    console.sendall(text.encode())
def asks(path, body=None):
    relay = re.search(r"guestfwd=tcp:[\d.]+:80-cmd:([^,]+)", argv)[1]
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(shlex.split(relay), stdin=theirs, stdout=theirs)
    theirs.close()
    connection = http.client.HTTPConnection("guest")
    connection.sock = ours
    connection.request("POST" if body else "GET", path, body)
    text = connection.getresponse().read().decode()
    connection.close()
    child.wait()
    return text
def ends(reason="guest-shutdown"):
    event("SHUTDOWN", guest=True, reason=reason)
    time.sleep(0.1)
    sys.exit(0)
def stands():
    while True:
        answer()
"""
)
SECRET = "open-sesame-of-the-test"


class World:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.program = directory / "qemu.py"
        self.argv: list[str] = []
        for name in ("linux", "initrd.gz"):
            (directory / name).write_text(name)
        (directory / "preseed.cfg").write_text("key {ssh_public_key} token {token} end {done}\n")
        (directory / "private").mkdir(mode=0o700)
        monkeypatch.setenv("INSTALLER_TOKEN", SECRET)
        monkeypatch.setattr(installing, "_GRACE", 0.2)
        monkeypatch.setattr(process, "command", self._command)

    def _command(self, argv: list[str]) -> list[str]:
        self.argv = list(argv)
        return [sys.executable, str(self.program), *argv[1:]]

    def install(self, guest: str, **given: Any) -> Path:
        self.program.write_text(f"{GUEST}{guest}\n")
        source = Recipe.model_validate(
            {
                "source": {
                    "installer": {
                        "kernel": "linux",
                        "initrd": "initrd.gz",
                        "arguments": "url={url}/preseed.cfg quiet",
                        "files": {"preseed.cfg": "preseed.cfg"},
                        "secrets": {"token": {"environment": "INSTALLER_TOKEN"}},
                        **given,
                    }
                },
                "size": "8MiB",
            }
        ).source.installer
        assert source is not None
        private = self.directory / "private"
        pair = keys.Keys(private / "identity", private / "known_hosts", "ssh-ed25519 K b", "", "")
        task = Task("build", Memory(self.directory / "memory"), sink=self.events.append)
        made = Installation(
            source,
            Spec("web", "1.0"),
            directory=private,
            pipeline=self.directory,
            keys=pair,
            task=task,
        )
        return made.run(
            self.directory / "disk.raw",
            8 * MIB,
            cache=self.directory / "cache",
            resolved={},
            chosen=TCG,
            firmware=None,
            log=self.directory / "kept.log",
        )

    def fails(self, guest: str, message: str, **given: Any) -> BuildError:
        with pytest.raises(BuildError, match=message) as caught:
            self.install(guest, **given)
        assert SECRET not in f"{caught.value} {caught.value.hint} {self.events} {self.argv}"
        assert os.listdir(self.directory / "private") == ["console.log"]
        assert str(self.directory / "kept.log") in caught.value.hint
        assert SECRET not in (self.directory / "kept.log").read_text()
        return caught.value

    def phases(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, StepPhase)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_an_installation_gets_its_answers_and_reports_its_end(world: World) -> None:
    disk = world.install(
        """
text = asks("/preseed.cfg")
assert text.startswith("key ssh-ed25519 K b token open-sesame"), text
prints(text + "Installing the base system  ... 10%... 100%\\n")
asks(text.split()[-1].removeprefix("http://10.0.2.100"))
ends()
"""
    )
    assert disk.stat().st_size == 8 * MIB
    assert world.phases()[-3:] == [
        "installing: preseed.cfg was fetched",
        "installing: Installing the base system",
        "installing: done",
    ]
    lines = [event.line for event in world.events if isinstance(event, StepOutput)]
    assert lines[0].startswith("key ssh-ed25519 K b token *** end")
    assert SECRET not in f"{world.events} {world.argv}"
    after = world.argv.index("-append") + 1
    assert world.argv[after] == "url=http://10.0.2.100/preseed.cfg quiet"


def test_an_end_before_the_report_is_a_failure(world: World) -> None:
    error = world.fails(
        'prints("it was at this line\\n"); ends("guest-reset")',
        r"restarted before the installer had fetched \{done\}",
    )
    assert "it was at this line" in error.message


def test_trouble_on_the_console_ends_the_wait_at_once(world: World) -> None:
    error = world.fails(
        f'prints("!! ERROR: Bad mirror\\nIt said {SECRET}.\\n[Press enter to continue]"); stands()',
        "the installer stopped: Bad mirror",
    )
    assert "It said ***." in error.message
    assert error.key == "build.source.installer"


def test_a_disk_that_is_too_small_is_the_pipelines_fault(world: World) -> None:
    error = world.fails(
        'prints("!! ERROR: Failed to partition the selected disk\\n"); stands()', "partition"
    )
    assert error.key == "build.size"


def test_a_failure_that_the_installer_reports_is_told_in_its_words(world: World) -> None:
    error = world.fails('asks("/failed", b"no such package"); stands()', "reported a failure")
    assert "no such package" in error.message


def test_an_installer_without_a_serial_console_is_told_how_to_get_one(world: World) -> None:
    error = world.fails("ends()", "its console printed nothing")
    assert "console=ttyS0" in error.hint


def test_an_installation_ends_at_its_time_limit(world: World) -> None:
    error = world.fails("stands()", "took longer than 1 s", timeout=1)
    assert error.key == "build.source.installer.timeout"


def test_an_installer_that_gives_no_sign_of_life_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "STALL", 0.5)
    monkeypatch.setattr(installing, "_LOOK", 0.1)
    world.fails('prints("hello\\n"); stands()', "no sign of life")
    error = world.fails('prints("hello\\n"); asks("/done"); stands()', r"fetched \{done\}")
    assert "powers off" in error.hint


def test_a_file_that_does_not_exist_is_noted(world: World) -> None:
    world.install('asks("/vendor-data"); asks("/presede.cfg"); asks("/done"); ends()')
    (note,) = [event.text for event in world.events if isinstance(event, Note)]
    assert "10.0.2.100/presede.cfg: there is no such file" in note
