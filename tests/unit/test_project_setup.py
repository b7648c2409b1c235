"""What installs and checks the project: package lists, pins, workflows, make targets."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from publisher.vm import host
from publisher.vm.arch import is_native

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==\S+", re.MULTILINE)


def debian_packages() -> list[str]:
    lines = (ROOT / "requirements/debian.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pins(name: str) -> set[str]:
    return set(PIN.findall((ROOT / f"requirements/{name}.txt").read_text()))


def normal(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_each_debian_package_is_named_once_and_alone_on_its_line() -> None:
    packages = debian_packages()
    assert len(packages) == len(set(packages))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package) for package in packages)


def test_make_and_doctor_agree_on_what_a_machine_needs() -> None:
    text = (ROOT / "requirements/debian.txt").read_text()
    groups = [group.split("\n")[1:] for group in text.split("# ")]
    [to_build] = [group for group in groups if "mmdebstrap" in group]
    [to_boot] = [group for group in groups if "qemu-utils" in group]
    [to_emulate] = [group for group in groups if "qemu-user-static" in group]
    looked_for = {requirement.package for requirement in host.requirements(user=True)}
    assert set(filter(None, [*to_build, *to_boot])) == looked_for
    foreign = {requirement.package for requirement in host.requirements("aarch64", user=True)}
    if not is_native("aarch64"):
        assert set(filter(None, to_emulate)) == foreign - looked_for


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    extras = project["project"]["optional-dependencies"]
    # what `all` leaves out is nobody's default, and brings fifty packages of its own
    for extra in extras.keys() - {"sigstore"}:
        wanted += extras[extra]
    names = {normal(requirement) for requirement in wanted} - {"cloud-image-publisher"}
    assert names <= pins("run")


def test_every_tool_is_pinned() -> None:
    tools = (ROOT / "requirements/dev.in").read_text().splitlines()
    assert {normal(tool) for tool in tools if not tool.startswith("#")} <= pins("dev")


@pytest.mark.parametrize("name", ["run", "dev"])
def test_each_pin_carries_digests_and_no_file_names_an_index(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    requirements = re.split(
        r"^(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )
    for requirement in filter(None, requirements):
        assert re.match(
            r"\S+==\S+( ; [^\\\n]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+$", requirement
        )
    assert "://" not in text


def test_every_target_that_make_lists_exists() -> None:
    run = ["make", "-C", str(ROOT), "--no-print-directory"]
    listed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    targets = [line.split()[0] for line in listed.splitlines()]
    assert {"demo", "test", "check", "fresh"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_make_test_runs_each_test_that_make_check_leaves_out() -> None:
    def pytests(target: str) -> list[str]:
        text = (ROOT / "Makefile").read_text()
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
        assert recipe
        return [line for line in recipe[1].splitlines() if "/pytest " in line]

    (checked,) = pytests("check")
    whole, guests = pytests("test")
    assert '-m "not long" tests/unit' in checked
    assert " tests/unit " in whole
    assert " -m " not in whole
    assert '-m "not slow" tests/end_to_end' in guests


def run_setup(tmp_path: Path, *, user: int, missing: str, sudo: str = "") -> tuple[int, str, str]:
    """tools/setup host among stand-ins: exit status, its words, what apt-get was asked."""
    asked = tmp_path / "asked"
    asked.touch()
    commands = {
        "id": f"echo {user}",
        "dpkg-query": f'[ "$4" != {missing} ] && echo install ok installed',
        "apt-get": f'echo "$*" >>{asked}',
        "env": 'shift; exec "$@"',
        "sudo": sudo,
    }
    for name, script in commands.items():
        if script:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
    for name in ("sh", "sed", "dirname"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    run = subprocess.run(
        [tmp_path / "sh", ROOT / "tools/setup", "host"],
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stderr, asked.read_text()


def test_root_installs_what_is_missing_and_only_that(tmp_path: Path) -> None:
    status, _, asked = run_setup(tmp_path, user=0, missing="mtools")
    assert status == 0
    update, install = asked.splitlines()
    assert update.endswith("update")
    assert install.endswith("install --no-install-recommends --yes mtools")


def test_a_user_with_sudo_installs_by_it(tmp_path: Path) -> None:
    sudo = 'case $1 in -n) exit 0 ;; *) exec "$@" ;; esac'
    status, _, asked = run_setup(tmp_path, user=1000, missing="mtools", sudo=sudo)
    assert status == 0
    assert asked.splitlines()[1].endswith("mtools")


@pytest.mark.parametrize("sudo", ["", "exit 1"], ids=["without sudo", "sudo wants a password"])
def test_a_user_without_root_is_told_what_to_run(tmp_path: Path, sudo: str) -> None:
    status, said, asked = run_setup(tmp_path, user=1000, missing="mtools", sudo=sudo)
    assert status == 1
    assert "apt-get update && apt-get install --no-install-recommends mtools" in said
    assert asked == ""


def test_nothing_is_asked_of_apt_when_nothing_is_missing(tmp_path: Path) -> None:
    assert run_setup(tmp_path, user=1000, missing="nothing") == (0, "", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_workflow_pins_its_actions_and_grants_by_job(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    for line in re.findall(r"uses: .*", text):
        assert re.fullmatch(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= (150 if path.stem == "slow" else 60)
        assert "permissions" in job
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_only_a_protected_environment_may_publish_or_reach_a_real_cloud() -> None:
    jobs = {}
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            jobs[f"{path.stem}/{name}"] = job
    signing = {name for name, job in jobs.items() if job["permissions"].get("id-token")}
    assert signing == {"release/build", "release/publish", "live/aws", "live/gcp", "live/azure"}
    for name in signing - {"release/build"}:
        assert "environment" in jobs[name], name
