"""A disk built by somebody else's tool, Debian's vmdb2, as its manual says: proved as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher import provider
from publisher.cli.disk_files import opened
from publisher.model import Disk, Severity, Spec
from publisher.proof.abilities import boots_of
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.inventory.collect import collect
from publisher.proof.lint import lint
from publisher.proof.rehearse import rehearse
from publisher.proof.secrets import Known, search
from publisher.rehearsal import Rehearse
from publisher.task import Task, detached

SPECIFICATION = """
steps:
  - mklabel: msdos
    device: "{{ image }}"
  - mkpart: primary
    device: "{{ image }}"
    start: 1MiB
    end: 100%
    tag: root
  - mkfs: ext4
    partition: root
    options: -U {{ uuid }}
  - mount: root
  - debootstrap: bookworm
    mirror: http://deb.debian.org/debian
    target: root
  - apt: install
    packages:
      - cloud-guest-utils
      - cloud-init
      - dbus
      - linux-image-cloud-amd64
      - openssh-server
      - sudo
    tag: root
    recommends: false
  - fstab: root
  - grub: bios
    tag: root
    console: serial
    image-dev: "{{ image }}"
  - chroot: root
    shell: |
      echo localhost > /etc/hostname
      echo LANG=C.UTF-8 > /etc/default/locale
      rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
      : > /etc/machine-id
"""
SIZE = 2 << 30
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("vmdb2", "zerofree", "parted", "losetup", "partx")
LACKING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.qemu,
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="vmdb2 must be root"),
]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PATH": PATH})


@contextlib.contextmanager
def as_device(file: Path) -> Iterator[Path]:
    """The file as a loop device with partitions: vmdb2 then needs no device mapper."""
    attached = run("losetup", "--find", "--show", str(file))
    if attached.returncode:
        pytest.skip(f"no loop device is to be had: {attached.stderr.strip()}")
    device = Path(attached.stdout.strip())
    try:
        yield device
    finally:
        run("partx", "--delete", str(device))
        run("losetup", "--detach", str(device))


@contextlib.contextmanager
def named_by(identifier: str, partition: str) -> Iterator[None]:
    """The link by which grub-mkconfig knows a file system, where no udev makes it."""
    if Path("/run/udev/control").exists():
        yield
        return
    link = Path("/dev/disk/by-uuid", identifier)
    made = [directory for directory in (link.parent, link.parent.parent) if not directory.exists()]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(partition)
    try:
        yield
    finally:
        link.unlink()
        for directory in made:
            directory.rmdir()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return detached(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Iterator[Disk]:
    directory = tmp_path_factory.mktemp("foreign")
    specification, image = directory / "cloud.vmdb", directory / "vmdb2.raw"
    specification.write_text(SPECIFICATION)
    with image.open("wb") as file:
        file.truncate(SIZE)
    identifier = str(uuid.uuid4())
    with as_device(image) as device, named_by(identifier, f"{device}p1"):
        words = ("--image", str(device), "--variable", f"uuid={identifier}", "--verbose")
        built = run("vmdb2", str(specification), *words)
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    image.chmod(0o400)
    with opened(image, directory / "state", task) as found:
        yield found
    image.unlink()


def name_servers() -> set[str]:
    """Those of this machine."""
    lines = map(str.split, Path("/etc/resolv.conf").read_text().splitlines())
    return {words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1}


def guest(cloud: str) -> Guest:
    kind = provider.load(cloud)
    assert issubclass(kind, Rehearsable)
    return kind.guest(None)


def test_lint_says_of_it_what_is_true_and_nothing_else(disk: Disk, task: Task) -> None:
    found = lint(disk, [guest(cloud) for cloud in ("aws", "azure", "gcp")], (), task)
    told = [finding for finding in found if finding.severity is not Severity.NOTE]
    # debootstrap leaves there what it had itself: whether it shows depends on this machine
    left = [finding for finding in told if finding.rule == "network.resolver"]
    assert all(finding.evidence.split()[0] in name_servers() for finding in left)
    said = {finding.rule for finding in told if finding not in left}
    assert said == {"aws.nvme-timeout", "aws.ssh-passwords", "azure.ssh-keepalive"}
    assert not [finding for finding in found if finding.severity is Severity.ERROR]
    (generation,) = [finding for finding in found if finding.rule == "azure.generation"]
    assert "by BIOS only" in generation.evidence


def test_no_file_of_debians_is_taken_for_a_secret(disk: Disk, task: Task) -> None:
    found = search(disk, Known(), task)
    assert [finding for finding in found if finding.severity is not Severity.NOTE] == []


def test_its_packages_are_listed(disk: Disk, task: Task) -> None:
    inventory = collect(disk, task)
    assert inventory.gaps == ()
    assert {"cloud-init", "grub-pc", "openssh-server"} <= {c.name for c in inventory.components}


def test_it_boots_as_a_machine_of_a_cloud(disk: Disk, task: Task, tmp_path: Path) -> None:
    """By BIOS, from an MBR: what no image of this project's own builder is tried by."""
    firmware = boots_of(disk.path, task).firmware
    assert firmware == "bios"
    (verdict,) = rehearse(
        disk,
        [guest("gcp")],
        Spec("vmdb2", "", firmware=firmware, size=disk.size),
        Rehearse(second_boot=False),
        task,
        scratch=tmp_path,
        logs=tmp_path / "logs",
    )
    assert verdict.failures == ()
    assert verdict.machine.endswith("BIOS")
    proved = {claim.id for claim in verdict.claims if claim.status.value == "proved by boot"}
    assert {"datasource", "login", "growth", "units", "shutdown"} <= proved
