"""Why a rehearsal failed, in words: from what the console said, what the guest
asked for, and what stands in the files on its disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from publisher.proof.rehearse.boot import Seen
from publisher.vm.console import Phase


class Files(Protocol):
    """The guest's files, read from its disk while it is off."""

    def text(self, path: str) -> str:
        """A file's text; empty where there is none."""

    def exists(self, path: str) -> bool: ...

    def glob(self, pattern: str) -> list[str]: ...

    def link(self, path: str) -> str:
        """Where the link at a path points; empty where it is none."""


@dataclass(frozen=True, slots=True)
class Cause:
    """`cause` names what is wrong and where, `fix` what to do about it."""

    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """`claim` is the line of the verdict that failed."""

    claim: str
    seen: Seen
    files: Files


def likely(evidence: Evidence) -> Cause | None:
    """The first cause that fits the evidence."""
    for rule in _RULES.get(evidence.claim, ()):
        found = rule(evidence)
        if found is not None:
            return found
    return None


# -- what the files say


def _lines(files: Files, paths: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """(path, line number, line) of what is not a comment."""
    for path in paths:
        for number, line in enumerate(files.text(path).splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield path, number, line.strip()


def cloud_configs(files: Files) -> list[str]:
    """cloud-init's configuration in the order in which later files win."""
    return ["/etc/cloud/cloud.cfg", *sorted(files.glob("/etc/cloud/cloud.cfg.d/*.cfg"))]


def pinned_sources(files: Files) -> tuple[str, int, list[str]] | None:
    """The file and line that lists cloud-init's datasources, and which: the last
    one counts. Block lists of YAML have an entry a line."""
    found: tuple[str, int, list[str]] | None = None
    for path in cloud_configs(files):
        lines = files.text(path).splitlines()
        for number, line in enumerate(lines, 1):
            match = re.match(r"\s*datasource_list\s*:\s*(.*)$", line)
            if match is None:
                continue
            text = match[1].partition("#")[0]
            if not text.strip():
                for more in lines[number:]:
                    entry = re.match(r"\s*-\s*(.+)$", more)
                    if entry is None:
                        break
                    text += f" {entry[1]}"
            names = [name for name in re.split(r"[\s\[\],'\"]+", text) if name]
            found = path, number, names
    return found


def _cloud_init_off(at: Evidence) -> Cause | None:
    files = at.files
    if files.exists("/etc/cloud/cloud-init.disabled"):
        return Cause(
            "cloud-init is switched off by /etc/cloud/cloud-init.disabled", "delete that file"
        )
    for unit in ("cloud-init-local.service", "cloud-init.service", "cloud-init-main.service"):
        if files.link(f"/etc/systemd/system/{unit}") == "/dev/null":
            return Cause(
                f"cloud-init is switched off: {unit} is masked", f"systemctl unmask {unit}"
            )
    words = re.search(r"(?:Command line|BOOT_IMAGE).*\bcloud-init=disabled\b", at.seen.printed)
    if words:
        return Cause(
            "cloud-init is switched off by cloud-init=disabled on the kernel command line",
            "remove it from /etc/default/grub and run update-grub",
        )
    return None


def _datasource_pinned(at: Evidence) -> Cause | None:
    pinned = pinned_sources(at.files)
    wanted = at.seen.look.datasource
    if pinned is None or wanted in pinned[2]:
        return None
    path, number, names = pinned
    return Cause(
        "cloud-init saw no datasource: datasource_list is pinned to "
        f"{', '.join(names) or 'nothing'} in {path}, line {number}",
        f"remove the line, or add {wanted}",
    )


def _no_cloud_init(at: Evidence) -> Cause | None:
    files = at.files
    places = ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init")
    agents = ("/usr/bin/google_guest_agent", "/usr/sbin/waagent", "/usr/bin/waagent")
    if any(files.exists(path) for path in (*places, *agents)):
        return None
    if not files.exists("/etc/os-release"):
        return None
    return Cause(
        "nothing in the image sets up a new machine: neither cloud-init nor a cloud's agent",
        "install the package cloud-init",
    )


def _not_enabled(at: Evidence) -> Cause | None:
    files = at.files
    if not files.exists("/usr/bin/cloud-init"):
        return None
    generators = files.glob("/*/systemd/system-generators/cloud-init-generator") + files.glob(
        "/usr/lib/systemd/system-generators/cloud-init-generator"
    )
    wants = files.glob("/etc/systemd/system/*.wants/cloud-init*.service")
    if generators or wants or not files.exists("/etc/systemd/system"):
        return None
    return Cause("cloud-init is installed and no unit of it is enabled", "systemctl enable it")


def _network_off_in_cloud_init(at: Evidence) -> Cause | None:
    for path, number, line in _lines(at.files, cloud_configs(at.files)):
        if re.match(r"network\s*:\s*\{\s*config\s*:\s*[\"']?disabled", line):
            if _own_network(at.files):
                return None
            return Cause(
                f"no network card is configured: cloud-init may not do it ({path}, line {number}), "
                "and nothing else does",
                "remove the line, or bring a network configuration that fits any card",
            )
    return None


def _own_network(files: Files) -> list[str]:
    patterns = (
        "/etc/netplan/*.yaml",
        "/etc/systemd/network/*.network",
        "/etc/network/interfaces.d/*",
        "/etc/NetworkManager/system-connections/*",
        "/etc/sysconfig/network-scripts/ifcfg-e*",
    )
    return [path for pattern in patterns for path in files.glob(pattern)]


_MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE)


def _bound_to_card(at: Evidence) -> Cause | None:
    paths = [*_own_network(at.files), *at.files.glob("/etc/udev/rules.d/*net*.rules")]
    for path, number, line in _lines(at.files, paths):
        found = _MAC.search(line)
        # cloud-init writes the card of this boot into files of its own
        if found and not path.endswith(("50-cloud-init.yaml", "50-cloud-init.cfg")):
            return Cause(
                f"the network is bound to the card {found[0]} in {path}, line {number}",
                "delete the file: each machine has a card of its own",
            )
    return None


_DHCP_CLIENTS = (
    "/sbin/dhclient",
    "/usr/sbin/dhclient",
    "/sbin/dhcpcd",
    "/usr/sbin/dhcpcd",
    "/sbin/udhcpc",
    "/usr/sbin/udhcpc",
    "/lib/systemd/systemd-networkd",
    "/usr/lib/systemd/systemd-networkd",
    "/usr/sbin/NetworkManager",
)


def _no_dhcp(at: Evidence) -> Cause | None:
    said = re.search(r"(dhclient|dhcpcd)[^\n]*(not found|No such file)", at.seen.printed)
    if not at.files.exists("/etc/os-release"):
        return None
    clients = [path for path in _DHCP_CLIENTS if at.files.exists(path)]
    asks_itself = any("systemd" not in path for path in clients)
    if said or not clients or (not asks_itself and _is_old(at.files)):
        return Cause(
            "no DHCP client that cloud-init can use is in the image, so it has no address "
            "to ask the cloud from",
            "install isc-dhcp-client or dhcpcd",
        )
    return None


def _is_old(files: Files) -> bool:
    """cloud-init before 23.3 knows no DHCP client but dhclient."""
    for path in files.glob("/usr/lib/python3/dist-packages/cloudinit/version.py"):
        found = re.search(r'__VERSION__ = "(\d+)\.(\d+)', files.text(path))
        if found:
            return (int(found[1]), int(found[2])) < (23, 3)
    return False


_SSHD = ("/usr/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd", "/usr/sbin/dropbear")


def _no_sshd(at: Evidence) -> Cause | None:
    files = at.files
    if not files.exists("/etc/os-release"):
        return None
    if not any(files.exists(path) for path in _SSHD):
        return Cause("no ssh server is in the image", "install openssh-server")
    for unit in ("ssh.service", "sshd.service"):
        if files.link(f"/etc/systemd/system/{unit}") == "/dev/null":
            return Cause(f"the ssh server is switched off: {unit} is masked", f"unmask {unit}")
    enabled = files.glob("/etc/systemd/system/*.wants/ssh*.service")
    enabled += files.glob("/etc/systemd/system/*.wants/ssh*.socket")
    enabled += files.glob("/etc/rc2.d/S*ssh*") + files.glob("/etc/runlevels/default/sshd")
    if not enabled:
        return Cause("the ssh server is in the image and not enabled", "systemctl enable ssh")
    return None


def _sshd_fails(at: Evidence) -> Cause | None:
    for pattern, cause, fix in (
        (r"no hostkeys available", "sshd has no host keys and nothing made any", "let cloud-init"),
        (
            r"(?:Failed to start|FAILED\S* Failed to start) .*(?:ssh|SSH)",
            "the ssh server does not start",
            "look for sshd in the console log, and run sshd -t in the image",
        ),
    ):
        if re.search(pattern, at.seen.printed):
            return Cause(cause, fix)
    return None


def _refuses_key(at: Evidence) -> Cause | None:
    if "refuses the login" not in (at.seen.error.message if at.seen.error else ""):
        return None
    paths = ["/etc/ssh/sshd_config", *at.files.glob("/etc/ssh/sshd_config.d/*.conf")]
    for path, number, line in _lines(at.files, paths):
        if re.match(r"PubkeyAuthentication\s+no", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, refuses public keys", "remove the line")
        if re.match(r"(AllowUsers|AllowGroups|DenyUsers)\s", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, lets only some users in: {line}", "remove it")
    if at.seen.report("key") is None:
        return Cause(
            "nothing in the guest asked the cloud for the SSH key",
            "see whether cloud-init runs and finds its datasource",
        )
    return Cause(
        "the key was fetched and not put in place for the user of the user data",
        "look for cc_ssh and cc_users_groups in /var/log/cloud-init.log",
    )


def _agent_stalls(at: Evidence) -> Cause | None:
    told = [r for r in at.seen.reports if r.kind == "not-ready"]
    if told:
        return Cause(f"the guest says why: {told[-1].text}", "see /var/log/cloud-init.log")
    files = at.files
    for agent in ("walinuxagent.service", "waagent.service"):
        if files.link(f"/etc/systemd/system/{agent}") == "/dev/null":
            return Cause(f"the agent is switched off: {agent} is masked", f"unmask {agent}")
    for path, number, line in _lines(files, ["/etc/waagent.conf"]):
        if re.match(r"Provisioning\.(Agent|Enabled)\s*=\s*(disabled|n)\b", line, re.IGNORECASE):
            return Cause(
                f"the agent may not set up machines ({path}, line {number}), and cloud-init "
                "did not",
                "set Provisioning.Agent=auto",
            )
    return Cause(
        "no agent in the guest told the cloud that it is up; the cloud would wait for 20 to 40 "
        "minutes and then count the machine as failed",
        "install cloud-init or the cloud's agent, and see their logs in the console log",
    )


# -- what the console said


def _said(pattern: str, cause: str, fix: str) -> Callable[[Evidence], Cause | None]:
    """A cause known by a line of the console; {0} … are the pattern's groups."""

    def rule(at: Evidence) -> Cause | None:
        match = re.search(pattern, at.seen.printed, re.MULTILINE)
        return Cause(cause.format(*match.groups()), fix) if match else None

    return rule


def _driver_of_root(at: Evidence) -> Cause | None:
    waits = re.search(
        r"ALERT!\s+(\S+)|Gave up waiting for (?:root|suspend/resume)|"
        r"dracut-initqueue.*timeout|Timed out waiting for device .*?(\S+)|"
        r"Unable to mount root fs on (\S+)",
        at.seen.printed,
    )
    if waits is None:
        return None
    drivers = {"nvme": "nvme", "virtio-scsi": "virtio_scsi", "virtio-blk": "virtio_blk"}
    controller = at.seen.look.disk
    seen_disk = {
        "nvme": r"nvme\d*: pci function|nvme\d+n1|nvme nvme\d",
        "virtio-scsi": r"\bsd a|\[sda\]|scsi host\d+: Virtio SCSI",
        "virtio-blk": r"\bvd[a-z]:|virtio_blk",
    }[controller]
    device = next((group for group in waits.groups() if group), "its root device")
    if re.search(seen_disk, at.seen.printed):
        return Cause(
            f"the disk is there, and nothing on it is {device.rstrip('.')}: root= names a file "
            "system that the image has not",
            "give root= and /etc/fstab the UUID of the root file system and run update-grub",
        )
    return Cause(
        f"the kernel saw no disk: the initramfs has no driver for {controller} "
        f"({drivers[controller]})",
        f"add {drivers[controller]} to /etc/initramfs-tools/modules and run update-initramfs -u",
    )


def _nothing_to_boot(at: Evidence) -> Cause | None:
    fatal = at.seen.tracker.fatal
    if at.seen.look.boot == "bios":
        return Cause(
            "the disk's first sector starts nothing: no boot loader for BIOS is installed",
            "run grub-install for i386-pc (with a BIOS boot partition on a GPT disk)",
        )
    if "secure boot" in fatal or "Access Denied" in at.seen.printed:
        return Cause(
            "Secure Boot refuses the loader: it is not signed by a key that the firmware trusts",
            "install shim-signed and a signed grub, or register the image without Secure Boot",
        )
    if at.seen.phase == Phase.FIRMWARE:
        return Cause(
            "UEFI finds no loader: the EFI system partition has no \\EFI\\BOOT\\BOOTX64.EFI",
            "run grub-install with --removable (Debian: --force-extra-removable)",
        )
    return None


def _silent(at: Evidence) -> Cause | None:
    """The kernel speaks elsewhere, or it never started."""
    if at.seen.phase is not Phase.BOOTLOADER:
        return None
    for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/BOOT/grub.cfg"):
        text = at.files.text(path)
        if text and "ttyS0" not in text:
            return Cause(
                f"the kernel writes to no serial port: {path} has no console=ttyS0",
                "add console=ttyS0,115200n8 to GRUB_CMDLINE_LINUX and run update-grub",
            )
    return None


def _no_console(at: Evidence) -> Cause | None:
    if at.seen.facts is None or "console=ttyS" in at.seen.facts.cmdline:
        return None
    return Cause(
        f"the kernel command line has no console=ttyS0: {at.seen.facts.cmdline}",
        "add console=ttyS0,115200n8 to GRUB_CMDLINE_LINUX and run update-grub",
    )


def _growth(at: Evidence) -> Cause | None:
    files = at.files
    for path, number, line in _lines(files, cloud_configs(files)):
        if re.match(
            r"(mode\s*:\s*(off|false)|resize_rootfs\s*:\s*(false|noblock\s*:\s*off))", line
        ):
            return Cause(f"growing is switched off in {path}, line {number}", "remove the line")
    if not any(files.glob(f"/{place}/growpart") for place in ("bin", "usr/bin", "usr/sbin")):
        return Cause("growpart is not in the image", "install cloud-guest-utils")
    return None


def _mount_fails(at: Evidence) -> Cause | None:
    found = re.search(
        r"Timed out waiting for device .*?(/dev/\S+|dev-\S+\.device)", at.seen.printed
    )
    if found is None and "emergency mode" not in at.seen.tracker.fatal:
        return None
    device = f": {found[1].rstrip('.')}" if found else ""
    return Cause(
        f"/etc/fstab names a device that the machine has not{device}",
        "remove the line from /etc/fstab, or add nofail to its options",
    )


def _frozen(at: Evidence) -> Cause | None:
    facts = at.seen.facts
    if facts is None:
        return None
    for path, number, line in _lines(at.files, cloud_configs(at.files)):
        if re.match(r"manual_cache_clean\s*:\s*true", line, re.IGNORECASE):
            return Cause(
                f"{path}, line {number}, makes cloud-init keep its first instance",
                "remove the line",
            )
        if re.match(r"ssh_deletekeys\s*:\s*(false|0)", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, keeps ssh host keys", "remove the line")
        if re.match(r"preserve_hostname\s*:\s*true", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, keeps the host name", "remove the line")
    if facts.machine_id_age > 0 and at.files.text("/etc/machine-id").strip():
        return Cause(
            "/etc/machine-id was sealed into the image", "truncate it at the end of the build"
        )
    return None


_PANIC = _said(
    r"Kernel panic - not syncing: (.+)$",
    "the kernel panicked: {0}",
    "see the lines before it in the console log",
)
_CLOUD = (_cloud_init_off, _datasource_pinned, _no_cloud_init, _not_enabled)
_NETWORK = (_mount_fails, *_CLOUD, _no_dhcp, _network_off_in_cloud_init, _bound_to_card)
_LOGIN = (*_CLOUD, _mount_fails, _no_sshd, _sshd_fails, _refuses_key, *_NETWORK)
_ROOT = (_driver_of_root, _mount_fails, _PANIC)

_RULES: dict[str, tuple[Callable[[Evidence], Cause | None], ...]] = {
    "firmware": (_nothing_to_boot,),
    "kernel": (
        _said(
            r"grub rescue>|error: no such (?:device|partition): ?(\S*)",
            "GRUB does not find its own files (it looks for {0})",
            "run grub-install and update-grub in the image as it is now",
        ),
        _said(
            r"error: file [`'](\S+?)' not found",
            "GRUB wants {0}, and the image has no such file",
            "run update-grub",
        ),
        _nothing_to_boot,
        _silent,
        _PANIC,
    ),
    "root": _ROOT,
    "network": _NETWORK,
    "datasource": (*_CLOUD, _no_dhcp),
    "user-data": _CLOUD,
    "login": _LOGIN,
    "hostname": (_frozen, *_CLOUD),
    "growth": (_growth,),
    "ready": (_agent_stalls,),
    "console": (_no_console,),
    "identity": (_frozen, *_LOGIN),
}
