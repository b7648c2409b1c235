"""What a guest answers about itself, asked of this computer and of made-up answers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from publisher.errors import BuildError
from publisher.proof.rehearse import observe
from publisher.proof.rehearse.userdata import QUICK, user_data


def answer(**given: str) -> list[str]:
    return [*(f"{key}\t{value}" for key, value in given.items()), "end\tyes"]


def ask(
    mark: str = "/nonexistent",
    block: str = observe._BLOCK,
    wait: str = "0",
    settle: str = "60",
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    script = observe._SCRIPT.replace("@WAIT@", wait).replace("@SETTLE@", settle)
    script = script.replace("/run/systemd/system", "/").replace("/run/cloud-init", "/nonexistent")
    return subprocess.run(
        ["/bin/sh", "-s"],
        input=script.replace("@MARK@", mark)
        .replace("@BLOCK@", block)
        .replace("@AGENTS@", "x.service"),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_script_runs_in_any_shell_and_its_answer_is_whole() -> None:
    done = ask()
    facts = observe.parse(done.stdout.splitlines())
    assert facts.kernel == os.uname().release
    assert facts.hostname == os.uname().nodename
    assert facts.filesystem > 0
    assert facts.cmdline
    assert done.stderr == ""


def test_without_any_tool_the_files_still_answer(tmp_path: Path) -> None:
    (tmp_path / "begun").write_text("one\n")
    (tmp_path / "done").write_text("two\tthree\n\nfour")
    done = ask(str(tmp_path), PATH=str(tmp_path))
    facts = observe.parse(done.stdout.splitlines())
    assert facts.kernel == os.uname().release
    assert facts.begun == "one"
    assert facts.done == "two three four"
    assert facts.filesystem == 0


def test_the_shell_finds_root_and_agents_in_what_tools_say(tmp_path: Path) -> None:
    disk = "printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\n%s\\n'"
    said = {
        "df": f"{disk} '/dev/root 2097152 1 1 1% /'",
        "findmnt": "echo /dev/mapper/vg-root",
        "ip": "echo '2: enp0s2    inet 10.0.2.15/24 metric 100 brd 10.0.2.255 scope global'",
        "systemctl": "echo active",
    }
    for name, script in said.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    facts = observe.parse(ask(PATH=str(tmp_path)).stdout.splitlines())
    assert facts.root == "/dev/mapper/vg-root"
    assert facts.filesystem == 2 * 1024**3
    assert facts.address == "enp0s2 10.0.2.15/24"
    assert facts.agents == ("x.service",)


def tools(directory: Path, said: dict[str, str]) -> str:
    """A PATH of these scripts before the usual one."""
    for name, script in said.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


@pytest.mark.parametrize("knows", [True, False])
def test_an_old_systemd_that_does_not_wait_is_asked_until_it_is_done(
    tmp_path: Path, knows: bool
) -> None:
    asked = tmp_path / "asked"
    option = "" if knows else 'case "$*" in *--wait*) exit 1;; esac; '
    script = f"""case "$1" in is-system-running) ;; *) exit;; esac
    {option}echo "$*" >> {asked}
    if [ $(wc -l < {asked}) -ge 3 ]; then echo running; else echo starting; fi"""
    path = tools(tmp_path, {"systemctl": script, "sleep": ":"})
    assert observe.parse(ask(wait="9", PATH=path).stdout.splitlines()).system == "running"
    assert len(asked.read_text().splitlines()) == 3


def test_a_systemd_that_waits_is_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = f'[ "$1" = is-system-running ] || exit; echo "$*" >> {asked}; echo degraded; exit 1'
    path = tools(tmp_path, {"systemctl": script})
    assert observe.parse(ask(wait="9", PATH=path).stdout.splitlines()).system == "degraded"
    assert asked.read_text() == "is-system-running --wait\n"


@pytest.mark.long
def test_a_systemd_that_never_settles_is_not_waited_for_twice(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = f"""[ "$1" = is-system-running ] || exit; echo "$*" >> {asked}
    if [ -n "$2" ]; then exec sleep 60; else echo starting; fi"""
    path = tools(tmp_path, {"systemctl": script})
    said = ask(wait="9", settle="1", PATH=path).stdout.splitlines()
    assert observe.parse(said).system == "starting"
    assert len(asked.read_text().splitlines()) == 2


def test_the_partition_behind_the_root_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "vda"
    starts = {"vda1": 4096, "vda2": 8192, "vda3": 2048, "vda4": 6144}
    for name, start in starts.items():
        (disk / name).mkdir(parents=True)
        (disk / name / "start").write_text(f"{start}\n")
        (disk / name / "size").write_text("2048\n")
        (tmp_path / name).symlink_to(disk / name)
    head = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    for root, behind in (("vda1", "vda4"), ("vda4", "vda2"), ("vda2", "")):
        df = f"printf '{head}\\n/dev/{root} 1 1 1 1%% /\\n'"
        said = ask(block=str(tmp_path), PATH=tools(tmp_path, {"df": df}))
        facts = observe.parse(said.stdout.splitlines())
        assert facts.root_end == (starts[root] + 2048) * 512
        assert facts.behind == behind
        assert said.stderr == ""


def test_sizes_become_bytes_and_lists_lists() -> None:
    lines = answer(root_start="2048", root_size="4096", filesystem="1024", console="tty0 ttyS0")
    units = ["failed\ta.service loaded", "failed\tb.mount loaded", "why\ta.service oh no"]
    facts = observe.parse([*units, *lines])
    assert (facts.root_end, facts.root_size) == (6144 * 512, 4096 * 512)
    assert facts.filesystem == 1024**2
    assert facts.consoles == ("tty0", "ttyS0")
    assert facts.failed == ("a.service", "b.mount")
    assert facts.reasons == ("a.service oh no",)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("DataSourceEc2Local", "Ec2"),
        ("DataSourceAzure [seed=/dev/sr0]", "Azure"),
        ("DataSourceNone", "None"),
    ],
)
def test_the_datasource_is_named_as_cloud_init_lists_it(source: str, name: str) -> None:
    status = {"v1": {"datasource": source, "init": {"errors": ["boom"]}, "stage": None}}
    facts = observe.parse(answer(status=json.dumps(status)))
    assert facts.datasource == name
    assert facts.errors == ("boom",)


def test_a_machine_id_has_an_age() -> None:
    assert observe.parse(answer(machine_id_made="100", booted="160")).machine_id_age == 60
    assert observe.parse(answer(machine_id_made="170", booted="160")).machine_id_age == -10


@pytest.mark.parametrize("text", ["", "{", '{"v1": []}', '{"v1": {"datasource": null}}'])
def test_an_unusable_status_is_no_datasource(text: str) -> None:
    assert observe.parse(answer(status=text)).datasource == ""


def test_an_answer_that_is_cut_short_is_an_error() -> None:
    with pytest.raises(BuildError, match="cut short"):
        observe.parse(["kernel\t6.1"])


def test_user_data_hold_marks_and_no_key() -> None:
    text = user_data("visitor", "0123")
    assert text.startswith("#cloud-config\n")
    config = json.loads(text.partition("\n")[2])
    assert config["user"]["name"] == "visitor"
    assert config["write_files"][0]["content"] == "0123"
    assert "0123" in config["runcmd"][0][2]
    assert "ssh_authorized_keys" not in text


def test_host_keys_are_the_images_choice_unless_some_are_asked_for() -> None:
    config = json.loads(user_data("visitor", "0123").partition("\n")[2])
    assert "ssh_genkeytypes" not in config
    config = json.loads(user_data("visitor", "0123", QUICK).partition("\n")[2])
    assert config["ssh_genkeytypes"] == ["ecdsa", "ed25519"]
