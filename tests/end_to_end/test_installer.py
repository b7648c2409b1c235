"""Debian's own installer, its real kernel and initrd, run unattended with a preseed.

What it puts on the disk is an image that another test has built, so that the
suite does not wait for a whole installation: the preseed's early_command writes
it, as an installer would, and makes a system of it that knows no cloud-init.
"""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from publisher.build import build
from publisher.build.layout import ROOT_OFFSET
from publisher.disks.store import Store
from publisher.errors import BuildError
from publisher.events import Event, StepPhase
from publisher.memory import Memory
from publisher.model import MIB, Disk, Spec
from publisher.recipe import Recipe
from publisher.task import Task

NETBOOT = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.qemu,
    pytest.mark.skipif(
        not NETBOOT.is_dir(), reason="debian-installer-12-netboot-amd64 is not installed"
    ),
]

ARGUMENTS = (
    "auto=true priority=critical url={url}/preseed.cfg DEBIAN_FRONTEND=text TERM=dumb "
    "console=ttyS0,115200 ipv6.disable=1"
)
PRESEED = r"""
d-i debian-installer/language string en
d-i debian-installer/country string US
d-i debian-installer/locale string C.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/get_hostname string localhost
d-i netcfg/get_domain string
d-i preseed/early_command string wget -q -O /tmp/install {url}/install.sh && sh /tmp/install
"""
# The installer's initrd has no drivers for disks: its packages have them.
INSTALL = r"""
set -eu
fail() { wget -q -O /dev/null --post-data "line $1" {failed}; exit 1; }
trap 'fail $LINENO' EXIT
mirror=http://{mirror}/debian
wget -q -O /tmp/index.gz $mirror/dists/bookworm/main/debian-installer/binary-amd64/Packages.gz
for name in crc scsi-core scsi ext4; do
    file=$(zcat /tmp/index.gz |
        sed -n "/^Package: $name-modules-$(uname -r)-di\$/,/^\$/s/^Filename: //p" | head -n 1)
    wget -q -O /tmp/modules.udeb $mirror/$file
    udpkg --unpack /tmp/modules.udeb
done
depmod
modprobe virtio_blk
modprobe ext4
echo "Writing the disk  ... 0%" > /dev/console
for part in {parts}; do
    wget -q -O - {url}/$part | dd of=/dev/vda bs=64k seek=$((${part#part-} * 16)) conv=notrunc
done
sync
blockdev --rereadpt /dev/vda
sleep 1
echo "Configuring the system  ... 0%" > /dev/console
mkdir /target
mount -t ext4 /dev/vda1 /target
mount --bind /dev /target/dev
chroot /target sh -eu <<'END'
useradd --create-home --shell /bin/sh builder
echo 'builder ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/builder
mkdir -m 700 /home/builder/.ssh
echo '{ssh_public_key}' > /home/builder/.ssh/authorized_keys
chown -R builder: /home/builder/.ssh
echo '{token}' > /root/token
rm /root/token
ssh-keygen -A
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' > /etc/systemd/network/50-dhcp.network
END
umount /target/dev
umount /target
trap - EXIT
wget -q -O /dev/null {done}
poweroff -f
"""
TOKEN = "correct-horse-battery-staple"
STEPS: list[dict[str, Any]] = [
    {"run": "id -un > /etc/made-by; test ! -e /usr/bin/cloud-init"},
]


