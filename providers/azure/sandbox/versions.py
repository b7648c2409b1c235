"""Microsoft.Compute/galleries/images/versions: bytes, target regions, replication."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from providers.azure.sandbox.gallery_resources import VERSION, GalleryResources, security_type
from providers.azure.sandbox.resources import LOCATIONS, location
from providers.azure.sandbox.store import Entry
from providers.azure.sandbox.web import Answer, Refused, Request
from publisher.disks import vhd
from publisher.model import GIB

_NAME = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Versions(GalleryResources):
    def get(self, request: Request, entry: Entry) -> Answer:
        self._operations.look(entry)
        properties = dict(entry.properties)
        if request.query.get("$expand") == "ReplicationStatus":
            properties["replicationStatus"] = _replication(entry)
        return Answer(200, {**entry.body, "properties": properties})

    def put(self, request: Request, id_: str) -> Answer:
        parent, _, name = id_.rpartition("/versions/")
        body = request.json()
        self._types.check_resource(VERSION, name, body)
        definition = self.entry(parent)
        numbers = _NAME.fullmatch(name)
        if numbers is None or any(int(n) > 2**31 - 1 for n in numbers.groups()):
            raise Refused(
                400,
                "InvalidParameter",
                f"The image version name '{name}' is invalid: use Major.Minor.Patch.",
                "galleryImageVersionName",
            )
        place = location(body["location"])
        properties = body["properties"]
        regions = _regions(properties, place)
        found = self._state.get(id_)
        if found is not None:
            return self._update_version(request, found, body, regions)
        source = self._source(properties, definition, place)
        blob = self._state.blobs.copy(source.blob)
        size = self._state.blobs.open(blob).size - vhd.FOOTER
        entry = self._new(id_, VERSION, place, body, properties, blob=blob)
        entry.properties["storageProfile"]["osDiskImage"]["sizeInGB"] = -(-size // GIB)
        entry.properties["publishingProfile"]["publishedDate"] = _now()
        _set_regions(entry, regions)
        entry.then["regions"] = regions
        return self._begin(request, entry, 201)

    def _source(self, properties: dict[str, Any], definition: Entry, place: str) -> Entry:
        reference = (properties["storageProfile"].get("osDiskImage") or {}).get("source") or {}
        disk = self._state.get(reference.get("id", ""))
        if disk is None or "/disks/" not in disk.id.lower():
            raise Refused(404, "NotFound", f"The source {reference} was not found.", "source")
        if disk.body["location"] != place:
            raise Refused(
                400, "InvalidParameter", "Source and image version must be in the same location."
            )
        if disk.properties.get("diskState") != "Unattached":
            raise Refused(
                409,
                "OperationNotAllowed",
                f"The source disk is in state {disk.properties.get('diskState')}, not Unattached.",
            )
        capabilities = disk.properties.get("supportedCapabilities") or {}
        for what, has, wants in (
            ("hyperVGeneration", disk.properties.get("hyperVGeneration", "V1"),
             definition.properties["hyperVGeneration"]),
            ("architecture", capabilities.get("architecture", "x64"),
             definition.properties["architecture"]),
        ):  # fmt: skip
            if has != wants:
                raise Refused(
                    400, "InvalidParameter", f"{what} of the source is {has}, of the image {wants}."
                )
        if (
            security_type(definition) != "Standard"
            and "supportedSecurityOption" not in capabilities
        ):
            raise Refused(
                400,
                "InvalidParameter",
                f"The source disk does not support the image's SecurityType "
                f"{security_type(definition)}.",
            )
        return disk

    def _update_version(
        self, request: Request, entry: Entry, body: dict[str, Any], regions: list[str]
    ) -> Answer:
        if self._operations.busy(entry) or entry.leaving:
            raise Refused(409, "Conflict", f"Image version {entry.body['name']} is being changed.")
        self._same(entry, location(body["location"]))
        has, wants = entry.properties, body["properties"]
        source = has["storageProfile"]["osDiskImage"]["source"]
        wanted = (wants["storageProfile"].get("osDiskImage") or {}).get("source") or source
        fixed = [("source", source, wanted)]
        profile = wants.get("publishingProfile") or {}
        for key in ("storageAccountType", "replicationMode"):
            before = has["publishingProfile"].get(key)
            fixed.append((key, before, profile.get(key, before)))
        for key, before, after in fixed:
            if before != after:
                raise Refused(
                    409, "PropertyChangeNotAllowed", f"Changing '{key}' is not allowed.", key
                )
        safety = wants.get("safetyProfile") or has.get("safetyProfile") or {}
        lost = [region for region in entry.regions if region not in regions]
        if lost and not safety.get("allowDeletionOfReplicatedLocations"):
            raise Refused(
                400,
                "OperationNotAllowed",
                f"Removing the replicated regions {', '.join(lost)} is not allowed by the "
                "safety profile.",
            )
        has["publishingProfile"] = {**has["publishingProfile"], **profile}
        has["safetyProfile"] = safety
        entry.body["tags"] = body.get("tags") or {}
        _set_regions(entry, regions)
        entry.regions = [region for region in entry.regions if region in regions]
        entry.then["regions"] = regions
        return self._begin(request, entry, 200)

    def delete(self, request: Request, entry: Entry) -> Answer:
        if self._operations.busy(entry) and not entry.leaving:
            raise Refused(409, "Conflict", f"Image version {entry.body['name']} is being changed.")
        return self._leave(request, entry)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _regions(properties: dict[str, Any], place: str) -> list[str]:
    """The target regions, checked."""
    profile = properties.get("publishingProfile") or {}
    targets = profile.get("targetRegions") or [{"name": place}]
    regions = [location(target["name"]) for target in targets]
    if len(set(regions)) != len(regions):
        raise Refused(
            400, "InvalidParameter", "Duplicate regions are not allowed in target regions."
        )
    if place not in regions:
        raise Refused(
            400, "InvalidParameter", f"The target regions must contain the source region {place}."
        )
    for target in [profile, *targets]:
        count = target.get("regionalReplicaCount", target.get("replicaCount", 1))
        if not 1 <= count <= 100:
            raise Refused(400, "InvalidParameter", "A region has 1 to 100 replicas.")
    return regions


def _set_regions(entry: Entry, regions: Sequence[str]) -> None:
    """Azure answers with the regions' display names."""
    profile = entry.properties["publishingProfile"]
    given = profile.get("targetRegions") or [{"name": name} for name in regions]
    profile["targetRegions"] = [
        {"regionalReplicaCount": 1, **target, "name": LOCATIONS[name]}
        for target, name in zip(given, regions, strict=True)
    ]


def _replication(entry: Entry) -> dict[str, Any]:
    done = entry.regions
    summary = []
    for target in entry.properties["publishingProfile"]["targetRegions"]:
        over = location(target["name"]) in done
        summary.append(
            {
                "region": target["name"],
                "state": "Completed" if over else "Replicating",
                "progress": 100 if over else 50,
                "details": "",
            }
        )
    complete = all(item["state"] == "Completed" for item in summary)
    return {"aggregatedState": "Completed" if complete else "InProgress", "summary": summary}
