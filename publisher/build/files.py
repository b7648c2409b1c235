"""The files that make an installation a cloud image; the same for all clouds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publisher.build.identity import Identity
from publisher.model import Firmware
from publisher.vm.arch import Platform

# io_timeout: EBS may pause longer than the driver's 30 s
# (https://docs.aws.amazon.com/ebs/latest/userguide/timeout-nvme-ebs-volumes.html).
# No rootdelay, which Azure's guide asks for: Debian's initramfs sleeps for all of it.
_COMMAND_LINE = "console=tty0 {consoles} nvme_core.io_timeout=4294967295"

_GRUB_DEFAULTS = """\
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="{command_line}"
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""

_CLOUD_INIT = """\
# The clouds that this image is for; which one it is gets detected at boot.
datasource_list: [NoCloud, Ec2, GCE, Azure, None]
# LANG is set, and no other locale is installed.
locale: false
# Old ones prefer ifupdown, which waits for all interfaces and knows no patterns.
system_info:
  network:
    renderers: [netplan]
"""

# ClientAliveInterval: Azure's certification asks for 30 to 235
_SSHD = """\
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
ClientAliveInterval 120
"""

# Clouds' networks carry no multicast: a name without a dot would be waited for in vain, some
# seconds each time.
_RESOLVED = """\
[Resolve]
LLMNR=no
MulticastDNS=no
"""

# cloud-init knows Google's metadata service by its name alone and asks for it before there is
# a name server. It then finds it in its second stage only and sets the network up twice; with
# newer systemds the question itself takes two minutes
# (https://github.com/canonical/cloud-init/issues/6898). Google's own images name it in
# /etc/hosts. Elsewhere the name would make programs take the machine for Google's: whoever
# brings a machine to another cloud is rid of it at the first boot.
_METADATA_NAME = """\
# Usage: google-metadata-name [HOSTS [PRODUCT]]
# Names Google's metadata service in HOSTS on Google's machines, and on no other.
set -eu
hosts=${1:-/etc/hosts}
mark='# Google Compute Engine'
product=
read -r product < "${2:-/sys/class/dmi/id/product_name}" || true
named=
while read -r line || [ -n "$line" ]; do
    case $line in *"$mark") named=yes ;; esac
done < "$hosts"
case $product in
Google*)
    if [ -z "$named" ]; then
        [ -z "$(tail -c 1 "$hosts")" ] || echo >> "$hosts"
        cat >> "$hosts" <<END
169.254.169.254 metadata.google.internal $mark
fd20:ce::254 metadata.google.internal $mark
END
    fi
    ;;
*) [ -z "$named" ] || sed -i "/$mark\\$/d" "$hosts" ;;
esac
"""
_BEFORE_CLOUD_INIT = """\
[Service]
ExecStartPre=-/bin/sh /usr/local/lib/cloud-image/google-metadata-name
"""

_FSTAB_ROOT = "UUID={root} / ext4 rw,discard,errors=remount-ro 0 1\n"
_FSTAB_ESP = "UUID={esp} /boot/efi vfat umask=0077,nofail 0 2\n"

# update-grub takes long in an emulated guest, and finds the same
_GRUB_CONFIG = """\
# Replaced by update-grub when a kernel gets installed.
serial --speed=115200
terminal_input console serial
terminal_output console serial
set default=0
set timeout=1
search --no-floppy --fs-uuid --set=root {root}
menuentry 'Debian GNU/Linux' --id debian {{
    linux /boot/vmlinuz-@KERNEL@ root=UUID={root} ro {command_line}
    initrd /boot/initrd.img-@KERNEL@
}}
"""

# Debian's signed GRUB reads its configuration from this place on the ESP
ESP_CONFIG = """\
search.fs_uuid {root} root
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
"""


def command_line(platform: Platform) -> str:
    """The kernel's arguments, besides root=."""
    consoles = " ".join(f"console={console}" for console in platform.consoles)
    return _COMMAND_LINE.format(consoles=consoles)


def tree_files(platform: Platform) -> dict[str, str]:
    """Path ▶ text of what every installation holds, whatever its identity."""
    return {
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/default/grub.d/50-cloud.cfg": _GRUB_DEFAULTS.format(
            command_line=command_line(platform)
        ),
        # lets upgrades of GRUB and shim renew the boot sectors and the ESP
        "etc/grub.d/enable_cloud": "",
        "etc/cloud/cloud.cfg.d/90-image.cfg": _CLOUD_INIT,
        "etc/ssh/sshd_config.d/10-cloud-image.conf": _SSHD,
        "etc/systemd/resolved.conf.d/10-cloud-image.conf": _RESOLVED,
        "usr/local/lib/cloud-image/google-metadata-name": _METADATA_NAME,
        "etc/systemd/system/cloud-init-local.service.d/10-cloud-image.conf": _BEFORE_CLOUD_INIT,
        "etc/initramfs-tools/conf.d/all-clouds": "MODULES=most\n",
    }


def identity_files(identity: Identity, firmware: Firmware, platform: Platform) -> dict[str, str]:
    """Path ▶ text of what differs between versions."""
    root = str(identity.root)
    fstab = _FSTAB_ROOT.format(root=root)
    if "uefi" in firmware:
        fstab += _FSTAB_ESP.format(esp=identity.esp)
    return {
        "etc/fstab": fstab,
        "boot/grub/grub.cfg": _GRUB_CONFIG.format(root=root, command_line=command_line(platform)),
    }


def write_tree(directory: Path, files: Mapping[str, str]) -> Path:
    """Write the files under `directory`, world-readable as in a root directory."""
    directory.mkdir(mode=0o755, exist_ok=True)
    directory.chmod(0o755)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    for path in directory.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    return directory
