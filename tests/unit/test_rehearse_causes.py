"""Why a rehearsal failed, from the console and from the files of the guest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from publisher.proof.guest import Report
from publisher.proof.rehearse.causes import likely
from publisher.proof.rehearse.evidence import Evidence
from tests.unit.rehearsal_world import BOOTED, LOOK, Tree, facts, seen

CLOUD = {"/usr/bin/cloud-init": "", "/etc/cloud/cloud.cfg": "users: [default]\n"}
SOUND = {
    **CLOUD,
    "/usr/sbin/dhcpcd": "",
    "/usr/sbin/sshd": "",
    "/etc/systemd/system/multi-user.target.wants/ssh.service": "-> /lib/x",
    "/lib/systemd/system-generators/cloud-init-generator": "",
}
KERNEL = "GRUB \n[    0.000000] Linux version 6.1\n"


def cause(claim: str, directory: Path, files: dict[str, str], **how: object) -> str:
    how.setdefault("error", "no sign of life for 150 s")
    how.setdefault("console", BOOTED)
    found = likely(Evidence(claim, seen(directory, **how), Tree(files)))  # type: ignore[arg-type]
    if found is not None:
        assert found.fix
    return found.cause if found else ""


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("datasource_list: [ NoCloud, None ]\n", "NoCloud, None in /etc/cloud/cloud.cfg.d/90.cfg"),
        ("# by hand\ndatasource_list:\n  - NoCloud\n", "NoCloud in /etc/cloud/cloud.cfg.d/90.cfg"),
        ("datasource_list: ['ConfigDrive']  # x\n", "ConfigDrive in "),
    ],
)
@pytest.mark.parametrize("claim", ["network", "datasource", "user-data", "login"])
def test_a_pinned_datasource_is_named_with_its_file(
    tmp_path: Path, claim: str, text: str, where: str
) -> None:
    said = cause(claim, tmp_path, {**SOUND, "/etc/cloud/cloud.cfg.d/90.cfg": text})
    assert "cloud-init saw no datasource: datasource_list is pinned to" in said
    assert where in said
    assert "line " in said


def test_the_last_list_of_datasources_counts(tmp_path: Path) -> None:
    files = {
        **SOUND,
        "/etc/cloud/cloud.cfg.d/10.cfg": "datasource_list: [NoCloud]\n",
        "/etc/cloud/cloud.cfg.d/90.cfg": "datasource_list: [NoCloud, Nimbus]\n",
    }
    assert cause("login", tmp_path, files) == ""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**SOUND, "/etc/cloud/cloud-init.disabled": ""}, "cloud-init.disabled"),
        ({**SOUND, "/etc/systemd/system/cloud-init.service": "-> /dev/null"}, "is masked"),
        ({"/usr/sbin/sshd": ""}, "nothing in the image sets up a new machine"),
        ({k: v for k, v in SOUND.items() if "dhcpcd" not in k}, "no DHCP client"),
        (
            {
                **SOUND,
                "/etc/udev/rules.d/70-persistent-net.rules": 'ATTR{address}=="52:54:00:12:34:56"\n',
            },
            "bound to the card 52:54:00:12:34:56 in /etc/udev/rules.d/70-persistent-net.rules",
        ),
        (
            {**SOUND, "/etc/cloud/cloud.cfg.d/99.cfg": "network: {config: disabled}\n"},
            "no network card is configured",
        ),
    ],
)
def test_a_guest_that_never_spoke_to_the_cloud(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    assert said in cause("network", tmp_path, files)


def test_an_old_cloud_init_needs_dhclient(tmp_path: Path) -> None:
    version = "/usr/lib/python3/dist-packages/cloudinit/version.py"
    only_networkd = {
        **{k: v for k, v in SOUND.items() if "dhcpcd" not in k},
        "/usr/lib/systemd/systemd-networkd": "",
    }
    old = {**only_networkd, version: '__VERSION__ = "22.4.2"\n'}
    new = {**only_networkd, version: '__VERSION__ = "24.1"\n'}
    assert "no DHCP client" in cause("network", tmp_path, old)
    assert cause("network", tmp_path, new) == ""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**CLOUD, "/sbin/dhclient": ""}, "no ssh server is in the image"),
        ({**SOUND, "/etc/systemd/system/ssh.service": "-> /dev/null"}, "ssh.service is masked"),
        (
            {k: v for k, v in SOUND.items() if "wants" not in k},
            "the ssh server is in the image and not enabled",
        ),
    ],
)
def test_a_guest_without_an_ssh_server(tmp_path: Path, files: dict[str, str], said: str) -> None:
    assert said in cause("login", tmp_path, files)


@pytest.mark.parametrize(
    ("files", "reports", "said"),
    [
        (
            {"/etc/ssh/sshd_config": "# x\nPubkeyAuthentication no\n"},
            [],
            "/etc/ssh/sshd_config, line 2, refuses public keys",
        ),
        ({}, [], "nothing in the guest asked the cloud for the SSH key"),
        ({}, [Report(1.0, "key", "GET /key")], "the key was fetched and not put in place"),
    ],
)
def test_an_ssh_server_that_refuses(
    tmp_path: Path, files: dict[str, str], reports: list[Report], said: str
) -> None:
    found = cause(
        "login",
        tmp_path,
        {**SOUND, **files},
        error="sshd answers but refuses the login: Permission denied",
        reports=reports,
    )
    assert said in found


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("ALERT!  UUID=1-2 does not exist.  Dropping to a shell!\n", "no driver for nvme (nvme)"),
        (
            "[    1.0] nvme nvme0: pci function 0000:00:03.0\n"
            "ALERT!  UUID=1-2 does not exist.  Dropping to a shell!\n",
            "nothing on it is UUID=1-2",
        ),
        ("[    2.5] Kernel panic - not syncing: no init found\n", "panicked: no init found"),
    ],
)
def test_a_root_that_is_not_found(tmp_path: Path, console: str, said: str) -> None:
    assert said in cause("root", tmp_path, SOUND, console=KERNEL + console)


def test_the_missing_driver_is_that_of_the_clouds_controller(tmp_path: Path) -> None:
    scsi = dataclasses.replace(LOOK, disk="virtio-scsi")
    console = KERNEL + "ALERT!  /dev/disk/by-uuid/1 does not exist.  Dropping to a shell!\n"
    assert "virtio_scsi" in cause("root", tmp_path, SOUND, console=console, look=scsi)


@pytest.mark.parametrize(
    ("boot", "console", "said"),
    [
        ("bios", "Boot failed: not a bootable disk\n", "no boot loader for BIOS"),
        ("uefi", "BdsDxe: No bootable option or device was found.\n", "BOOTX64.EFI"),
        ("uefi-secure", "BdsDxe: failed to load Boot0001: Access Denied\n", "Secure Boot refuses"),
    ],
)
def test_a_firmware_that_finds_nothing(tmp_path: Path, boot: str, console: str, said: str) -> None:
    look = dataclasses.replace(LOOK, boot=boot)  # type: ignore[arg-type]
    assert said in cause("firmware", tmp_path, {}, console=console, look=look)


def test_a_loader_after_which_nothing_is_heard(tmp_path: Path) -> None:
    grub = {"/boot/grub/grub.cfg": "linux /vmlinuz root=UUID=1 ro quiet\n"}
    said = cause("kernel", tmp_path, grub, console="GRUB loading\n")
    assert "/boot/grub/grub.cfg has no console=ttyS0" in said
    missing = "GRUB \nerror: file `/boot/vmlinuz-6.1' not found.\n"
    assert "GRUB wants /boot/vmlinuz-6.1" in cause("kernel", tmp_path, grub, console=missing)


def test_a_device_of_fstab_that_is_not_there(tmp_path: Path) -> None:
    console = KERNEL + (
        "[ TIME ] Timed out waiting for device dev-disk-by\\x2duuid-9.device - /dev/disk/9.\n"
        "You are in emergency mode. After logging in\n"
    )
    assert "/etc/fstab names a device" in cause("login", tmp_path, SOUND, console=console)


def test_a_stalled_agent(tmp_path: Path) -> None:
    assert "no agent in the guest told" in cause("ready", tmp_path, SOUND, known=facts(), error="")
    conf = {**SOUND, "/etc/stratus-agent.conf": "Provisioning.Agent=disabled\n"}
    assert "/etc/stratus-agent.conf, line 1" in cause(
        "ready", tmp_path, conf, known=facts(), error=""
    )
    masked = {**SOUND, "/etc/systemd/system/stratus-agent.service": "-> /dev/null"}
    assert "is masked" in cause("ready", tmp_path, masked, known=facts(), error="")
    told = [Report(3.0, "not-ready", "no ovf-env.xml")]
    assert "no ovf-env.xml" in cause(
        "ready", tmp_path, SOUND, known=facts(), error="", reports=told
    )


def test_an_agent_that_asks_for_nothing(tmp_path: Path) -> None:
    wants = "/etc/systemd/system/multi-user.target.wants/stratus-agent.service"
    files = {**SOUND, wants: "-> /lib/x"}
    assert cause("login", tmp_path, files) == "", "cloud-init does its work"
    del files["/usr/bin/cloud-init"]
    files["/lib/systemd/system/stratus-agent.service"] = ""
    for claim in ("login", "network"):
        said = cause(claim, tmp_path, files)
        assert "stratus-agent.service is to set the machine up, and asked" in said
    assert "asked the cloud" not in cause("login", tmp_path, files, reports=[Report(1, "key", "")])


def test_a_unit_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    known = facts(failed=("web.service",), reasons=("web.service web: no such port",))
    said = cause("units", tmp_path, SOUND, known=known, error="")
    assert said == "web.service failed: web: no such port"


def test_an_init_that_lacks_a_library_is_named_rather_than_its_panic(tmp_path: Path) -> None:
    console = KERNEL + (
        "/sbin/init: error while loading shared libraries: libc.so.6: file too short\n"
        "[    2.5] Kernel panic - not syncing: Attempted to kill init!\n"
    )
    for claim in ("root", "network", "login"):
        assert "init can't run: libc.so.6: file" in cause(claim, tmp_path, SOUND, console=console)


def test_a_kernel_that_writes_elsewhere(tmp_path: Path) -> None:
    quiet = facts(cmdline="root=UUID=1 quiet")
    assert "no console=ttyS0: root=UUID=1 quiet" in cause(
        "console", tmp_path, SOUND, known=quiet, error=""
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("manual_cache_clean: true", "keep its first instance"),
        ("ssh_deletekeys: false", "keeps ssh host keys"),
        ("preserve_hostname: true", "keeps the host name"),
    ],
)
def test_what_freezes_an_identity(tmp_path: Path, line: str, said: str) -> None:
    files = {**SOUND, "/etc/cloud/cloud.cfg.d/80.cfg": f"{line}\n"}
    assert said in cause("identity", tmp_path, files, known=facts(), error="")


def test_a_disk_that_does_not_grow(tmp_path: Path) -> None:
    assert "growpart" in cause("growth", tmp_path, SOUND, known=facts(), error="")
    off = {**SOUND, "/usr/bin/growpart": "", "/etc/cloud/cloud.cfg": "growpart:\n  mode: off\n"}
    assert "/etc/cloud/cloud.cfg, line 2" in cause("growth", tmp_path, off, known=facts(), error="")


def test_a_disk_without_room_to_grow(tmp_path: Path) -> None:
    known = facts(behind="nvme0n1p3")
    found = cause("growth", tmp_path, SOUND, known=known, error="")
    assert "no room to grow: nvme0n1p3 is behind it" in found


def test_a_button_that_nobody_hears(tmp_path: Path) -> None:
    said = cause("shutdown", tmp_path, SOUND, known=facts(), error="")
    assert "neither dbus nor acpid is installed" in said
    heard = {**SOUND, "/usr/bin/dbus-daemon": ""}
    assert cause("shutdown", tmp_path, heard, known=facts(), error="") == ""
