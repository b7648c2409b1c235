"""The ids of one instance, derived from the rehearsal's seed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from publisher.proof.guest import Ids, derived

PROJECT_NUMBER = 123456789012
ACCOUNT = "rehearsal@rehearsal-project.iam.gserviceaccount.invalid"
"""The service account of the machine; nobody can give it anything."""


@dataclass(frozen=True, slots=True)
class Identity(Ids):
    """`mac` is Google's form: 42:01 and the four bytes of the IPv4 address."""

    @classmethod
    def of(cls, seed: str, address: str) -> Identity:
        digest = derived(seed, "instance")
        number = 10**18 + int.from_bytes(digest[:8], "big") % (8 * 10**18)
        octets = (f"{int(octet):02x}" for octet in address.split("."))
        return cls(
            instance_id=str(number),
            uuid=str(uuid.UUID(bytes=digest[8:24])),
            mac=":".join(["42", "01", *octets]),
        )
