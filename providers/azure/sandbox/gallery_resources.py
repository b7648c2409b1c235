"""What galleries, image definitions and image versions share."""

from __future__ import annotations

from typing import Any

from providers.azure.sandbox.operations import Operations
from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.stored import Stored
from providers.azure.sandbox.web import Answer, Refused, Request

GALLERY = "Microsoft.Compute/galleries"
DEFINITION = f"{GALLERY}/images"
VERSION = f"{DEFINITION}/versions"


class GalleryResources(Stored):
    """Their life: made, changed and removed by operations of the same kind."""

    def __init__(self, state: State, operations: Operations) -> None:
        super().__init__(state, operations, "galleries")

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


def security_type(definition: Entry) -> str:
    for feature in definition.properties.get("features") or []:
        if feature.get("name") == "SecurityType":
            return str(feature.get("value"))
    return "Standard"
