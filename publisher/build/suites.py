"""What differs between Debian's suites."""

from __future__ import annotations

from publisher.vm.arch import Platform

_BASE = (
    *("systemd-sysv", "udev", "dbus", "libpam-systemd", "kmod", "procps", "sudo", "less"),
    # the machine's own name, which sudo looks up each time, whatever the cloud calls it
    "libnss-myhostname",
    *("ca-certificates", "netbase", "iproute2", "netplan.io", "systemd-timesyncd", "tzdata"),
    *("openssh-server", "cloud-init", "cloud-guest-utils", "initramfs-tools", "zstd"),
    *("e2fsprogs", "fdisk", "dosfstools"),
)


def packages(suite: str, platform: Platform) -> tuple[str, ...]:
    """What every image holds. cloud-init asks for an address before the network
    is up with the DHCP client of its time."""
    old = suite in ("bullseye", "bookworm")
    changing = ["isc-dhcp-client" if old else "dhcpcd-base"]
    if suite != "bullseye":
        changing.append("systemd-resolved")
    return (*_BASE, *changing, platform.debian_kernel, *platform.debian_boot)


def merged_usr(suite: str, platform: Platform) -> tuple[str, ...]:
    """The directories to make links into /usr: Debian's installer does so since
    Debian 10, and since Debian 12 a package does."""
    if suite != "bullseye":
        return ()
    return ("bin", "sbin", "lib", *(("lib64",) if platform.arch == "x86_64" else ()))
