"""Why a rehearsal failed, from the console and from the files of the guest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from publisher.proof.guest import Look, Report
from publisher.proof.rehearse.causes import likely
from publisher.proof.rehearse.evidence import Cause, Evidence
from tests.unit.rehearsal_world import BOOTED, LOOK, Tree, facts, seen

CLOUD = {"/usr/bin/cloud-init": "", "/etc/cloud/cloud.cfg": "users: [default]\n"}
SOUND = {
    **CLOUD,
    "/usr/sbin/dhcpcd": "",
    "/usr/sbin/sshd": "",
    "/etc/systemd/system/multi-user.target.wants/ssh.service": "-> /lib/x",
    "/lib/systemd/system-generators/cloud-init-generator": "",
}
KEY = Report(1.0, "key", "GET /key")
KERNEL = "GRUB \n[    0.000000] Linux version 6.1\n"


def why(claim: str, directory: Path, files: dict[str, str] | Tree, **how: object) -> Cause | None:
    how.setdefault("error", "no sign of life for 150 s")
    how.setdefault("console", BOOTED)
    tree = files if isinstance(files, Tree) else Tree(files)
    return likely(Evidence(claim, seen(directory, **how), tree))  # type: ignore[arg-type]


def cause(claim: str, directory: Path, files: dict[str, str] | Tree, **how: object) -> str:
    found = why(claim, directory, files, **how)
    if found is not None:
        assert found.fix
    return found.cause if found else ""


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("datasource_list: [ NoCloud, None ]\n", "NoCloud, None in /etc/cloud/cloud.cfg.d/90.cfg"),
        ("# by hand\ndatasource_list:\n  - NoCloud\n", "NoCloud in /etc/cloud/cloud.cfg.d/90.cfg"),
        ("datasource_list: ['ConfigDrive']  # x\n", "ConfigDrive in "),
        ("datasource_list: [ Ec2,\n  GCE,  # x\n  None ]\n", "Ec2, GCE, None in "),
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


def test_a_list_of_datasources_may_go_on_in_the_next_lines(tmp_path: Path) -> None:
    listed = "datasource_list: [ 'Ec2',\n    'GCE', 'Nimbus' ]\n"
    assert cause("datasource", tmp_path, {**SOUND, "/etc/cloud/cloud.cfg": listed}) == ""


@pytest.mark.parametrize(
    ("files", "cmdline", "said"),
    [
        ("datasource: NoCloud\n", "", "use NoCloud in /etc/cloud/ds-identify.cfg, line 1"),
        ("policy: enabled\ndatasource: Nimbus\n", "", ""),
        ("policy: disabled\n", "", "switched off in /etc/cloud/ds-identify.cfg, line 1"),
        ("", "root=/x ds=nocloud;s=http://x/", "use nocloud by ds=nocloud on"),
        ("", "ci.ds=GCE root=/x", "use gce by ci.ds=GCE on the kernel command line"),
        ("", "root=/x ds=nimbus fds=other", ""),
        ("", "cloud-init=disabled", "switched off by cloud-init=disabled"),
    ],
)
@pytest.mark.parametrize("told", ["guest", "console", "grub"])
def test_who_tells_cloud_init_its_datasource_is_named(
    tmp_path: Path, files: str, cmdline: str, said: str, told: str
) -> None:
    tree = {**SOUND, "/etc/cloud/ds-identify.cfg": files}
    known, console = None, BOOTED
    if told == "guest":
        known = facts(cmdline=cmdline, datasource="None")
    elif told == "console":
        console += f"[    0.000000] Kernel command line: {cmdline}\n"
    else:
        tree["/boot/grub/grub.cfg"] = f"\tlinux /vmlinuz {cmdline.replace(';', chr(92) + ';')}\n"
    found = cause("datasource", tmp_path, tree, known=known, console=console)
    assert said in found
    assert bool(said) == bool(found)


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
            {**SOUND, "/etc/systemd/network/1.network": "Name=en*\nAddress=10.0.2.15/24\n"},
            "the address 10.0.2.15 for good (/etc/systemd/network/1.network, line 2)",
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


AZURE = dataclasses.replace(
    LOOK,
    disk="virtio-scsi",
    stand_ins={"virtio_scsi": "hv_storvsc", "virtio_net": "hv_netvsc"},
)
LOST = KERNEL + "ALERT!  UUID=1-2 does not exist.  Dropping to a shell!\n"


@pytest.mark.parametrize(
    ("drivers", "said"),
    [
        (
            {"virtio_scsi": "absent", "hv_storvsc": "initramfs"},
            "the cloud itself needs hv_storvsc, which is there",
        ),
        ({"virtio_scsi": "module", "hv_storvsc": "built in"}, "hv_storvsc, which is there"),
        ({"virtio_scsi": "module", "hv_storvsc": "module"}, "stand-in"),
        ({}, "only the rehearsal's stand-in"),
        ({"virtio_scsi": "initramfs", "hv_storvsc": "initramfs"}, "it has the dr"),
    ],
)
@pytest.mark.parametrize("claim", ["root", "identity"])
def test_a_disk_that_only_stands_in_for_the_clouds_is_told_from_it(
    tmp_path: Path, drivers: dict[str, str], said: str, claim: str
) -> None:
    found = why(claim, tmp_path, Tree(SOUND, drivers=drivers), console=LOST, look=AZURE)
    assert found is not None
    assert said in found.cause
    assert ("which is there" in found.cause) is ("which is there" in said)
    if "stand-in" in found.cause:
        assert "rehearse.enabled = false" in found.fix


def test_the_clouds_own_controller_is_no_stand_in(tmp_path: Path) -> None:
    scsi = dataclasses.replace(LOOK, disk="virtio-scsi")
    drivers = {"virtio_scsi": "absent", "hv_storvsc": "initramfs"}
    found = why("root", tmp_path, Tree(SOUND, drivers=drivers), console=LOST, look=scsi)
    assert found is not None
    assert "stand-in" not in found.cause


@pytest.mark.parametrize(
    ("drivers", "said"),
    [
        ({"virtio_net": "absent", "hv_netvsc": "module"}, "needs hv_netvsc, which is there"),
        ({"virtio_net": "absent", "hv_netvsc": "absent"}, "needs hv_netvsc"),
        ({"virtio_net": "module", "hv_netvsc": "module"}, ""),
        ({}, ""),
    ],
)
def test_a_card_without_a_driver_is_told_from_other_networks(
    tmp_path: Path, drivers: dict[str, str], said: str
) -> None:
    found = why("network", tmp_path, Tree(SOUND, drivers=drivers), look=AZURE)
    assert bool(found) is bool(said)
    if found:
        assert "virtio_net" in found.cause
        assert found.cause.endswith(said)
    assert why("network", tmp_path, Tree(SOUND, drivers=drivers), reports=[KEY]) is None


@pytest.mark.parametrize(
    ("files", "fix"),
    [
        ({"/usr/sbin/update-initramfs": ""}, "/etc/initramfs-tools/modules"),
        ({"/usr/bin/dracut": "", "/etc/initramfs-tools/x": ""}, "dracut --force"),
        ({"/etc/mkinitcpio.conf": ""}, "mkinitcpio -P"),
        ({}, "build the initramfs anew with nvme"),
    ],
)
def test_the_initramfs_is_made_by_what_the_disk_has(
    tmp_path: Path, files: dict[str, str], fix: str
) -> None:
    found = why("root", tmp_path, {**SOUND, **files}, console=LOST)
    assert found is not None
    assert fix in found.fix


def test_grub_is_renewed_by_what_the_disk_has(tmp_path: Path) -> None:
    console = "GRUB \nerror: no such device: 12.\n"
    for files, fix in (({"/boot/grub2/grub.cfg": ""}, "grub2-install"), ({}, "update-grub")):
        found = why("kernel", tmp_path, files, console=console)
        assert found is not None
        assert fix in found.fix


BIOS = dataclasses.replace(LOOK, title="Nimbus n1, BIOS", boot="bios")


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("GRUB loading.\n", ""),
        ("GRUB loading.\n[    2.5] Kernel panic - not syncing: bad\n", "panicked: bad"),
        ("GRUB loading.\nerror: file `/boot/vmlinuz' not found.\n", "GRUB wants /boot/vmlinuz"),
        ("GRUB loading.\ngrub> ", "GRUB found no configuration"),
    ],
)
def test_a_bios_that_has_started_a_loader_is_not_to_blame(
    tmp_path: Path, console: str, said: str
) -> None:
    tree = Tree({}, faults={"bios": "the first sector holds no boot code"})
    found = cause("kernel", tmp_path, tree, console=console, look=BIOS)
    assert said in found
    assert bool(said) == bool(found)


def test_a_silent_bios_is_explained_by_the_disk(tmp_path: Path) -> None:
    tree = Tree({}, faults={"bios": "the first sector holds no boot code"})
    said = cause("firmware", tmp_path, tree, console="", look=BIOS)
    assert "the first sector holds no boot code" in said
    quiet = {"/boot/grub/grub.cfg": "linux /vmlinuz quiet\n"}
    assert "no console=ttyS0" in cause("firmware", tmp_path, quiet, console="", look=BIOS)
    assert cause("firmware", tmp_path, {}, console="", look=BIOS) == ""


@pytest.mark.parametrize(
    ("console", "look", "said"),
    [
        (LOST, LOOK, "no driver for nvme"),
        ("Boot failed: not a bootable disk\n", BIOS, "no boot loader for BIOS"),
        ("GRUB \nerror: no such device: 12.\n", LOOK, "GRUB does not find its own files"),
        (BOOTED, LOOK, "datasource_list is pinned"),
    ],
)
def test_a_second_machine_that_does_not_boot_is_explained_like_a_first(
    tmp_path: Path, console: str, look: Look, said: str
) -> None:
    files = {**SOUND, "/etc/cloud/cloud.cfg": "datasource_list: [Other]\n"}
    assert said in cause("identity", tmp_path, files, console=console, look=look, number=2)


def test_a_loader_is_named_for_the_processor(tmp_path: Path) -> None:
    console = "BdsDxe: No bootable option or device was found.\n"
    said = cause("firmware", tmp_path, Tree({}, arch="aarch64"), console=console)
    assert "BOOTAA64.EFI" in said
    assert "BOOTX64" not in said
    fault = Tree({}, faults={"uefi": "there is no EFI system partition"})
    assert "there is no EFI system partition" in cause("firmware", tmp_path, fault, console=console)


def test_a_signature_that_is_missing_is_named(tmp_path: Path) -> None:
    look = dataclasses.replace(LOOK, boot="uefi-secure")
    tree = Tree({}, faults={"uefi-secure": "the loader has no signature"})
    console = "BdsDxe: failed to load Boot0001: Access Denied\n"
    said = cause("firmware", tmp_path, tree, console=console, look=look)
    assert said == "Secure Boot refuses the loader: the loader has no signature"
    console = "BdsDxe: starting Boot0001\nerror: bad shim signature.\n"
    said = cause("kernel", tmp_path, {}, console=console, look=look)
    assert "refuses what the loader starts" in said


def test_a_port_that_only_the_cloud_has_is_told_apart(tmp_path: Path) -> None:
    arm = dataclasses.replace(LOOK, console="ttyS0")
    tree = Tree({"/boot/grub/grub.cfg": "linux /vmlinuz console=ttyS0\n"}, arch="aarch64")
    for claim, known, console in (
        ("kernel", None, "GRUB \n"),
        ("console", facts(cmdline="console=ttyS0"), "GRUB \n"),
    ):
        found = why(claim, tmp_path, tree, console=console, look=arm, known=known, error="")
        assert found is not None
        assert "no console=ttyAMA0, which the rehearsal's machine has instead" in found.cause
        assert "console=ttyAMA0 to GRUB_CMDLINE_LINUX" in found.fix
        assert "besides the cloud's console=ttyS0" in found.fix


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


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("dev-disk-by\\x2duuid-9\\x2dA.device - /dev/disk/by-uuid/9-A", "UUID=9-A /srv ext4"),
        ("dev-disk-by\\x2duuid-9\\x2dA.device", "UUID=9-A /srv ext4 defaults 0 2"),
        ("/dev/disk/by-label/data", 'LABEL="data" /srv ext4 defaults 0 2'),
        ("/dev/sdb1", "/dev/sdb1 /srv xfs"),
        ("dev-d…1d8b-4f8c-b6f0", "UUID=0b-1d8b-4f8c-b6f0 /srv ext4"),
        ("dev-disk-by…d8b\\x2d4f8c\\x2db6f0.device", "UUID=1d8b-4f8c-b6f0 /srv ext4"),
    ],
)
def test_a_device_of_fstab_that_is_not_there(tmp_path: Path, device: str, line: str) -> None:
    fstab = f"# what is mounted\nUUID=1 / ext4 defaults 0 1\n{line}\n"
    console = KERNEL + f"[ TIME ] Timed out waiting for device {device}.\r\n"
    said = cause("login", tmp_path, {**SOUND, "/etc/fstab": fstab}, console=console)
    assert said == (
        f"/etc/fstab, line 3 names a device that the machine has not: {line.split()[0]}"
    )


@pytest.mark.parametrize(
    "line",
    [
        "UUID=9 /srv ext4 defaults,nofail 0 2",
        "UUID=9 /srv ext4 noauto",
        "UUID=9 none swap sw 0 0",
        "UUID=8 /srv ext4",
        "UUID=9-1d8b-4f8c /srv ext4",
        "# UUID=9 /srv ext4",
    ],
)
def test_a_device_that_a_boot_can_do_without_is_no_cause(tmp_path: Path, line: str) -> None:
    files = {**SOUND, "/etc/fstab": f"UUID=1 / ext4 defaults 0 1\n{line}\n"}
    waits = KERNEL + "[ TIME ] Timed out waiting for device /dev/disk/by-uuid/9.\n"
    assert cause("login", tmp_path, files, console=waits) == ""
    terminal = KERNEL + "[ TIME ] Timed out waiting for device dev-ttyS0.device - /dev/ttyS0.\n"
    assert cause("login", tmp_path, files, console=terminal) == ""
    stopped = waits + "You are in emergency mode. After logging in\n"
    assert cause("login", tmp_path, files, console=stopped) == (
        "the system waits for a device that the machine has not: /dev/disk/by-uuid/9"
    )


def test_an_emergency_that_is_no_wait_for_a_device(tmp_path: Path) -> None:
    console = KERNEL + "You are in emergency mode. After logging in\n"
    said = cause("root", tmp_path, SOUND, console=console)
    assert "emergency mode, without having waited for a device" in said


HUNG = (
    "[ TIME ] Timed out waiting for device dev-disk-by\\x2duuid-9.device - /dev/disk/9.\n"
    "[  243.3] INFO: task jbd2/nvme0n1p1-:131 blocked for more than 121 seconds.\n"
)


@pytest.mark.parametrize("claim", ["root", "network", "login", "identity"])
def test_a_disk_that_does_not_answer_is_no_fault_of_fstab(tmp_path: Path, claim: str) -> None:
    said = cause(claim, tmp_path, SOUND, console=BOOTED + HUNG)
    assert "the kernel's jbd2/nvme0n1p1- waits" in said


def test_a_task_that_waits_for_something_else_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    console = KERNEL + "INFO: task mount.nfs:300 blocked for more than 121 seconds.\n"
    assert "disk" not in cause("login", tmp_path, SOUND, console=console)


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
        said = cause(claim, tmp_path, SOUND, console=console)
        assert said == "init can't run: libc.so.6: file too short"


@pytest.mark.parametrize("printed", ["/lib/libc.so.6: file ", "/lib/libc.so.6: ", "/lib/libc.so.6"])
def test_a_panic_in_the_middle_of_what_init_says_is_no_part_of_it(
    tmp_path: Path, printed: str
) -> None:
    console = KERNEL + (
        f"/sbin/init: error while loading shared libraries: {printed}[    4.274544] Kernel panic "
        "- not syncing: Attempted to kill init! exitcode=0x00007f00\r\n"
        "[    4.275012] CPU: 1 PID: 1 Comm: init Not tainted 6.1.too shor0-57-cloud-amd64\r\nt\r\n"
    )
    said = cause("network", tmp_path, SOUND, console=console)
    assert said == "init can't run: /lib/libc.so.6 (why is lost among the kernel's own lines)"


def test_a_kernel_that_writes_elsewhere(tmp_path: Path) -> None:
    quiet = facts(cmdline="root=UUID=1 quiet")
    assert "(root=UUID=1 quiet) has no console=ttyS0" in cause(
        "console", tmp_path, SOUND, known=quiet, error=""
    )


FROZEN = "ssh_deletekeys: false\nmanual_cache_clean: true\npreserve_hostname: true\n"


@pytest.mark.parametrize(
    ("changed", "claim", "said"),
    [
        ({"instance": "n-0", "begun": ""}, "identity", "line 2, makes cloud-init keep its first"),
        ({"hostname": "old"}, "identity", "line 2, makes cloud-init keep its first instance"),
        ({}, "identity", "line 1, keeps ssh host keys"),
        ({"machine_id_age": 90}, "rerun", "line 1, keeps ssh host keys"),
        ({"machine_id_age": 90}, "identity", ""),
        ({"machine_id_age": 90, "hostname": "old"}, "rerun", "line 2, makes cloud-init keep"),
        ({"hostname": "localhost"}, "hostname", "line 2, makes cloud-init keep its first"),
        ({}, "hostname", ""),
    ],
)
def test_what_freezes_an_identity_is_what_keeps_that_part_of_it(
    tmp_path: Path, changed: dict[str, Any], claim: str, said: str
) -> None:
    files = {**SOUND, "/etc/cloud/cloud.cfg.d/80.cfg": FROZEN}
    found = cause(claim, tmp_path, files, known=facts(**changed), error="")
    assert said in found
    assert bool(said) == bool(found)


def test_a_host_name_that_is_kept_has_nothing_to_do_with_keys(tmp_path: Path) -> None:
    lines = "ssh_deletekeys: false\npreserve_hostname: true\n"
    files = {**SOUND, "/etc/cloud/cloud.cfg.d/80.cfg": lines}
    for claim in ("hostname", "identity"):
        said = cause(claim, tmp_path, files, known=facts(hostname="old"), error="")
        assert said.endswith("line 2, keeps the host name")


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
