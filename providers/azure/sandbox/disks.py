"""Microsoft.Compute/disks: direct upload, disks from images, access by SAS."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from providers.azure.sandbox import pages
from providers.azure.sandbox.operations import Operations
from providers.azure.sandbox.resources import location
from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.stored import Stored
from providers.azure.sandbox.web import Answer, Refused, Request
from publisher.disks import vhd
from publisher.model import GIB, MIB

KIND = "Microsoft.Compute/disks"
_NAME = re.compile(r"[^_\W](?:[\w.-]{0,78}\w)?")
_UPLOAD_MIN, _UPLOAD_MAX = 20_972_032, 35_183_298_347_520
_SAS_MAX = 60 * 24 * 3600


class Disks(Stored):
    def __init__(self, state: State, operations: Operations) -> None:
        super().__init__(state, operations, "disks")

    def _named(self, id_: str) -> str:
        return f"{KIND}/{id_.rpartition('/')[2]}"

    def get(self, _request: Request, entry: Entry) -> Answer:
        self._operations.look(entry)
        return Answer(200, entry.body)

    def put(self, request: Request, id_: str) -> Answer:
        name = id_.rpartition("/")[2]
        body = request.json()
        self._types.check_resource(KIND, name, body)
        if len(name) > 80 or not _NAME.fullmatch(name):
            raise Refused(400, "InvalidParameter", f"The disk name '{name}' is invalid.", "name")
        place = location(body["location"])
        found = self._state.get(id_)
        if found is not None:
            return self._update(request, found, body)
        properties = body["properties"]
        creation = properties["creationData"]
        option = creation["createOption"].lower()
        if option == "upload":
            size, blob, state = self._for_upload(properties)
        elif option == "fromimage":
            size, blob, state = self._from_image(creation, place)
        else:
            raise Refused(
                400, "InvalidParameter", "The sandbox makes disks by Upload and FromImage only."
            )
        self._check_generation(properties)
        entry = Entry(
            id_,
            {
                "id": id_,
                "name": name,
                "type": KIND,
                "location": place,
                "tags": body.get("tags") or {},
                "sku": {"name": "Standard_LRS", **body.get("sku", {})},
                "properties": {
                    **properties,
                    "timeCreated": _now(),
                    "uniqueId": str(uuid.uuid4()),
                    "diskSizeBytes": size,
                    "diskSizeGB": -(-size // GIB),
                    "provisioningState": "Creating",
                },
            },
            blob=blob,
            then={"provisioningState": "Succeeded", "diskState": state},
        )
        self._state.put(entry)
        return self._operations.start(
            request, "DiskOperations", entry, status=202, styles="async location", body=entry.body
        )

    def _update(self, request: Request, entry: Entry, body: dict[str, Any]) -> Answer:
        self._idle(entry)
        properties = body["properties"]
        for key in ("creationData", "hyperVGeneration", "osType"):
            if key in properties and properties[key] != entry.properties.get(key):
                raise Refused(
                    409,
                    "PropertyChangeNotAllowed",
                    f"Changing property '{key}' is not allowed.",
                    key,
                )
        entry.body["tags"] = body.get("tags") or {}
        self._state.save()
        return self._operations.start(
            request, "DiskOperations", entry, status=202, styles="async location", body=entry.body
        )

    def _for_upload(self, properties: dict[str, Any]) -> tuple[int, str, str]:
        wanted = properties["creationData"].get("uploadSizeBytes")
        if wanted is None:
            raise Refused(
                400, "InvalidParameter", "Required parameter 'uploadSizeBytes' is missing (null)."
            )
        if not _UPLOAD_MIN <= wanted <= _UPLOAD_MAX or (wanted - vhd.FOOTER) % MIB:
            raise Refused(
                400,
                "InvalidParameter",
                f"The value {wanted} of uploadSizeBytes is invalid: a multiple of 1 MiB and 512 "
                f"bytes for the VHD footer, between {_UPLOAD_MIN} and {_UPLOAD_MAX}.",
                "uploadSizeBytes",
            )
        if "diskSizeGB" in properties:
            raise Refused(
                400, "InvalidParameter", "diskSizeGB must not be set with Upload.", "diskSizeGB"
            )
        return wanted - vhd.FOOTER, self._state.blobs.create(wanted), "ReadyToUpload"

    def _from_image(self, creation: dict[str, Any], place: str) -> tuple[int, str, str]:
        reference = creation.get("galleryImageReference") or {}
        version = self._state.get(reference.get("id", ""))
        if version is None or "/versions/" not in version.id.lower():
            raise Refused(
                404, "GalleryImageNotFound", f"The gallery image {reference} is not available."
            )
        regions = version.properties["publishingProfile"]["targetRegions"]
        if place not in [region["name"].replace(" ", "").lower() for region in regions]:
            raise Refused(
                404,
                "GalleryImageNotFound",
                f"The gallery image {version.id} is not available in {place} region.",
            )
        if version.properties["provisioningState"] != "Succeeded":
            raise Refused(409, "Conflict", f"The gallery image {version.id} is being changed.")
        blob = self._state.blobs.copy(version.blob)
        return self._state.blobs.open(blob).size - vhd.FOOTER, blob, "Unattached"

    @staticmethod
    def _check_generation(properties: dict[str, Any]) -> None:
        capabilities = properties.get("supportedCapabilities") or {}
        if properties.get("hyperVGeneration") == "V2":
            return
        if capabilities.get("architecture") == "Arm64":
            raise Refused(400, "InvalidParameter", "Arm64 needs hyperVGeneration V2.")
        if "supportedSecurityOption" in capabilities or "securityProfile" in properties:
            raise Refused(400, "InvalidParameter", "Trusted launch needs hyperVGeneration V2.")

    def delete(self, request: Request, entry: Entry) -> Answer:
        if any(grant["blob"] == entry.blob for grant in self._state.grants.values()):
            raise Refused(
                409,
                "OperationNotAllowed",
                f"There is an active shared access signature outstanding for disk "
                f"{entry.body['name']}. Call EndGetAccess before deleting it.",
            )
        if not entry.leaving:
            self._idle(entry)
            entry.leaving = True
            entry.properties["provisioningState"] = "Deleting"
            self._state.save()
        return self._operations.start(
            request, "DiskOperations", entry, status=202, styles="location"
        )

    def begin_get_access(self, request: Request, entry: Entry) -> Answer:
        body = request.json()
        self._types.check_action(KIND, "beginGetAccess", body)
        self._idle(entry)
        if not 0 < body["durationInSeconds"] <= _SAS_MAX:
            raise Refused(
                400, "InvalidParameter", "A SAS lives 60 days at most.", "durationInSeconds"
            )
        state = entry.properties.get("diskState")
        allowed = {
            "write": ("ReadyToUpload", "ActiveUpload"),
            "read": ("Unattached", "ActiveSAS"),
        }.get(body["access"].lower(), ())
        if state not in allowed:
            raise Refused(
                409,
                "OperationNotAllowed",
                f"{body['access']} access is not allowed for disk {entry.body['name']} "
                f"in state {state}.",
            )
        policy = str(uuid.uuid4())
        self._state.grants[policy] = {
            "blob": entry.blob,
            "access": body["access"].lower(),
            "expires": time.time() + body["durationInSeconds"],
        }
        entry.properties["diskState"] = (
            "ActiveUpload" if body["access"].lower() == "write" else "ActiveSAS"
        )
        self._state.save()
        sas = request.root + pages.sign(self._state.key, entry.blob, policy)
        return self._operations.start(
            request,
            "DiskOperations",
            entry,
            status=202,
            styles="async location",
            result={"accessSAS": sas},
        )

    def end_get_access(self, request: Request, entry: Entry) -> Answer:
        """Ends the access at once. An upload becomes a disk only if its footer is right."""
        self._state.grants = {
            policy: grant
            for policy, grant in self._state.grants.items()
            if grant["blob"] != entry.blob
        }
        error = None
        state = entry.properties.get("diskState")
        if state == "ActiveSAS":
            entry.then = {"diskState": "Unattached"}
        elif state == "ActiveUpload":
            error = self._footer_error(entry)
            if error is None:
                entry.then = {"diskState": "Unattached"}
        self._state.save()
        return self._operations.start(
            request, "DiskOperations", entry, status=202, styles="location", error=error
        )

    def _footer_error(self, entry: Entry) -> Refused | None:
        blob = self._state.blobs.open(entry.blob)
        size = blob.size - vhd.FOOTER
        try:
            stated = vhd.parse(blob.read(size, vhd.FOOTER))
        except vhd.VhdError as error:
            return Refused(409, "InvalidVhd", f"Disk '{entry.body['name']}': {error.message}.")
        if stated != size:
            return Refused(
                409, "InvalidVhd", f"The VHD footer states {stated} bytes, the disk has {size}."
            )
        return None

    def _idle(self, entry: Entry) -> None:
        if self._operations.busy(entry):
            raise Refused(
                409,
                "AnotherOperationInProgress",
                f"Another operation on disk {entry.body['name']} is in progress.",
            )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
