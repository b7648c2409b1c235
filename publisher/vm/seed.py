"""A NoCloud seed: the small disk from which cloud-init learns our keys.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import json
from pathlib import Path

from publisher.errors import HostError
from publisher.model import MIB
from publisher.task import Task
from publisher.vm import process
from publisher.vm.keys import Keys

_NETWORK = {
    "version": 2,
    "ethernets": {"all": {"match": {"name": "e*"}, "dhcp4": True, "dhcp6": False}},
}


# cloud-init's renderer for ifupdown, which is all that Debian's installer puts in, can't
# match cards by a pattern: it writes a stanza for a card called "all".
_DHCP = """
[ -z "$(ip -4 route show default)" ] || exit 0
for card in /sys/class/net/e*; do
    card=${card##*/}
    ip link set "$card" up
    if command -v dhclient; then dhclient "$card"; elif command -v dhcpcd; then dhcpcd "$card"; fi
done
exit 0
"""


def cloud_config(config: dict[str, object]) -> str:
    """A configuration as cloud-init's user data."""
    # JSON is YAML
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"


def _host_keys(keys: Keys) -> dict[str, object]:
    return {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public}


def for_build(keys: Keys, prepare: str, *, grow: bool = False) -> str:
    """User data for a build: root's login by our key, and nothing else of
    cloud-init's first boot, which belongs to the image's user. `prepare` is a
    script that runs before sshd starts, and lets root in. `grow`: the root partition
    and file system take all of the disk."""
    growth = ["growpart", "resizefs"] if grow else []
    return cloud_config(
        {
            "disable_root": False,
            # not a user, whose password cloud-init would lock, in the image too
            "users": [],
            "ssh_authorized_keys": [keys.user_public],
            "ssh_deletekeys": True,
            "ssh_genkeytypes": [],
            "ssh_keys": _host_keys(keys),
            "bootcmd": [["sh", "-c", prepare], ["sh", "-c", _DHCP]],
            "cloud_init_modules": ["bootcmd", *growth, "ssh"],
            "cloud_config_modules": [],
            "cloud_final_modules": [],
        }
    )


def for_login(keys: Keys, user: str, hostname: str = "") -> str:
    """User data as a customer would give them: a user, and the host key that we expect."""
    named: dict[str, object] = {"hostname": hostname} if hostname else {}
    return cloud_config(
        {
            **named,
            "bootcmd": [["sh", "-c", _DHCP]],
            "users": [
                {
                    "name": user,
                    "shell": "/bin/sh",
                    "ssh_authorized_keys": [keys.user_public],
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                }
            ],
            "ssh_deletekeys": True,
            "ssh_genkeytypes": ["ed25519"],
            "ssh_keys": _host_keys(keys),
        }
    )


def write(path: Path, user_data: str, instance: str, task: Task) -> Path:
    """A FAT disk labelled CIDATA at `path`; `instance` names the boot, so that
    cloud-init takes it for a new machine."""
    directory = path.with_name(path.name + ".files")
    directory.mkdir(mode=0o700, exist_ok=True)
    files = {
        "meta-data": json.dumps({"instance-id": instance, "local-hostname": "localhost"}),
        "user-data": user_data,
        "network-config": json.dumps(_NETWORK),
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    with path.open("wb") as file:
        path.chmod(0o600)
        file.truncate(MIB)
    image = str(path)
    for argv in (
        ["mformat", "-i", image, "-v", "CIDATA", "::"],
        ["mcopy", "-i", image, *(str(directory / name) for name in files), "::"],
    ):
        done = process.run(argv, task)
        if done.status:
            raise HostError(f"{argv[0]} failed: {done.text}")
    for name in files:
        (directory / name).unlink()
    directory.rmdir()
    return path
