"""Microsoft.Compute/galleries, their image definitions and versions, and sharing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from providers.azure.sandbox.operations import Operations
from providers.azure.sandbox.resources import LOCATIONS, location
from providers.azure.sandbox.schema import Types
from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.web import Answer, Refused, Request
from publisher.disks import vhd
from publisher.model import GIB

GALLERY = "Microsoft.Compute/galleries"
DEFINITION = f"{GALLERY}/images"
VERSION = f"{DEFINITION}/versions"
_GALLERY_NAME = re.compile(r"[A-Za-z0-9](?:[\w.]{0,78}[A-Za-z0-9])?")
_DEFINITION_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,78}\w)?")
_VERSION_NAME = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LIMITS = {"Subscriptions": 30, "AADTenants": 5}
_NOT_SHARED = ("TrustedLaunch", "ConfidentialVM")
_FIXED = ("osType", "osState", "hyperVGeneration", "architecture", "identifier", "features")


class Galleries:
    def __init__(self, state: State, operations: Operations) -> None:
        self._state = state
        self._operations = operations
        self._types = Types("galleries")

    @property
    def version(self) -> str:
        return self._types.version

    def entry(self, id_: str) -> Entry:
        found = self._state.get(id_)
        if found is None:
            raise Refused(404, "ResourceNotFound", f"The Resource '{id_}' was not found.")
        return found

    # -- galleries

    def get_gallery(self, request: Request, entry: Entry) -> Answer:
        """Permissions and groups only where they are asked for, as Azure does."""
        self._operations.look(entry)
        profile = dict(entry.properties.get("sharingProfile") or {"permissions": "Private"})
        if request.query.get("$expand") != "SharingProfile/Groups":
            profile.pop("groups", None)
        properties = {**entry.properties, "sharingProfile": profile}
        if request.query.get("$select") != "Permissions" and "$expand" not in request.query:
            properties.pop("sharingProfile")
        return Answer(200, {**entry.body, "properties": properties})

    def put_gallery(self, request: Request, id_: str) -> Answer:
        name = id_.rpartition("/")[2]
        body = request.json()
        self._types.check_resource(GALLERY, name, body)
        if not _GALLERY_NAME.fullmatch(name):
            raise Refused(
                400,
                "InvalidParameter",
                f"The gallery name '{name}' is invalid: letters, digits, dots and underscores.",
                "galleryName",
            )
        place = location(body["location"])
        properties = body.get("properties") or {}
        wanted = properties.get("sharingProfile")
        found = self._state.get(id_)
        if found is None:
            fresh = self._new(id_, GALLERY, place, body, properties)
            fresh.properties["sharingProfile"] = self._profile({}, wanted or {})
            fresh.properties["identifier"] = {"uniqueName": f"{uuid.uuid4()}-{name.upper()}"}
            return self._begin(request, fresh, 201)
        self._same(found, place)
        found.body["tags"] = body.get("tags") or {}
        found.properties["description"] = properties.get("description", "")
        if wanted is not None:
            current = found.properties["sharingProfile"]
            found.properties["sharingProfile"] = self._profile(current, wanted)
        return self._begin(request, found, 200)

    @staticmethod
    def _profile(current: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        before = current.get("permissions", "Private")
        permissions = wanted.get("permissions", before)
        if before not in ("Private", permissions):
            raise Refused(
                409,
                "PropertyChangeNotAllowed",
                f"Sharing can't go from {before} to {permissions}: reset it first.",
                "permissions",
            )
        if permissions != "Community":
            return {**current, "permissions": permissions}
        info = {**(wanted.get("communityGalleryInfo") or current.get("communityGalleryInfo") or {})}
        for key in ("publisherUri", "publisherContact", "eula", "publicNamePrefix"):
            if not info.get(key):
                raise Refused(400, "InvalidParameter", f"A community gallery needs {key}.", key)
        info.setdefault("communityGalleryEnabled", False)
        info["publicNames"] = [f"{info['publicNamePrefix']}-{uuid.uuid4()}"]
        return {"permissions": permissions, "communityGalleryInfo": info}

    def delete_gallery(self, request: Request, entry: Entry) -> Answer:
        self._childless(entry, f"{entry.id}/images")
        return self._leave(request, entry)

    def share(self, request: Request, entry: Entry) -> Answer:
        body = request.json()
        self._types.check_action(GALLERY, "share", body)
        profile = entry.properties["sharingProfile"]
        operation = body["operationType"]
        if operation != "Reset":
            self._shareable(entry)
        if operation == "Reset":
            profile = {"permissions": "Private"}
        elif operation == "EnableCommunity":
            if profile.get("permissions") != "Community":
                raise Refused(409, "Conflict409", "The gallery is no community gallery.")
            info = {**profile["communityGalleryInfo"], "communityGalleryEnabled": True}
            profile = {**profile, "communityGalleryInfo": info}
        else:
            if profile.get("permissions") != "Groups":
                raise Refused(
                    409, "OperationNotAllowed", "Only a gallery with permissions Groups has groups."
                )
            groups = self._groups(profile.get("groups") or [], body, operation)
            profile = {**profile, "groups": groups}
        entry.properties["sharingProfile"] = profile
        self._state.save()
        return self._operations.start(
            request, "capsOperations", entry, status=202, styles="async location", result=body
        )

    @staticmethod
    def _groups(
        current: list[dict[str, Any]], body: dict[str, Any], operation: str
    ) -> list[dict[str, Any]]:
        held = {group["type"]: list(group["ids"]) for group in current}
        for group in body.get("groups") or []:
            ids = held.setdefault(group.get("type", ""), [])
            for item in group.get("ids") or []:
                if not _GUID.fullmatch(item):
                    raise Refused(400, "InvalidParameter", f"'{item}' is no id.", "groups")
                if operation == "Add" and item not in ids:
                    ids.append(item)
                if operation == "Remove" and item in ids:
                    ids.remove(item)
        for kind, ids in held.items():
            if len(ids) > _LIMITS.get(kind, 0):
                raise Refused(
                    400, "InvalidParameter", f"A gallery takes {_LIMITS.get(kind, 0)} {kind}."
                )
        return [{"type": kind, "ids": ids} for kind, ids in held.items() if ids]

    def _shareable(self, entry: Entry) -> None:
        for definition in self._state.under(f"{entry.id}/images"):
            if _security(definition) in _NOT_SHARED:
                raise Refused(
                    409,
                    "OperationNotAllowed",
                    f"Image {definition.body['name']} of SecurityType {_security(definition)} "
                    "can't be shared.",
                )

    # -- definitions

    def get_definition(self, _request: Request, entry: Entry) -> Answer:
        self._operations.look(entry)
        return Answer(200, entry.body)

    def put_definition(self, request: Request, id_: str) -> Answer:
        parent, _, name = id_.rpartition("/images/")
        body = request.json()
        self._types.check_resource(DEFINITION, name, body)
        self.entry(parent)
        if not _DEFINITION_NAME.fullmatch(name):
            raise Refused(
                400, "InvalidParameter", f"The image name '{name}' is invalid.", "galleryImageName"
            )
        place = location(body["location"])
        properties = body["properties"]
        found = self._state.get(id_)
        if found is not None:
            return self._update_definition(request, found, body, place)
        identifier = properties["identifier"]
        for other in self._state.under(f"{parent}/images"):
            if other.properties["identifier"] == identifier:
                raise Refused(
                    409,
                    "Conflict409",
                    f"Image {other.body['name']} has the same publisher, offer and sku.",
                    "identifier",
                )
        entry = self._new(id_, DEFINITION, place, body, properties)
        # What is not said changes with the API version: V2 and trusted launch here.
        entry.properties.setdefault("hyperVGeneration", "V2")
        entry.properties.setdefault("architecture", "x64")
        features = entry.properties.setdefault("features", [])
        generation = entry.properties["hyperVGeneration"]
        if not any(f.get("name") == "SecurityType" for f in features) and generation == "V2":
            features.append({"name": "SecurityType", "value": "TrustedLaunchSupported"})
        if generation == "V1" and (
            entry.properties["architecture"] == "Arm64" or _security(entry) != "Standard"
        ):
            raise Refused(
                400, "InvalidParameter", "Arm64 and trusted launch need V2.", "hyperVGeneration"
            )
        return self._begin(request, entry, 201)

    def _update_definition(
        self, request: Request, entry: Entry, body: dict[str, Any], place: str
    ) -> Answer:
        self._same(entry, place)
        for key in _FIXED:
            wanted = body["properties"].get(key, entry.properties.get(key))
            if wanted != entry.properties.get(key):
                raise Refused(
                    409, "PropertyChangeNotAllowed", f"Changing '{key}' is not allowed.", key
                )
        entry.properties.update(body["properties"])
        entry.body["tags"] = body.get("tags") or {}
        return self._begin(request, entry, 200)

    def delete_definition(self, request: Request, entry: Entry) -> Answer:
        self._childless(entry, f"{entry.id}/versions")
        return self._leave(request, entry)

    # -- versions

    def get_version(self, request: Request, entry: Entry) -> Answer:
        self._operations.look(entry)
        properties = dict(entry.properties)
        if request.query.get("$expand") == "ReplicationStatus":
            properties["replicationStatus"] = _replication(entry)
        return Answer(200, {**entry.body, "properties": properties})

    def put_version(self, request: Request, id_: str) -> Answer:
        parent, _, name = id_.rpartition("/versions/")
        body = request.json()
        self._types.check_resource(VERSION, name, body)
        definition = self.entry(parent)
        numbers = _VERSION_NAME.fullmatch(name)
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
        entry.properties["publishingProfile"]["publishedDate"] = "2026-01-01T00:00:00Z"
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
        if _security(definition) != "Standard" and "supportedSecurityOption" not in capabilities:
            raise Refused(
                400,
                "InvalidParameter",
                f"The source disk does not support the image's SecurityType "
                f"{_security(definition)}.",
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

    def delete_version(self, request: Request, entry: Entry) -> Answer:
        if self._operations.busy(entry) and not entry.leaving:
            raise Refused(409, "Conflict", f"Image version {entry.body['name']} is being changed.")
        return self._leave(request, entry)

    # -- what they share

    @staticmethod
    def _new(
        id_: str,
        kind: str,
        place: str,
        body: dict[str, Any],
        properties: dict[str, Any],
        blob: str = "",
    ) -> Entry:
        made = {
            "id": id_,
            "name": id_.rpartition("/")[2],
            "type": kind,
            "location": place,
            "tags": body.get("tags") or {},
            "properties": dict(properties),
        }
        return Entry(id_, made, blob=blob)

    def _begin(self, request: Request, entry: Entry, status: int) -> Answer:
        entry.properties["provisioningState"] = "Creating" if status == 201 else "Updating"
        entry.then["provisioningState"] = "Succeeded"
        self._state.put(entry)
        return self._operations.start(
            request, "capsOperations", entry, status=status, styles="async", body=entry.body
        )

    def _leave(self, request: Request, entry: Entry) -> Answer:
        entry.leaving = True
        entry.properties["provisioningState"] = "Deleting"
        self._state.save()
        return self._operations.start(
            request, "capsOperations", entry, status=202, styles="async location"
        )

    def _childless(self, entry: Entry, collection: str) -> None:
        if self._state.under(collection):
            raise Refused(
                409,
                "CannotDeleteResource",
                f"Can not delete {entry.body['name']} before nested resources are deleted.",
            )

    @staticmethod
    def _same(entry: Entry, place: str) -> None:
        if entry.body["location"] != place:
            raise Refused(
                409,
                "InvalidResourceLocation",
                f"The resource '{entry.body['name']}' already exists in location "
                f"'{entry.body['location']}'.",
                "location",
            )


def _security(definition: Entry) -> str:
    for feature in definition.properties.get("features") or []:
        if feature.get("name") == "SecurityType":
            return str(feature.get("value"))
    return "Standard"


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
