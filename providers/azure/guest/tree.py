"""What the instance metadata service tells, field by field with the version that
brought it. All values are text.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from providers.azure.guest.identity import SUBSCRIPTION, Identity
from publisher.proof.guest import Instance, Look

Node: TypeAlias = "Mapping[str, Node] | list[Node] | str | bool"

VERSIONS = (
    "2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01",
    "2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01",
    "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15",
    "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
    "2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13",
    "2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07",
)  # fmt: skip
GROUP = "rehearsal"
IMAGE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
    "/galleries/rehearsal/images/rehearsal/versions/1.0.0"
)
_EXTENDED_SINCE = "2021-01-01"


def build(
    instance: Instance, identity: Identity, look: Look, *, location: str, version: str
) -> dict[str, Node]:
    """The whole tree as `version` shows it."""
    compute = _compute(instance, identity, look, location)
    return {
        "compute": {
            name: _since(value, version)
            for name, (since, value) in compute.items()
            if since <= version
        },
        "network": _network(instance, identity),
    }


def extended(instance: Instance, version: str) -> dict[str, Node]:
    """What extended=true adds, for cloud-init."""
    if version < _EXTENDED_SINCE:
        return {}
    return {"extended": {"compute": {"hasCustomData": bool(instance.user_data), "ppsType": "None"}}}


def _since(value: Node, version: str) -> Node:
    if not isinstance(value, Mapping):
        return value
    return {
        name: field for name, field in value.items() if _FIELDS.get(name, "2017-04-02") <= version
    }


_FIELDS = {
    "disablePasswordAuthentication": "2020-10-01",
    "encryptionAtHost": "2021-11-01",
    "securityType": "2021-12-13",
}
"""Fields that are younger than the object that they are in."""


def _compute(
    instance: Instance, identity: Identity, look: Look, location: str
) -> dict[str, tuple[str, Node]]:
    name = instance.hostname.partition(".")[0]
    resource = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
        f"/virtualMachines/{name}"
    )
    secure = str(look.boot == "uefi-secure").lower()
    return {
        "azEnvironment": ("2018-10-01", "AzurePublicCloud"),
        "customData": ("2019-02-01", ""),
        "evictionPolicy": ("2020-12-01", ""),
        "isHostCompatibilityLayerVm": ("2020-06-01", "false"),
        "licenseType": ("2020-09-01", ""),
        "location": ("2017-04-02", location),
        "name": ("2017-04-02", name),
        "offer": ("2017-04-02", ""),
        "osProfile": (
            "2020-07-15",
            {
                "adminUsername": instance.user,
                "computerName": instance.hostname,
                "disablePasswordAuthentication": "true",
            },
        ),
        "osType": ("2017-04-02", "Linux"),
        "placementGroupId": ("2017-08-01", ""),
        "plan": ("2018-04-02", {"name": "", "product": "", "publisher": ""}),
        "platformFaultDomain": ("2017-04-02", "0"),
        "platformUpdateDomain": ("2017-04-02", "0"),
        "priority": ("2020-12-01", ""),
        "provider": ("2018-10-01", "Microsoft.Compute"),
        "publicKeys": (
            "2018-04-02",
            [
                {
                    "keyData": instance.public_key.strip() + "\n",
                    "path": f"/home/{instance.user}/.ssh/authorized_keys",
                }
            ],
        ),
        "publisher": ("2017-04-02", ""),
        "resourceGroupName": ("2017-08-01", GROUP),
        "resourceId": ("2019-03-11", resource),
        "securityProfile": (
            "2020-06-01",
            {
                "secureBootEnabled": secure,
                "virtualTpmEnabled": str(look.tpm).lower(),
                "encryptionAtHost": "false",
                "securityType": "TrustedLaunch" if look.tpm else "",
            },
        ),
        "sku": ("2017-04-02", ""),
        "storageProfile": ("2019-06-01", _storage(name)),
        "subscriptionId": ("2017-08-01", SUBSCRIPTION),
        "tags": ("2017-08-01", ""),
        "tagsList": ("2019-06-04", []),
        "userData": ("2021-01-01", ""),
        "version": ("2017-04-02", ""),
        "vmId": ("2017-04-02", identity.vm_id),
        "vmScaleSetName": ("2017-12-01", ""),
        "vmSize": ("2017-04-02", look.kind),
        "zone": ("2017-12-01", ""),
    }


def _storage(name: str) -> Node:
    disk = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
        f"/disks/{name}_OsDisk"
    )
    return {
        "dataDisks": [],
        "imageReference": {"id": IMAGE, "offer": "", "publisher": "", "sku": "", "version": ""},
        "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "diffDiskSettings": {"option": ""},
            "diskSizeGB": "30",
            "encryptionSettings": {"enabled": "false"},
            "image": {"uri": ""},
            "managedDisk": {"id": disk, "storageAccountType": "Premium_LRS"},
            "name": f"{name}_OsDisk",
            "osType": "Linux",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        },
        "resourceDisk": {"size": "0"},
    }


def _network(instance: Instance, identity: Identity) -> Node:
    network = ".".join(instance.address.split(".")[:3]) + ".0"
    address: Node = {"privateIpAddress": instance.address, "publicIpAddress": ""}
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [address],
                    "subnet": [{"address": network, "prefix": "24"}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": identity.mac.replace(":", "").upper(),
            }
        ]
    }
