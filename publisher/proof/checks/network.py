"""The network configuration: nothing of the machine that the image was built on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from publisher.proof.checks import cloud_init
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, WARNING, Evidence, Rule

_MAC = re.compile(r"(?<![0-9a-fA-F:-])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![0-9a-fA-F:-])")
_MAC_OF_SYSTEMD = re.compile(
    r"^(?:Permanent)?MACAddress\s*=\s*(?:.*\s)?([0-9a-f]{12}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2})(?!\S)",
    re.IGNORECASE,
)
"""Its other ways to write one: systemd.link(5)."""
_CONFIGURATION = (
    *(f"{top}/netplan/*.{end}" for top in ("/etc", "/usr/lib", "/lib") for end in ("yaml", "yml")),
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network/ifcfg-*",
    "/etc/NetworkManager/system-connections/*",
    *(f"/etc/systemd/network/*.{kind}" for kind in ("network", "netdev", "link")),
    "/etc/systemd/network/*.d/*.conf",
)
_PERSISTENT = "/etc/udev/rules.d/*-persistent-net*.rules"
_LEASES = (
    "/var/lib/dhcp/*.lease*",
    "/var/lib/dhclient/*.lease*",
    "/var/lib/dhcpcd/*.lease*",
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/wicked/lease-*",
)
_SERVICES = (
    "systemd-networkd.service",
    "NetworkManager.service",
    "dhcpcd.service",
    "wicked.service",
    "connman.service",
)
"""Each is a client of its own."""
_SCRIPTS = {"networking.service": "ifupdown", "network.service": "the service network"}
"""Unit ▶ what asks for addresses with one of the clients."""
_CLIENTS = ("dhclient", "dhcpcd", "udhcpc", "pump")


def _client(disk: Inspection) -> Iterator[Evidence]:
    if any(disk.unit(name) == "enabled" for name in _SERVICES):
        return
    borrower = next((name for name in _SCRIPTS if disk.unit(name) == "enabled"), "")
    if any(disk.program(name) for name in _CLIENTS):
        return
    if borrower:
        clients = f"{', '.join(_CLIENTS[:-1])} nor {_CLIENTS[-1]}"
        text = f"{_SCRIPTS[borrower]} sets the network up, and neither {clients} is installed"
        yield Evidence(text, "/etc/network/interfaces" if borrower == "networking.service" else "")
        return
    idle = [name for name in _SERVICES if disk.unit(name) == "disabled"]
    if not idle:
        yield Evidence("neither systemd-networkd, NetworkManager, dhclient nor dhcpcd is usable")
    elif not disk.program("netplan") and cloud_init.version(disk) is None:
        # these two start a service that is not enabled
        yield Evidence(f"{idle[0]} is installed and not enabled, and nothing starts it")


def _macs(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    # /lib is /usr/lib on most systems
    paths = {place.path for p in _CONFIGURATION for x in tree.glob(p) if (place := tree.find(x))}
    for path in sorted(paths):
        for number, line in tree.lines(path):
            found = _MAC.search(line)
            other = _MAC_OF_SYSTEMD.match(line) if "/systemd/" in path else None
            address = found[0] if found else other[1] if other else ""
            if address and address not in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
                yield Evidence(f"the card with the address {address} is meant", path, number)


class Files(Protocol):
    def glob(self, pattern: str) -> Sequence[str]: ...

    def text(self, path: str) -> str: ...


_FIXED = (
    # only those of cards have the length of a network behind them
    (
        r"^\s*(?:-\s*|addresses\s*:\s*\[\s*)[\"']?(\d+(?:\.\d+){3}/\d+)",
        *(f"{top}/netplan/*.{end}" for top in ("/etc", "/usr/lib") for end in ("yaml", "yml")),
    ),
    (
        r"^\s*address\s+(\d+(?:\.\d+){3})\b",
        "/etc/network/interfaces",
        "/etc/network/interfaces.d/*",
    ),
    (r"^\s*Address\s*=\s*(\d+(?:\.\d+){3})\b", "/etc/systemd/network/*.network"),
    (
        r"^\s*IPADDR\d*\s*=\s*[\"']?(\d+(?:\.\d+){3})\b",
        "/etc/sysconfig/network-scripts/ifcfg-*",
        "/etc/sysconfig/network/ifcfg-*",
    ),
    (
        r"^\s*address(?:es)?\d*\s*=\s*(\d+(?:\.\d+){3})\b",
        "/etc/NetworkManager/system-connections/*",
    ),
)
"""How an address of IPv4 is written, and where."""
_CARD = re.compile(r"\s*(?:iface\s+|(?:Name|interface-name|DEVICE)\s*=\s*[\"']?)([^\s\"']+)")


def fixed_addresses(files: Files) -> Iterator[tuple[str, int, str]]:
    """Path, line and address of what a card gets without asking for it."""
    for pattern, *places in _FIXED:
        for path in dict.fromkeys(path for place in places for path in files.glob(place)):
            card = ""
            for number, line in enumerate(files.text(path).splitlines(), 1):
                named = _CARD.match(line)
                card = named[1] if named else card
                found = re.match(pattern, line)
                # bridges and tunnels have addresses of their own, and cards names with an e
                if found and card[:1] in ("", "e", "*"):
                    yield path, number, found[1]


def _fixed(disk: Inspection) -> Iterator[Evidence]:
    for path, number, address in fixed_addresses(disk.tree()):
        yield Evidence(f"a card has the address {address} for good", path, number)


def _persistent(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for path in tree.glob(_PERSISTENT):
        for number, line in tree.lines(path):
            if "ATTR{address}" in line or "NAME=" in line:
                yield Evidence("a network card is given a name for good", path, number)
                break


def _leases(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for pattern in _LEASES:
        for path in tree.glob(pattern):
            place = tree.find(path)
            if place is not None and place.node.is_file and place.node.size:
                yield Evidence("a lease of the machine that the image was built on", path)


_RESOLVER = "/etc/resolv.conf"
_SLIRP = ("10.0.2.3", "fec0::3")
_BUILDERS = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")
)
_RESOLVERS = ("dnsmasq", "unbound", "named", "pdns_recursor", "kresd", "stubby", "coredns")


def _resolver(disk: Inspection) -> Iterator[Evidence]:
    """What lies there as a file: a link leads to what a service writes at each boot."""
    if disk.tree().link(_RESOLVER):
        return
    for number, line in disk.tree().lines(_RESOLVER):
        words = line.split()
        if words[0] != "nameserver" or len(words) < 2:
            continue
        try:
            address = ipaddress.ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        fault = _strange(disk, address)
        if fault:
            yield Evidence(f"{address} is {fault}", _RESOLVER, number)


def _strange(disk: Inspection, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if str(address) in _SLIRP:
        return "the name server that QEMU gives its guests"
    if str(address) in ("127.0.0.53", "127.0.0.54"):
        places = ("/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved")
        return "" if any(map(disk.tree().exists, places)) else "systemd-resolved, not installed"
    if address.is_loopback:
        return "" if any(map(disk.program, _RESOLVERS)) else "the machine itself, which serves none"
    if any(address in network for network in _BUILDERS):
        return "an address of the network that the image was built in"
    return ""


_SYSPREP = "https://libguestfs.org/virt-sysprep.1.html#operations"
RULES = (
    Rule(
        "network.dhcp-client",
        ERROR,
        "Something in the image can ask for an address by DHCP",
        "All clouds give addresses by DHCP; without a client there is no network.",
        "https://docs.cloud-init.io/en/latest/reference/network-config.html#fallback-network-configuration",
        "install and enable systemd-networkd or NetworkManager, or install dhcpcd-base or "
        "isc-dhcp-client for ifupdown",
        _client,
    ),
    Rule(
        "network.mac",
        ERROR,
        "No network configuration is for one card only",
        "Every machine has another hardware address: the card would stay without configuration.",
        _SYSPREP,
        "remove the file, or match by name (en*) instead of by address",
        _macs,
    ),
    Rule(
        "network.address",
        WARNING,
        "No card has an address of its own",
        "Machines of a cloud get their addresses by DHCP: with another one they reach nothing.",
        "https://libguestfs.org/virt-sysprep.1.html#operations",
        "let the card ask for its address, or delete the file",
        _fixed,
    ),
    Rule(
        "network.persistent-names",
        ERROR,
        "No udev rule ties a name to a network card",
        "The first card of another machine gets the name eth1, for which there is no "
        "configuration.",
        _SYSPREP,
        "remove the file",
        _persistent,
    ),
    Rule(
        "network.leases",
        WARNING,
        "No DHCP lease is left",
        "A client asks for the address that it had elsewhere, which delays the first boot.",
        _SYSPREP,
        "remove the file",
        _leases,
    ),
    Rule(
        "network.resolver",
        WARNING,
        "No name server of the builder is left",
        "Where nothing writes the file anew, names are asked of a server that is not there: "
        "nothing can be fetched, and no service of the cloud is found.",
        "https://man7.org/linux/man-pages/man5/resolv.conf.5.html",
        "empty the file, or link it to ../run/systemd/resolve/stub-resolv.conf",
        _resolver,
    ),
)
