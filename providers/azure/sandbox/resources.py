"""Subscriptions, resource groups, locations, permissions, usages, cloud metadata."""

from __future__ import annotations

import re
from typing import Any

from providers.azure.sandbox.store import State
from providers.azure.sandbox.web import Answer, Refused, Request

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
TENANT = "99999999-8888-4777-8666-555555555555"
GROUP = "images"
LOCATIONS = {
    "eastus": "East US",
    "eastus2": "East US 2",
    "westus2": "West US 2",
    "westus3": "West US 3",
    "canadacentral": "Canada Central",
    "brazilsouth": "Brazil South",
    "northeurope": "North Europe",
    "westeurope": "West Europe",
    "germanywestcentral": "Germany West Central",
    "swedencentral": "Sweden Central",
    "uksouth": "UK South",
    "japaneast": "Japan East",
    "southeastasia": "Southeast Asia",
    "australiaeast": "Australia East",
}
_GROUP_NAME = re.compile(r"[-\w._()]{0,89}[-\w_()]")


def location(name: Any) -> str:
    """The programmatic name of a known location. Raises Refused."""
    text = str(name).replace(" ", "").lower()
    if text not in LOCATIONS:
        raise Refused(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{name}' is not available for resource type.",
            "location",
        )
    return text


class Resources:
    """`permissions` and `disk_limit` may be changed by tests."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.permissions: list[dict[str, list[str]]] = [{"actions": ["*"], "notActions": []}]
        self.disk_limit = 50_000
        if not state.groups:
            state.groups[GROUP] = self._group_body(SUBSCRIPTION, GROUP, "westeurope", {})

    def subscription(self, _request: Request, subscription: str) -> Answer:
        return Answer(
            200,
            {
                "id": f"/subscriptions/{subscription}",
                "subscriptionId": subscription,
                "tenantId": TENANT,
                "displayName": "Sandbox",
                "state": "Enabled",
            },
        )

    def locations(self, _request: Request, subscription: str) -> Answer:
        value = [
            {
                "id": f"/subscriptions/{subscription}/locations/{name}",
                "name": name,
                "displayName": title,
                "regionalDisplayName": title,
                "type": "Region",
            }
            for name, title in LOCATIONS.items()
        ]
        return Answer(200, {"value": value})

    def get_group(self, _request: Request, _subscription: str, group: str) -> Answer:
        return Answer(200, self.group(group))

    def group(self, name: str) -> dict[str, Any]:
        """Raises Refused when it is not there."""
        found = self._state.groups.get(name.lower())
        if found is None:
            raise Refused(
                404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found."
            )
        return found

    def put_group(self, request: Request, subscription: str, group: str) -> Answer:
        body = request.json()
        if not isinstance(body, dict) or "location" not in body:
            raise Refused(400, "LocationRequired", "The location property is required.")
        if not _GROUP_NAME.fullmatch(group):
            raise Refused(400, "InvalidParameter", "The resource group name is invalid.")
        fresh = group.lower() not in self._state.groups
        made = self._group_body(
            subscription, group, location(body["location"]), body.get("tags") or {}
        )
        self._state.groups[group.lower()] = made
        self._state.save()
        return Answer(201 if fresh else 200, made)

    @staticmethod
    def _group_body(
        subscription: str, name: str, place: str, tags: dict[str, str]
    ) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{subscription}/resourceGroups/{name}",
            "name": name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": place,
            "tags": tags,
            "properties": {"provisioningState": "Succeeded"},
        }

    def get_permissions(self, _request: Request, _subscription: str, group: str) -> Answer:
        self.group(group)
        return Answer(200, {"value": self.permissions})

    def usages(self, _request: Request, _subscription: str, place: str) -> Answer:
        name = location(place)
        disks = sum(
            "/disks/" in key and entry.body["location"] == name
            for key, entry in self._state.resources.items()
        )
        value = [
            {
                "name": {"value": counter, "localizedValue": counter},
                "currentValue": disks if counter == "StandardDiskCount" else 0,
                "limit": self.disk_limit,
                "unit": "Count",
            }
            for counter in ("StandardDiskCount", "StandardSSDDiskCount", "PremiumDiskCount")
        ]
        return Answer(200, {"value": value})

    def metadata(self, request: Request) -> Answer:
        """What `az cloud register --endpoint-resource-manager` asks for."""
        root = request.root
        return Answer(
            200,
            {
                "name": "Sandbox",
                "resourceManager": root,
                "activeDirectory": root,
                "activeDirectoryResourceId": root,
                "authentication": {"loginEndpoint": root, "audiences": [root], "tenant": TENANT},
                "suffixes": {"storage": "core.windows.net"},
            },
        )
