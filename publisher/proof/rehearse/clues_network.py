"""Why nothing came from the guest's network: from its files."""

from __future__ import annotations

import re

from publisher.proof.checks.network import fixed_addresses
from publisher.proof.rehearse.evidence import Cause, Evidence, Files, cloud_configs, lines_of


def network_off_in_cloud_init(at: Evidence) -> Cause | None:
    for path, number, line in lines_of(at.files, cloud_configs(at.files)):
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


def bound_to_card(at: Evidence) -> Cause | None:
    paths = [*_own_network(at.files), *at.files.glob("/etc/udev/rules.d/*net*.rules")]
    for path, number, line in lines_of(at.files, paths):
        found = _MAC.search(line)
        # cloud-init writes the card of this boot into files of its own
        if found and not path.endswith(("50-cloud-init.yaml", "50-cloud-init.cfg")):
            return Cause(
                f"the network is bound to the card {found[0]} in {path}, line {number}",
                "delete the file: each machine has a card of its own",
            )
    return None


def own_address(at: Evidence) -> Cause | None:
    for path, number, address in fixed_addresses(at.files):
        return Cause(
            f"a network card has the address {address} for good ({path}, line {number}), and the "
            "cloud gives it another one",
            "let it ask for its address by DHCP, or delete the file",
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


def no_dhcp(at: Evidence) -> Cause | None:
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
