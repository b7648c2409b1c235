"""The ids of one instance, derived from the rehearsal's seed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from publisher.proof.guest import Ids, derived

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Identity(Ids):
    """cloud-init names the instance by `uuid`, which is the machine's as Linux shows it.
    On generation 1, whose SMBIOS is older than 2.6, that is the vmId with the bytes of
    its first three fields reversed:
    https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service"""

    vm_id: str
    container: str
    deployment: str
    role_instance: str

    @classmethod
    def of(cls, seed: str, hostname: str, *, generation_1: bool) -> Identity:
        vm = uuid.UUID(bytes=derived(seed, "instance")[:16], version=4)
        shown = uuid.UUID(bytes=vm.bytes_le) if generation_1 else vm
        deployment = str(uuid.UUID(bytes=derived(seed, "deployment")[:16], version=4))
        return cls(
            instance_id=str(shown),
            uuid=str(shown),
            vm_id=str(vm),
            mac=":".join(["00", "0d", "3a", *(f"{byte:02x}" for byte in derived(seed, "mac")[:3])]),
            container=str(uuid.UUID(bytes=derived(seed, "container")[:16], version=4)),
            deployment=deployment,
            role_instance=f"{deployment}._{hostname.partition('.')[0]}",
        )
