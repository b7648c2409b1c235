"""Cleaning a guest: the script, run in a directory with stand-ins for what speaks to the system."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import cast

import pytest

from publisher.build import cleaning
from publisher.errors import BuildError, UsageError
from publisher.task import Task, detached
from publisher.vm.machine import Machine
from publisher.vm.shell import Shell

OURS = "ssh-ed25519 AAAAours"
TRACES = (
    "root/.bash_history",
    "root/.cache/pip/wheel",
    "home/a user/.ssh/authorized_keys",
    "home/a user/.viminfo",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/sshd_config.d/00-build.conf",
    "etc/sysconfig/network-scripts/ifcfg-eth0",
    "etc/passwd-",
    "var/lib/apt/lists/a_Packages",
    "var/lib/cloud/instance/id",
    "var/lib/dbus/machine-id",
    "var/lib/dhcp/dhclient.leases",
    "var/lib/systemd/random-seed",
    "var/cache/apt/archives/jq_1.6_amd64.deb",
    "var/cache/apt/archives/partial/jq",
    "var/log/apt/history.log",
    "var/log/journal/0123/system.journal",
    "tmp/left/by-a-step",
)
SYSTEM = (
    *("journalctl", "fstrim", "sync", "apt-get", "dnf", "zypper"),
    *("mount", "systemctl", "sleep"),
)
STAY = (
    "var/cache/apt/archives/lock",
    "root/kept",
    "root/.ssh/config",
    "etc/ssh/sshd_config",
    "etc/sysconfig/network-scripts/ifcfg-lo",
    "var/lib/kept",
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def inside(root: Path, script: str) -> str:
    """The script for a directory instead of /: none of its paths may lead out of there."""
    changed = re.sub(r"(?<![\w*}\"'/])/(?=(etc|home|proc|root|run|tmp|var)\b)", f"{root}/", script)
    left = changed.replace(f"{root}/", "").replace("/dev/null", "")
    assert re.findall(r"(?<![\w.*\"'])/\w*", left) == [], "it would clean this machine"
    return changed


def clean_in(root: Path, **programs: str) -> int:
    """Run the script in a directory instead of /, with stand-ins for the programs
    that speak to the system, which note how they were called; returns its status."""
    bin_ = root / "bin"
    bin_.mkdir()
    (root / "proc").mkdir(exist_ok=True)
    if not (root / "proc" / "mounts").exists():
        (root / "proc" / "mounts").write_text("/dev/vda1 / ext4 rw,relatime 0 0\n")
    for name in SYSTEM:
        text = f'echo "{name} $*" >> {root}/bin/calls\n'
        text += programs.get(name.replace("-", "_"), "exit 0")
        (bin_ / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name).chmod(0o755)
    script = inside(root, cleaning.script(OURS + " us"))
    path = f"{bin_}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-eu", "-c", script], check=False, env={"PATH": path})
    return done.returncode


def directories(root: Path) -> None:
    for name in ("etc", "root", "run", "tmp", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)


def test_cleaning_takes_the_traces_of_the_build_and_nothing_else(tmp_path: Path) -> None:
    for name in (*TRACES, *STAY, "etc/machine-id", "root/.ssh/authorized_keys", "run/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something\n")
    (tmp_path / TRACES[6]).write_text("# Created by cloud-init\n")
    (tmp_path / "home/a user/.ssh/authorized_keys").write_text(f"{OURS} build\n")
    operator = "ssh-ed25519 AAAAtheirs operator\n"
    (tmp_path / "root/.ssh/authorized_keys").write_text(f"{OURS} build\n{operator}")
    assert clean_in(tmp_path) == 0
    assert [name for name in TRACES if (tmp_path / name).exists()] == []
    assert [name for name in STAY if not (tmp_path / name).exists()] == []
    assert not list((tmp_path / "var/log/journal").iterdir()), "not even the machine's directory"
    assert (tmp_path / "root/.ssh/authorized_keys").read_text() == operator
    assert (tmp_path / "etc/machine-id").read_text() == ""
    assert (tmp_path / "etc/hostname").read_text() == "localhost\n"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["x"]


@pytest.mark.parametrize("program", ["apt_get", "journalctl"])
def test_cleaning_fails_with_what_it_runs_beside(program: str, tmp_path: Path) -> None:
    directories(tmp_path)
    (tmp_path / "etc" / "apt").mkdir()
    (tmp_path / "etc" / "apt" / "apt.conf").write_text('Dir::Cache::archives "/srv/debs";\n')
    assert clean_in(tmp_path, **{program: "/bin/sleep 0.2; exit 7"}) == 7
    assert "apt-get clean" in (tmp_path / "bin" / "calls").read_text()


MOUNTS = """\
/dev/vda1 / ext4 rw,relatime 0 0
proc /proc proc rw,nosuid 0 0
tmpfs /run tmpfs rw 0 0
/dev/vdb /seed iso9660 ro,relatime 0 0
/dev/vda2 /home xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("mounts", "mount", "orderly"),
    [
        (MOUNTS, "exit 0", False),
        (MOUNTS, 'case "$*" in */home) exit 32; esac', True),  # something writes to it
        (f"{MOUNTS}tank/data /data zfs rw 0 0\n", "exit 0", True),
    ],
    ids=["all read-only", "busy", "unknown"],
)
def test_the_power_goes_at_once_only_when_nothing_can_be_written_any_more(
    mounts: str, mount: str, orderly: bool, tmp_path: Path
) -> None:
    directories(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "mounts").write_text(mounts)
    assert clean_in(tmp_path, mount=mount) == 0
    calls = (tmp_path / "bin" / "calls").read_text().splitlines()
    after = calls[calls.index("fstrim --all") + 1 :]
    assert after[:2] == ["mount -o remount,ro /", "mount -o remount,ro /home"]
    left_to_systemd = ["systemctl --force --no-block poweroff", "sleep 300"]
    assert after[2:] == left_to_systemd * orderly


