"""Debian of other suites and architectures than the demo's: built, sealed and booted for real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from publisher.build import build
from publisher.build.builder import EVIDENCE
from publisher.build.layout import ROOT_OFFSET
from publisher.disks.store import Store
from publisher.memory import Memory
from publisher.model import Arch, Disk, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm.boot import BootReport, boot_check

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

ASK = "uname -m; . /etc/os-release; echo $VERSION_CODENAME; systemctl is-active systemd-resolved"


@dataclass
class Built:
    """A sealed disk, what its check printed during the build, and how it boots."""

    disk: Disk
    evidence: tuple[str, ...]
    booted: BootReport


def make(suite: str, arch: Arch, directory: Path) -> Built:
    """Built with as few steps as there can be, and booted once as a customer does."""
    recipe = Recipe.model_validate(
        {
            "source": {"debian": {"suite": suite}},
            "size": "2GiB",
            "steps": [{"check": ASK}],
        }
    )
    memory = Memory(directory / "memory")
    task = Task("build", memory)
    spec = Spec(suite, "1.0", arch=arch, size=recipe.size)
    disk = build(recipe, spec, directory=directory, store=Store(directory / "state"), task=task)
    (shown,) = memory.get(EVIDENCE)
    booted = boot_check(
        disk, firmware="uefi", secure=True, arch=arch, task=task, scratch=directory / "boots"
    )
    return Built(disk, tuple(shown["lines"]), booted)


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Arch, Any]]:
    """Both at once: while one emulates, the other one often waits for the network."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            arch: pool.submit(make, suite, arch, tmp_path_factory.mktemp(suite))
            for suite, arch in CASES
        }


CASES: tuple[tuple[str, Arch], ...] = (("trixie", "aarch64"), ("bullseye", "x86_64"))


@pytest.mark.parametrize(("suite", "arch"), CASES)
def test_it_is_built_and_boots_by_uefi_with_secure_boot(
    suite: str, arch: Arch, debians: Mapping[Arch, Any]
) -> None:
    built: Built = debians[arch].result()
    assert built.evidence == (arch, suite, "active")
    assert suite in built.booted.system
    assert built.booted.firmware == "uefi"
    assert built.booted.secure_boot
    assert built.booted.cloud_init == "done"


def test_a_disk_without_bios_names_its_root_as_its_architecture_does(
    debians: Mapping[Arch, Any],
) -> None:
    disk = debians["aarch64"].result().disk
    told = subprocess.run(
        ["sfdisk", "--dump", str(disk.path)], capture_output=True, text=True, check=True
    ).stdout
    assert "type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE" in told
    assert "type=21686148" not in told


def test_old_packages_find_programs_where_new_ones_look(debians: Mapping[Arch, Any]) -> None:
    disk = debians["x86_64"].result().disk
    argv = ["debugfs", "-R", "stat /bin", f"{disk.path}?offset={ROOT_OFFSET}"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "Type: symlink" in told
    assert '"usr/bin"' in told
