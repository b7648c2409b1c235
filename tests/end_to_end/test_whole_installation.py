"""Debian from an empty disk by its own installer, asking nobody: the sample pipeline and
preseed, the real kernel, initrd and udebs; then a step, sealing, and a boot.

It skips where the archive does not have the udebs that it lists. Of those that are
loaded without being of use here it may lack some, and of e2fsprogs, whose mke2fs then
comes from the packages that the udeb was built with.
"""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.build import grow
from publisher.disks.store import Store
from publisher.memory import Memory
from publisher.model import Disk
from publisher.task import Task
from publisher.vm.boot import boot_check
from tests.end_to_end import netboot
from tests.end_to_end.command import ROOT, Ended, publish
from tests.end_to_end.netboot import NETBOOTS, Netboot, Udebs

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

SAMPLE = ROOT / "pipelines" / "installer.toml"
PRESEED = ROOT / "pipelines" / "files" / "preseed.cfg"
IDLE = {"libmount1-udeb", "ntfs-3g-udeb", "xfsprogs-udeb"}
"""Loaded with partman; but nothing here has NTFS, XFS or disks behind iSCSI."""
PROGRAMS = "e2fsprogs-udeb"
LIBRARIES = {"bookworm": ("libext2fs2", "libcom-err2"), "trixie": ("libext2fs2t64", "libcom-err2")}
MORE = r"""
d-i mirror/udeb/suite string {udebs}
d-i preseed/early_command string wget -q -O /tmp/early {url}/early.sh && sh -e /tmp/early
"""
# partman would load LVM and encryption, and with them newer libraries than its initrd has.
EARLY = r"""
trap 'wget -q -O /dev/null --post-data "line $LINENO" {failed}' EXIT
for package in {packages}; do
    wget -q -O /tmp/package http://{mirror}/debian/$package
    ar -p /tmp/package data.tar.xz | xzcat | tar -x -C /
done
for name in {missing}; do
    printf 'Package: %s\nStatus: install ok installed\nVersion: 99\n\n' $name
done >> /var/lib/dpkg/status
mkdir -p /var/lib/partman
: > /var/lib/partman/loaded-extra
trap - EXIT
"""


@dataclass
class Installed:
    ended: Ended
    disk: Disk
    directory: Path

    @property
    def phases(self) -> list[str]:
        return [event["phase"] for event in self.ended.named("StepPhase")]

    def read(self, path: str) -> str:
        (root,) = grow.ext_partitions(self.disk.path)
        argv = ["debugfs", "-R", f"cat {path}", f"{self.disk.path}?offset={root.offset}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def usable(source: Netboot, linux: Path, initrd: Path) -> Udebs:
    """Skips where an installation could not end well."""
    found = netboot.look(source, linux, initrd)
    if isinstance(found, str):
        pytest.skip(found)
    wanting = sorted(set(found.missing) - IDLE - {PROGRAMS})
    if wanting:
        pytest.skip(
            f"the archive does not have {len(found.missing)} of the {len(found.needed)} udebs "
            f"that {source}'s installer asks for: {', '.join(wanting[:5])}, …"
        )
    return found


def write(source: Netboot, directory: Path) -> Path:
    """The sample for this installer."""
    linux, initrd = source.bring(directory)
    udebs = usable(source, linux, initrd)
    lost = PROGRAMS in udebs.missing
    programs = netboot.packages(source.suite, "e2fsprogs", *LIBRARIES[source.suite]) if lost else ()
    variables = {
        "udebs": udebs.suite,
        "packages": " ".join(programs),
        "missing": " ".join(udebs.missing),
    }
    text = SAMPLE.read_text()
    installer = tomllib.loads(text)["build"]["source"]["installer"]
    text = text.replace(installer["kernel"], str(linux)).replace(installer["initrd"], str(initrd))
    files = {"files/preseed.cfg": PRESEED.read_text() + MORE, "files/early.sh": EARLY}
    (directory / "files").mkdir()
    for name, content in files.items():
        (directory / name).write_text(content)
    given = "".join(f', {name} = "{value}"' for name, value in variables.items())
    text = text.replace(
        ' = "files/preseed.cfg"', ' = "files/preseed.cfg", "early.sh" = "files/early.sh"'
    )
    text = text.replace(f'"{netboot.HOST}" }}', f'"{netboot.HOST}"{given} }}')
    pipeline = directory / "installer.toml"
    pipeline.write_text(text)
    return pipeline


@pytest.fixture(scope="module", params=NETBOOTS, ids=str)
def source(request: pytest.FixtureRequest) -> Netboot:
    found: Netboot = request.param
    if not netboot.reachable():
        pytest.skip(f"{netboot.MIRROR} is out of reach")
    if found.absent:
        pytest.skip(found.absent)
    return found


@pytest.fixture(scope="module")
def installed(source: Netboot, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    directory = tmp_path_factory.mktemp(str(source))
    state = directory / "state"
    ended = publish("build", str(write(source, directory)), "--state", str(state))
    disk = Store(state).get(ended.named("DiskBuilt")[0]["sha256"])
    assert disk is not None
    return Installed(ended, disk, directory)


def test_the_installer_goes_through_all_of_its_stages(installed: Installed) -> None:
    told = "\n".join(installed.phases)
    stages = ("Loading additional components", "Installing the base system", "Installing GRUB")
    at = [told.find(stage) for stage in (*stages, "installing: done", "sealing")]
    assert at == sorted(at)
    assert at[0] >= 0


def test_a_customer_logs_in_to_what_it_installed(installed: Installed, source: Netboot) -> None:
    task = Task("boot", Memory(installed.directory / "memory"))
    scratch = installed.directory / "boots"
    booted = boot_check(installed.disk, firmware="bios", task=task, scratch=scratch)
    assert source.suite in booted.system
    assert booted.firmware == "bios"
    assert booted.cloud_init == "done"


def test_the_step_and_the_answers_are_in_the_image_and_no_way_in(installed: Installed) -> None:
    assert "Package: nginx-light\nStatus: install ok installed" in installed.read(
        "/var/lib/dpkg/status"
    )
    root, *_ = installed.read("/etc/shadow").splitlines()
    assert root.split(":")[:2] == ["root", "*"]
    assert not installed.read("/root/.ssh/authorized_keys")
    assert "enp" not in installed.read("/etc/network/interfaces")
