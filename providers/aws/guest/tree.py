"""The instance metadata's paths, each with the version of the service that brought it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from providers.aws.guest.identity import ACCOUNT, Identity
from publisher.proof.guest import Instance

VERSIONS = (
    "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01",
    "2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25",
    "2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28",
    "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23",
    "2021-07-15", "2022-07-09", "2022-09-24", "2024-04-11", "latest",
)  # fmt: skip
"""In the order in which the service lists them; text order is theirs in time."""
KEY_NAME = "rehearsal"
LAUNCHED = "2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Leaf:
    since: str
    value: str


class Tree:
    """What GET finds below a version: leaves by path, directories by what lies in them."""

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        self._leaves = leaves

    def leaf(self, version: str, path: str) -> str | None:
        found = self._leaves.get(path)
        return found.value if found is not None and found.since <= version else None

    def listing(self, version: str, path: str) -> Sequence[str]:
        """The names in a directory, directories with a slash; none where it does not exist."""
        below = path + "/" if path else ""
        names: dict[str, None] = {}
        for known, leaf in self._leaves.items():
            if known.startswith(below) and leaf.since <= version:
                name, slash, _ = known[len(below) :].partition("/")
                names[name + slash] = None
        if path == "meta-data/public-keys":
            return [f"{name.rstrip('/')}={KEY_NAME}" for name in names]
        return sorted(names)


def document(instance: Instance, identity: Identity, *, arch: str, kind: str, region: str) -> str:
    """The instance identity document."""
    return json.dumps(
        {
            "accountId": ACCOUNT,
            "architecture": arch,
            "availabilityZone": f"{region}a",
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": None,
            "imageId": identity.ami,
            "instanceId": identity.instance_id,
            "instanceType": kind,
            "kernelId": None,
            "pendingTime": LAUNCHED,
            "privateIp": instance.address,
            "ramdiskId": None,
            "region": region,
            "version": "2017-09-30",
        },
        indent=2,
    )


def domain(region: str) -> str:
    """Where the machines of a region have their names.

    https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html
    """
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def host_name(instance: Instance, region: str) -> str:
    name = instance.hostname
    return name if "." in name else f"{name}.{domain(region)}"


def leaves(
    instance: Instance, identity: Identity, *, kind: str, region: str
) -> Iterator[tuple[str, Leaf]]:
    """All but dynamic/ and user-data. There is no iam/: the instance has no role."""
    host = host_name(instance, region)
    network = ".".join(instance.address.split(".")[:3]) + ".0/24"
    card = f"meta-data/network/interfaces/macs/{identity.mac}"
    by_version = {
        "1.0": {
            "meta-data/ami-id": identity.ami,
            "meta-data/ami-launch-index": "0",
            "meta-data/ami-manifest-path": "(unknown)",
            "meta-data/hostname": host,
            "meta-data/instance-id": identity.instance_id,
            "meta-data/local-ipv4": instance.address,
            "meta-data/public-keys/0/openssh-key": instance.public_key.strip() + "\n",
            "meta-data/reservation-id": identity.reservation,
            "meta-data/security-groups": "default",
        },
        "2007-01-19": {"meta-data/local-hostname": host},
        "2007-08-29": {"meta-data/instance-type": kind},
        "2007-12-15": {
            "meta-data/block-device-mapping/ami": "/dev/xvda",
            "meta-data/block-device-mapping/root": "/dev/xvda",
        },
        "2008-02-01": {"meta-data/placement/availability-zone": f"{region}a"},
        "2008-09-01": {"meta-data/instance-action": "none"},
        "2011-01-01": {
            "meta-data/mac": identity.mac,
            f"{card}/device-number": "0",
            f"{card}/interface-id": identity.interface,
            f"{card}/local-hostname": host,
            f"{card}/local-ipv4s": instance.address,
            f"{card}/mac": identity.mac,
            f"{card}/owner-id": ACCOUNT,
            f"{card}/security-group-ids": identity.group,
            f"{card}/security-groups": "default",
            f"{card}/subnet-id": identity.subnet,
            f"{card}/subnet-ipv4-cidr-block": network,
            f"{card}/vpc-id": identity.vpc,
            f"{card}/vpc-ipv4-cidr-block": network,
        },
        "2011-05-01": {"meta-data/metrics/vhostmd": '<?xml version="1.0" encoding="UTF-8"?>'},
        "2012-01-12": {"meta-data/profile": "default-hvm"},
        "2014-02-25": {"meta-data/services/domain": "amazonaws.com"},
        "2015-10-20": {"meta-data/services/partition": "aws"},
        "2016-06-30": {f"{card}/vpc-ipv4-cidr-blocks": network},
        "2018-08-17": {
            "meta-data/events/maintenance/history": "[]",
            "meta-data/events/maintenance/scheduled": "[]",
        },
        "2019-10-01": {
            "meta-data/instance-life-cycle": "on-demand",
            "meta-data/placement/region": region,
        },
        "2020-10-27": {
            "meta-data/placement/availability-zone-id": "use1-az1",
            "meta-data/system": "nitro",
        },
    }
    for since, values in by_version.items():
        for path, value in values.items():
            yield path, Leaf(since, value)
