"""The ids of one instance, derived from the rehearsal's seed."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Identity:
    """`uuid` is the machine's as Linux shows it. On generation 1, whose SMBIOS is
    older than 2.6, that is the vmId with the bytes of its first three fields reversed:
    https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service"""

    vm_id: str
    uuid: str
    mac: str
    container: str
    deployment: str
    role_instance: str

    @classmethod
    def of(cls, seed: str, hostname: str, *, generation_1: bool) -> Identity:
        def digest(purpose: str) -> bytes:
            return hashlib.sha256(f"{seed}/{purpose}".encode()).digest()

        vm = uuid.UUID(bytes=digest("instance")[:16], version=4)
        shown = uuid.UUID(bytes=vm.bytes_le) if generation_1 else vm
        deployment = str(uuid.UUID(bytes=digest("deployment")[:16], version=4))
        return cls(
            vm_id=str(vm),
            uuid=str(shown),
            mac=":".join(["00", "0d", "3a", *(f"{byte:02x}" for byte in digest("mac")[:3])]),
            container=str(uuid.UUID(bytes=digest("container")[:16], version=4)),
            deployment=deployment,
            role_instance=f"{deployment}._{hostname.partition('.')[0]}",
        )
