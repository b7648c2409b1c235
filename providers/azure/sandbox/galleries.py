"""Microsoft.Compute/galleries, their image definitions, and sharing."""

from __future__ import annotations

import re
import uuid
from typing import Any

from providers.azure.sandbox.gallery_resources import (
    DEFINITION,
    GALLERY,
    GalleryResources,
    security_type,
)
from providers.azure.sandbox.resources import location
from providers.azure.sandbox.store import Entry
from providers.azure.sandbox.web import Answer, Refused, Request

_GALLERY_NAME = re.compile(r"[A-Za-z0-9](?:[\w.]{0,78}[A-Za-z0-9])?")
_DEFINITION_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,78}\w)?")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LIMITS = {"Subscriptions": 30, "AADTenants": 5}
_NOT_SHARED = ("TrustedLaunch", "ConfidentialVM")
_FIXED = ("osType", "osState", "hyperVGeneration", "architecture", "identifier", "features")


class Galleries(GalleryResources):
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
            if security_type(definition) in _NOT_SHARED:
                raise Refused(
                    409,
                    "OperationNotAllowed",
                    f"Image {definition.body['name']} of SecurityType {security_type(definition)} "
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
            entry.properties["architecture"] == "Arm64" or security_type(entry) != "Standard"
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

    def _childless(self, entry: Entry, collection: str) -> None:
        if self._state.under(collection):
            raise Refused(
                409,
                "CannotDeleteResource",
                f"Can not delete {entry.body['name']} before nested resources are deleted.",
            )
