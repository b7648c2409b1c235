"""Playbooks: what ansible-playbook is given, and what becomes of its end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from publisher.build import ansible, steps
from publisher.errors import BootError, HostError
from publisher.recipe import Recipe, fingerprint
from publisher.task import detached
from publisher.vm.shell import Shell
from tests.unit.local_guest import step

# Stands for ansible-playbook: tells what it got, and keeps a copy of its files.
FAKE = """#!/usr/bin/python3
import json, os, sys
files = {name: json.load(open(name.lstrip("@"))) for name in sys.argv[1:] if name.endswith(".json")}
known = {k: v for k, v in os.environ.items() if k.startswith("ANSIBLE") or k in ("TOKEN", "SPY")}
config = open(os.environ["ANSIBLE_CONFIG"]).read()
told = {"argv": sys.argv[1:], "files": list(files.values()), "cwd": os.getcwd(), "env": known}
json.dump({**told, "config": config}, open("TOLD", "w"))
print("TASK [say]", os.environ.get("TOKEN", ""), flush=True)
sys.exit(int(open("STATUS").read()))
"""


class Guest(Shell):
    dead = False
    logins = 0

    def log_in(self) -> None:
        self.logins += 1

    def check(self) -> None:
        if self.dead:
            raise BootError("it powered off", phase="ready")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    keys = tmp_path / "keys"
    keys.mkdir()
    machine = SimpleNamespace(task=detached(tmp_path / "memory"), ssh_port=40022)
    pair = SimpleNamespace(identity=keys / "identity", known_hosts=keys / "known_hosts")
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "site.yml").write_text("[]")
    return Guest(machine, pair)  # type: ignore[arg-type]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the fake writes; `status` beside it is what it exits with."""
    found, status = tmp_path / "told.json", tmp_path / "status"
    status.write_text("0")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ansible-playbook"
    command.write_text(FAKE.replace("TOLD", str(found)).replace("STATUS", str(status)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return found


PLAY = {"playbook": "play/site.yml", "extra_vars": {"n": 5, "names": ["a"]}}


def test_the_playbook_runs_over_the_builds_own_login(
    guest: Guest, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter22")
    monkeypatch.setenv("SPY", "of the user")
    monkeypatch.setenv("ANSIBLE_INVENTORY", "/etc/ansible/hosts")
    said: list[str] = []
    given = step(ansible=PLAY, secrets={"TOKEN": {"environment": "MY_TOKEN"}})
    done = steps.run(given, tmp_path, guest, said.append)
    assert done is not None
    assert done.status == 0
    assert said == ["TASK [say] ***"]
    assert guest.logins == 1
    got = json.loads(told.read_text())
    inventory, variables = got["files"]
    assert variables == {"n": 5, "names": ["a"]}
    host = inventory["all"]["hosts"]["guest"]
    assert (host["ansible_host"], host["ansible_port"], host["ansible_user"]) == (
        *("127.0.0.1", 40022),
        "root",
    )
    for option in (
        *("-F none", "StrictHostKeyChecking=yes", "UserKnownHostsFile=known_hosts"),
        *("HostKeyAlias=guest", "IdentityFile=identity", "ControlPath=control"),
    ):
        assert option in host["ansible_ssh_args"]
    assert got["cwd"] == str(tmp_path / "keys")
    assert got["argv"][-1] == str(tmp_path / "play" / "site.yml")
    assert "hunter22" not in json.dumps([got["argv"], got["files"]])
    assert got["env"]["TOKEN"] == "hunter22"
    assert "SPY" not in got["env"]
    assert "ANSIBLE_INVENTORY" not in got["env"]
    assert got["env"]["ANSIBLE_NO_TARGET_SYSLOG"] == "True"
    assert got["config"] == ""
    assert list((tmp_path / "keys").iterdir()) == []


def test_the_configuration_beside_the_playbook_counts(
    guest: Guest, told: Path, tmp_path: Path
) -> None:
    (tmp_path / "play" / "ansible.cfg").write_text("[defaults]\n")
    steps.run(step(ansible=PLAY), tmp_path, guest, lambda _: None)
    assert json.loads(told.read_text())["config"] == "[defaults]\n"


def test_a_task_that_fails_fails_the_step(guest: Guest, told: Path, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("2")
    given = step(ansible=PLAY)
    done = steps.run(given, tmp_path, guest, lambda _: None)
    assert done is not None
    error = steps.failure(3, given, done)
    assert error.key == "build.steps[3]"
    assert "step 4 (ansible play/site.yml) ended with status 2" in error.message
    assert "TASK [say]" in error.message


def test_a_guest_that_dies_is_told_as_such(guest: Guest, told: Path, tmp_path: Path) -> None:
    guest.dead = True
    with pytest.raises(BootError, match="powered off"):
        steps.run(step(ansible=PLAY), tmp_path, guest, lambda _: None)


def recipe(**changes: Any) -> Recipe:
    steps = [{"ansible": {**PLAY, **changes}}]
    return Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": steps})


def test_ansible_is_missed_before_the_build(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ansible, "which", lambda command: None)
    with pytest.raises(HostError, match="ansible-playbook is not installed") as caught:
        steps.check_files(recipe(), tmp_path)
    assert caught.value.key == "build.steps[0].ansible"
    assert "ansible-core" in caught.value.hint


def test_all_that_the_playbook_reads_decides_the_fingerprint(guest: Guest, tmp_path: Path) -> None:
    seen = [fingerprint(recipe(), tmp_path)]
    (tmp_path / "play" / "README").write_text("is not read")
    assert fingerprint(recipe(), tmp_path) == seen[0]
    for name in (
        *("site.yml", "more.yaml", "ansible.cfg", "roles/web/tasks/main.yml"),
        *("group_vars/all", "templates/x.j2", "filter_plugins/x.py"),
    ):
        path = tmp_path / "play" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("changed")
        now = fingerprint(recipe(), tmp_path)
        assert now not in seen, name
        seen.append(now)
    (tmp_path / "users.csv").write_text("a")
    declared = recipe(inputs=["users.csv"])
    before = fingerprint(declared, tmp_path)
    (tmp_path / "users.csv").write_text("b")
    assert fingerprint(declared, tmp_path) != before
    assert fingerprint(recipe(extra_vars={"n": 6}), tmp_path) not in seen