@dataclass
class World:
    directory: Path
    events: list[Event] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def phases(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, StepPhase)]

    def write(self, disk: Path) -> None:
        """The files of the pipeline; `disk` is what the installer will write."""
        files = self.directory
        files.mkdir(parents=True, exist_ok=True)
        (files / "preseed.cfg").write_text(PRESEED)
        (files / "install.sh").write_text(INSTALL)
        system = files / "system.raw"
        subprocess.run(["cp", "--sparse=always", str(disk), str(system)], check=True)
        for path in (
            "/usr/bin/cloud-init",
            "/usr/lib/systemd/system-generators/cloud-init-generator",
        ):
            argv = ["debugfs", "-w", "-R", f"rm {path}", f"{system}?offset={ROOT_OFFSET}"]
            subprocess.run(argv, check=True, capture_output=True)
        self._split(system)
        system.unlink()

    def _split(self, disk: Path) -> None:
        """Files part-N with what the disk holds from its N-th MiB on: no holes."""
        part = None
        with disk.open("rb") as raw:
            for number in range(disk.stat().st_size // MIB):
                piece = raw.read(MIB)
                if not piece.strip(b"\0"):
                    part = None
                    continue
                if part is None:
                    part = self.directory / f"part-{number}"
                    self.parts.append(part.name)
                with part.open("ab") as file:
                    file.write(piece)

    def variables(self, mirror: str) -> dict[str, str]:
        return {"mirror": mirror, "parts": " ".join(self.parts)}

    def build(self, size: int, *steps: dict[str, Any], **changes: Any) -> Disk:
        installer: dict[str, Any] = {
            "kernel": str(NETBOOT / "linux"),
            "initrd": str(NETBOOT / "initrd.gz"),
            "arguments": ARGUMENTS,
            "files": {name: name for name in ("preseed.cfg", "install.sh", *self.parts)},
            "variables": self.variables("deb.debian.org"),
            "secrets": {"token": {"environment": "INSTALLER_TOKEN"}},
            "user": "builder",
            "timeout": "30min",
        }
        return self.install({**installer, **changes}, size, *steps)

    def install(self, installer: dict[str, Any], size: int, *steps: dict[str, Any]) -> Disk:
        recipe = Recipe.model_validate(
            {"source": {"installer": installer}, "size": size, "steps": steps}
        )
        return build(
            recipe,
            Spec("installed", "1.0", size=size),
            directory=self.directory,
            store=Store(self.directory / "state"),
            task=Task("build", Memory(self.directory / "memory"), sink=self.events.append),
        )


def inside(disk: Disk, command: str) -> str:
    argv = ["debugfs", "-R", command, f"{disk.path}?offset={ROOT_OFFSET}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout or done.stderr


def holds(path: Path, needle: bytes) -> bool:
    """Whether the bytes occur anywhere in the file, free blocks included."""
    rest = b""
    with path.open("rb") as file:
        while data := file.read(1 << 24):
            if needle in rest + data:
                return True
            rest = data[-1000:]
    return False


@pytest.fixture(scope="module")
def world(sealed: Disk, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("installer"))
    made.write(sealed.path)
    return made


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTALLER_TOKEN", TOKEN)


def test_debians_installer_makes_a_disk_that_is_stepped_and_sealed(
    world: World, sealed: Disk
) -> None:
    disk = world.build(sealed.size, *STEPS)
    assert inside(disk, "cat /etc/made-by") == "root\n"
    for phase in ("preseed.cfg was fetched", "Writing the disk", "Configuring the system", "done"):
        assert f"installing: {phase}" in world.phases
    keys = inside(disk, "cat /home/builder/.ssh/authorized_keys")
    assert "ssh-ed25519" not in keys
    assert "builder ALL" in inside(disk, "cat /etc/sudoers.d/builder")
    for trace in ("/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"):
        assert "Inode:" not in inside(disk, f"stat {trace}")
    assert not holds(disk.path, TOKEN.encode())
    assert TOKEN not in str(world.events)


def test_other_steps_are_done_without_installing_or_booting_again(
    world: World, sealed: Disk
) -> None:
    world.events.clear()
    with pytest.raises(BuildError, match="status 4"):
        world.build(sealed.size, {"run": "exit 4"})
    assert "resuming the machine as it was booted" in world.phases
    assert not any(phase.startswith("installing") for phase in world.phases)


def test_an_installer_out_of_an_iso_that_reports_a_failure_is_believed(
    world: World, sealed: Disk
) -> None:
    world.events.clear()
    iso = pycdlib.PyCdlib()
    iso.new(rock_ridge="1.09")
    for name in ("linux", "initrd.gz"):
        inside_iso = f"/{name.upper().ljust(8, '_')[:8]}.;1"
        iso.add_file(str(NETBOOT / name), inside_iso, rr_name=name)
    iso.write(str(world.directory / "netboot.iso"))
    iso.close()
    with pytest.raises(BuildError, match="reported a failure:\nline") as caught:
        world.build(
            sealed.size,
            iso="netboot.iso",
            kernel="/linux",
            initrd="/initrd.gz",
            variables=world.variables("mirror.invalid"),
        )
    assert caught.value.key == "build.source.installer"
    assert "installing: install.sh was fetched" in world.phases
    assert not list((world.directory / "state" / "store" / "scratch").glob("build-*"))


SAYS = b"\r\n!! ERROR: This CD is for people.\r\n"
# A boot sector that writes what follows it to the serial port, and stops:
#   xor ax,ax; mov ds,ax; mov si,0x7c16; cld
#   1: lodsb; test al,al; jz 2f; mov dx,0x3f8; out dx,al; jmp 1b; 2: hlt; jmp 2b
SECTOR = bytes.fromhex("31c08ed8be167cfcac84c07406baf803eeebf5f4ebfd") + SAYS + b"\0"


def test_a_cd_boots_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    iso = pycdlib.PyCdlib()
    iso.new()
    iso.add_fp(io.BytesIO(SECTOR.ljust(2048, b"\0")), 2048, "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1")
    iso.write(str(tmp_path / "cd.iso"))
    iso.close()
    with pytest.raises(BuildError, match="the installer stopped: This CD is for people"):
        world.install({"iso": "cd.iso"}, 16 * MIB)
