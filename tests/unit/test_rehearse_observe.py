"""What a guest answers about itself, asked of this computer and of made-up answers."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from publisher.errors import BuildError
from publisher.proof.rehearse import observe
from publisher.proof.rehearse.userdata import user_data


def answer(**given: str) -> list[str]:
    return [*(f"{key}\t{value}" for key, value in given.items()), "end\tyes"]


def test_the_script_runs_in_any_shell_and_its_answer_is_whole() -> None:
    script = observe._SCRIPT.replace("@WAIT@", "0").replace("@SETTLE@", "1")
    done = subprocess.run(
        ["sh", "-s"],
        input=script.replace("@MARK@", "/nonexistent").replace("@AGENTS@", "x.service"),
        capture_output=True,
        text=True,
        check=True,
    )
    facts = observe.parse(done.stdout.splitlines())
    assert facts.kernel == os.uname().release
    assert facts.hostname == os.uname().nodename
    assert facts.filesystem > 0
    assert facts.cmdline
    assert done.stderr == ""


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