def test_with_a_source_date_no_file_is_younger_than_it(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "link").symlink_to("nowhere")
    os.utime(tmp_path / "old", (5, 5))
    script = cleaning.script(OURS, 1000)
    (command,) = (line for line in script.splitlines() if "-newermt" in line)
    command = command.replace("find /", f"find {tmp_path}")
    assert "/ " not in command
    subprocess.run(["sh", "-euc", command], check=True)
    times = {p.relative_to(tmp_path).as_posix(): p.lstat().st_mtime for p in tmp_path.rglob("*")}
    assert times.pop("old") == 5
    assert {*times.values(), tmp_path.stat().st_mtime} == {1000}


def test_without_a_source_date_times_stay() -> None:
    assert "touch" not in cleaning.script(OURS)
    assert "@TIMES@" not in cleaning.script(OURS)


def test_a_source_date_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    assert cleaning.epoch() == 1000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert cleaning.epoch() is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH=soon"):
        cleaning.epoch()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("search lan\nnameserver 10.0.2.3\nnameserver fec0::3\n", ""),
        ("nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
    ],
)
def test_the_name_server_of_the_build_is_forgotten(text: str, left: str, tmp_path: Path) -> None:
    directories(tmp_path)
    (tmp_path / "etc" / "resolv.conf").write_text(text)
    assert clean_in(tmp_path) == 0
    assert (tmp_path / "etc" / "resolv.conf").read_text() == left


def test_a_link_to_a_resolvers_file_is_left_alone(tmp_path: Path) -> None:
    directories(tmp_path)
    (tmp_path / "run" / "stub").write_text("nameserver 10.0.2.3\n")
    (tmp_path / "etc" / "resolv.conf").symlink_to("../run/stub")
    assert clean_in(tmp_path) == 0
    assert (tmp_path / "run" / "stub").read_text()


class Guest:
    """A Shell and a Machine whose end is decided beforehand."""

    def __init__(self, end: str) -> None:
        self.shutdown = ""
        self.tracker = self
        self._end = end
        self.command = ""

    def leave(self, command: str) -> None:
        self.command = command

    def last_lines(self) -> str:
        return "rm: cannot remove 'x'"

    def wait_down(self, timeout: float) -> None:
        self.shutdown = self._end
        if self._end != "guest-shutdown":
            raise BuildError("it restarted")


def test_a_guest_that_is_clean_powers_off(task: Task) -> None:
    guest = Guest("guest-shutdown")
    cleaning.clean(cast(Shell, guest), cast(Machine, guest), "the 'script'", task)
    assert shlex.quote("the 'script'") in guest.command
    assert "replace-irreversibly" in guest.command


def test_one_that_could_not_be_cleaned_restarts_and_its_last_words_are_told(task: Task) -> None:
    guest = Guest("guest-reset")
    with pytest.raises(BuildError, match=r"cleaning the guest failed.*\n.*cannot remove"):
        cleaning.clean(cast(Shell, guest), cast(Machine, guest), "the script", task)
