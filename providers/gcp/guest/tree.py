"""The metadata server's tree, and its three ways to print a part of it.

https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from providers.gcp.guest.identity import ACCOUNT, PROJECT_NUMBER, Identity
from publisher.proof.guest import Instance

Node: TypeAlias = "Mapping[str, Node] | list[Node] | str | int"
"""Directories are mappings or lists, whose entries are numbered from 0."""

VERBATIM = frozenset({"attributes", "guest-attributes", "service-accounts"})
"""Directories whose entries keep their names in JSON; other names become camelCase."""
IMAGE = "projects/rehearsal-project/global/images/rehearsal"


def host_name(instance: Instance, *, project: str, zone: str) -> str:
    name = instance.hostname
    return name if "." in name else f"{name}.{zone}.c.{project}.internal"


def build(
    instance: Instance, identity: Identity, *, project: str, zone: str, kind: str
) -> dict[str, Node]:
    number = f"projects/{PROJECT_NUMBER}"
    network = ".".join(instance.address.split(".")[:3])
    short = instance.hostname.partition(".")[0]
    key = instance.public_key.strip()
    attributes: dict[str, Node] = {
        "enable-guest-attributes": "TRUE",
        # google-guest-agent takes the user's line, cloud-init without it that of its own name
        "ssh-keys": f"{instance.user}:{key}\ncloudinit:{key}",
        **({"user-data": instance.user_data} if instance.user_data else {}),
    }
    account: dict[str, Node] = {
        "aliases": "default",
        "email": ACCOUNT,
        "scopes": "https://www.googleapis.com/auth/devstorage.read_only",
    }
    return {
        "instance": {
            "attributes": attributes,
            "cpu-platform": "Intel Broadwell",
            "description": "",
            "disks": [
                {
                    "device-name": "persistent-disk-0",
                    "index": 0,
                    "interface": "NVME" if kind.startswith("c") else "SCSI",
                    "mode": "READ_WRITE",
                    "type": "PERSISTENT-BALANCED",
                }
            ],
            "guest-attributes": {},
            "hostname": host_name(instance, project=project, zone=zone),
            "id": int(identity.instance_id),
            "image": IMAGE,
            "licenses": [],
            "machine-type": f"{number}/machineTypes/{kind}",
            "maintenance-event": "NONE",
            "name": short,
            "network-interfaces": [
                {
                    "access-configs": [{"external-ip": "", "type": "ONE_TO_ONE_NAT"}],
                    "dns-servers": ["169.254.169.254"],
                    "forwarded-ips": [],
                    "gateway": f"{network}.2",
                    "ip": instance.address,
                    "ip-aliases": [],
                    "mac": identity.mac,
                    "mtu": 1460,
                    "network": f"{number}/networks/default",
                    "subnetmask": "255.255.255.0",
                    "target-instance-ips": [],
                }
            ],
            "partner-attributes": {},
            "preempted": "FALSE",
            "remaining-cpu-time": -1,
            "scheduling": {
                "automatic-restart": "TRUE",
                "on-host-maintenance": "MIGRATE",
                "preemptible": "FALSE",
            },
            "service-accounts": {"default": account, ACCOUNT: account},
            "tags": [],
            "virtual-clock": {"drift-token": "0"},
            "zone": f"{number}/zones/{zone}",
        },
        "oslogin": {"authenticate": {"sessions": {}}},
        "project": {
            "attributes": {},
            "numeric-project-id": PROJECT_NUMBER,
            "project-id": project,
        },
    }


def find(tree: Node, parts: list[str]) -> Node | None:
    for part in parts:
        if isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isascii() and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree


def entries(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Mapping):
        yield from node.items()
    elif isinstance(node, list):
        yield from ((str(number), entry) for number, entry in enumerate(node))


def is_directory(node: Node) -> bool:
    """Lists of plain values are leaves: one value a line."""
    if isinstance(node, list):
        return not node or isinstance(node[0], (Mapping, list))
    return isinstance(node, Mapping)


def as_listing(node: Node) -> str:
    return "".join(
        f"{name}{'/' if is_directory(child) else ''}\n" for name, child in sorted(entries(node))
    )


def as_text(node: Node) -> str:
    """A leaf's value."""
    return "\n".join(map(str, node)) if isinstance(node, list) else str(node)


def as_lines(node: Node, above: str = "") -> str:
    """A directory with all that is below it: PATH VALUE a line."""
    if not is_directory(node):
        return f"{above} {as_text(node)}\n"
    below = above + "/" if above else ""
    return "".join(as_lines(child, below + name) for name, child in sorted(entries(node)))


def as_json(node: Node, name: str = "") -> str:
    return json.dumps(_camel(node, verbatim=name in VERBATIM), separators=(",", ":"))


def _camel(node: Node, *, verbatim: bool = False) -> Node:
    if isinstance(node, list):
        return [_camel(entry) for entry in node]
    if not isinstance(node, Mapping):
        return node
    return {
        name if verbatim else re.sub("-(.)", lambda m: m[1].upper(), name): _camel(
            child, verbatim=name in VERBATIM
        )
        for name, child in node.items()
    }
