"""The ids of one instance, derived from the rehearsal's seed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from publisher.proof.guest import Ids, derived

ACCOUNT = "123456789012"
"""The account of AWS's own examples."""


@dataclass(frozen=True, slots=True)
class Identity(Ids):
    """`uuid` starts with ec2, as AWS tells guests to recognise its machines:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html"""

    ami: str
    reservation: str
    interface: str
    vpc: str
    subnet: str
    group: str

    @classmethod
    def of(cls, seed: str) -> Identity:
        def digits(purpose: str, count: int) -> str:
            return derived(seed, purpose).hex()[:count]

        mac = digits("mac", 10)
        return cls(
            instance_id=f"i-0{digits('instance', 16)}",
            uuid=str(uuid.UUID(f"ec2{digits('machine', 29)}")),
            mac=":".join(["02", *(mac[at : at + 2] for at in range(0, 10, 2))]),
            ami=f"ami-0{digits('image', 16)}",
            reservation=f"r-0{digits('reservation', 16)}",
            interface=f"eni-0{digits('interface', 16)}",
            vpc=f"vpc-0{digits('vpc', 16)}",
            subnet=f"subnet-0{digits('subnet', 16)}",
            group=f"sg-0{digits('group', 16)}",
        )
