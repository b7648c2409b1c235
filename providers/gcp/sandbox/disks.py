"""Compute disks, made from images."""

from __future__ import annotations

import os
from pathlib import Path

from providers.gcp.sandbox.compute import Collection, integer, public
from providers.gcp.sandbox.images import Images
from providers.gcp.sandbox.operations import Failed, Operations
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.web import Answer, Refused, Request, Router, not_found
from publisher.model import GIB

DEFAULT_GIB = 10


class Disks(Collection):
    def __init__(self, store: Store, operations: Operations, project: str, images: Images) -> None:
        super().__init__(store, operations, project)
        self._images = images
        operations.kind("disks.insert", self._create)
        operations.kind("disks.delete", self._destroy)
        operations.kind("disks.setLabels", lambda _: None)

    def routes(self, router: Router) -> None:
        disks = "/zones/{zone}/disks"
        disk = f"{disks}/{{disk}}"
        self.add(router, "GET", disks, "disks.list", self._list)
        self.add(router, "POST", disks, "disks.insert", self._insert)
        self.add(router, "GET", disk, "disks.get", self._get)
        self.add(router, "DELETE", disk, "disks.delete", self._delete)
        self.add(router, "POST", f"{disk}/setLabels", "disks.setLabels", self._set_labels)

    def path(self, disk: Document) -> Path:
        return self.store.bytes(f"disk-{disk['id']}")

    def named(self, zone: str, name: str) -> Document:
        found = self.store.disks.get(f"{zone}/{name}")
        if found is None:
            where = f"projects/{self.project}/zones/{zone}/disks/{name}"
            raise not_found(f"The resource '{where}'")
        return found

    def _list(self, request: Request) -> Answer:
        prefix = f"{request.arguments['zone']}/"
        found = [disk for key, disk in self.store.disks.items() if key.startswith(prefix)]
        return self.page(request, "disk", found)

    def _get(self, request: Request) -> Answer:
        return Answer(public(self.named(request.arguments["zone"], request.arguments["disk"])))

    def _insert(self, request: Request) -> Answer:
        zone = request.arguments["zone"]
        with self.store.lock:
            if earlier := self.operations.earlier(request, "disks.insert"):
                return earlier
            body = self.schema.body(request, "disks.insert")
            disk = self.prepare(zone, body)
            return self.operations.begin_in(zone, request, "disks.insert", disk["name"])

    def prepare(self, zone: str, body: Document) -> Document:
        """A new disk in the state CREATING. Hold the lock. Raises Refused."""
        name = body["name"]
        if self.store.disks.get(f"{zone}/{name}"):
            where = f"projects/{self.project}/zones/{zone}/disks/{name}"
            raise Refused(409, f"The resource '{where}' already exists", "alreadyExists")
        image = self._images.source(body["sourceImage"]) if "sourceImage" in body else None
        smallest = integer(image["diskSizeGb"]) if image else DEFAULT_GIB
        size = integer(body.get("sizeGb", smallest))
        if image and size < smallest:
            raise Refused(
                400,
                f"Invalid value for field 'resource.sizeGb': '{size}'. Requested disk size "
                f"cannot be smaller than the image size ({smallest} GB)",
            )
        disk = self.born(body, "disk", f"zones/{zone}/disks/{name}")
        disk |= {
            "status": "CREATING",
            "sizeGb": str(size),
            "zone": self.link(f"zones/{zone}"),
            "_image": image["name"] if image else None,
        }
        disk.setdefault("type", self.link(f"zones/{zone}/diskTypes/pd-standard"))
        self.store.disks.put(f"{zone}/{name}", disk)
        return disk

    def _create(self, operation: Document) -> None:
        self.fill(operation["_arguments"]["key"])

    def fill(self, key: str) -> None:
        """CREATING becomes READY. A disk of the image's own size shares its file:
        nothing here writes to disks."""
        with self.store.lock:
            disk = self.store.disks.get(key)
            if disk is None or disk["status"] != "CREATING":
                return
            path, size = self.path(disk), integer(disk["sizeGb"]) * GIB
            path.unlink(missing_ok=True)
            if disk["_image"] is None:
                path.touch()
            else:
                image = self.store.images.get(disk["_image"])
                if image is None:
                    raise Failed("RESOURCE_NOT_FOUND", f"The image {disk['_image']} is gone", 404)
                if integer(image["diskSizeGb"]) * GIB != size:
                    raise Failed("UNSUPPORTED_OPERATION", "The stand-in does not grow disks")
                os.link(self._images.path(image), path)
            self.store.disks.put(key, {**disk, "status": "READY"})

    def _set_labels(self, request: Request) -> Answer:
        zone = request.arguments["zone"]
        with self.store.lock:
            disk = self.named(zone, request.arguments["disk"])
            changed = self.relabel(disk, self.schema.body(request, "disks.setLabels"))
            self.store.disks.put(f"{zone}/{disk['name']}", changed)
            return self.operations.begin_in(zone, request, "disks.setLabels", disk["name"])

    def _delete(self, request: Request) -> Answer:
        zone, name = request.arguments["zone"], request.arguments["disk"]
        with self.store.lock:
            if earlier := self.operations.earlier(request, "disks.delete"):
                return earlier
            disk = self.named(zone, name)
            if disk.get("users"):
                raise Refused(
                    400,
                    f"The disk resource '{name}' is already being used by '{disk['users'][0]}'",
                    "resourceInUseByAnotherResource",
                )
            return self.operations.begin_in(zone, request, "disks.delete", name)

    def _destroy(self, operation: Document) -> None:
        self.drop(operation["_arguments"]["key"])

    def drop(self, key: str) -> None:
        with self.store.lock:
            disk = self.store.disks.get(key)
            if disk is not None:
                self.store.discard(self.path(disk))
                self.store.disks.remove(key)

    def use(self, key: str, instance: str, *, attached: bool) -> None:
        """Note that an instance uses the disk, or does not any more."""
        disk = self.store.disks.get(key)
        if disk is not None:
            users = [user for user in disk.get("users", []) if user != instance]
            self.store.disks.put(key, {**disk, "users": [*users, *([instance] * attached)]})
