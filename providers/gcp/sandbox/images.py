"""Compute images: insert really unpacks the archive and refuses what the real one refuses."""

from __future__ import annotations

import re
import time
import urllib.parse
from pathlib import Path

from providers.gcp.sandbox import iam, unpack
from providers.gcp.sandbox.compute import Collection, gib, parse_image, public
from providers.gcp.sandbox.operations import Failed, Operations
from providers.gcp.sandbox.storage import Storage
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import age
from providers.gcp.sandbox.web import Answer, Refused, Request, Router, not_found
from publisher.emulation import Faults

SOURCES = ("rawDisk", "sourceDisk", "sourceImage", "sourceSnapshot")
LOCATIONS = ("us", "eu", "asia", "us-central1", "us-east1", "europe-west1", "asia-east1")
FAMILY = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
OBJECT = re.compile(r"https://(?:www\.)?storage\.googleapis\.com/([^/]+)/(.+)")
WORKER = "debian-12"
"""A public image of the project debian-cloud, as workers boot it."""


class Images(Collection):
    def __init__(
        self, store: Store, operations: Operations, project: str, storage: Storage, faults: Faults
    ) -> None:
        super().__init__(store, operations, project)
        self._storage = storage
        self._faults = faults
        operations.kind("images.insert", self._create)
        operations.kind("images.delete", self._destroy)
        operations.kind("images.patch", lambda _: None)
        operations.kind("images.deprecate", lambda _: None)
        operations.kind("images.setLabels", lambda _: None)

    def routes(self, router: Router) -> None:
        images = "/global/images"
        image = f"{images}/{{image}}"
        self.add(router, "GET", images, "images.list", self._list)
        self.add(router, "POST", images, "images.insert", self._insert)
        self.add(router, "GET", image, "images.get", self._get)
        self.add(router, "PATCH", image, "images.patch", self._patch)
        self.add(router, "DELETE", image, "images.delete", self._delete)
        self.add(router, "GET", f"{images}/family/{{family}}", "images.getFromFamily", self._family)
        self.add(router, "POST", f"{image}/deprecate", "images.deprecate", self._deprecate)
        self.add(router, "POST", f"{image}/setLabels", "images.setLabels", self._set_labels)
        self.add(router, "GET", f"{image}/getIamPolicy", "images.getIamPolicy", self._get_policy)
        self.add(router, "POST", f"{image}/setIamPolicy", "images.setIamPolicy", self._set_policy)
        self.add(
            router,
            "POST",
            f"{image}/testIamPermissions",
            "images.testIamPermissions",
            self._test,
        )

    def foreign(self, project: str, request: Request) -> bool:
        return project == "debian-cloud" and request.method == "GET"

    # -- what other collections ask

    def path(self, image: Document) -> Path:
        return self.store.bytes(f"image-{image['id']}")

    def named(self, name: str) -> Document:
        found = self.store.images.get(name)
        if found is None:
            raise not_found(f"The resource 'projects/{self.project}/global/images/{name}'")
        return found

    def source(self, link: str) -> Document | None:
        """The image that a disk is made from; None for the worker's public one.
        Raises Refused for an image that is not there or not ready."""
        project, name, family = parse_image(link)
        if project == "debian-cloud":
            if (family and name == WORKER) or name == f"{WORKER}-bookworm":
                return None
            raise not_found(f"The resource '{link}'")
        image = self._newest(name) if family else self.named(name)
        if image["status"] != "READY":
            raise Refused(400, f"The resource '{link}' is not ready", "resourceNotReady")
        return image

    # -- reading

    def _shown(self, image: Document) -> bool:
        return age(image["_since"]) >= self._faults.visibility_delay

    def _public_worker(self) -> Document:
        return {
            "name": f"{WORKER}-bookworm",
            "family": WORKER,
            "status": "READY",
            "diskSizeGb": "10",
            "architecture": "X86_64",
            "selfLink": f"{self.operations.url}/compute/v1/projects/debian-cloud/global/images/"
            f"{WORKER}-bookworm",
        }

    def _get(self, request: Request) -> Answer:
        name = request.arguments["image"]
        if request.arguments["project"] != self.project:
            if name == f"{WORKER}-bookworm":
                return Answer(self._public_worker())
            raise not_found(f"The resource 'projects/debian-cloud/global/images/{name}'")
        image = self.named(name)
        if not self._shown(image):
            raise not_found(f"The resource 'projects/{self.project}/global/images/{name}'")
        return Answer(public(image))

    def _list(self, request: Request) -> Answer:
        if request.arguments["project"] != self.project:
            return self.page(request, "image", [self._public_worker()])
        shown = [image for _, image in self.store.images.items() if self._shown(image)]
        return self.page(request, "image", shown)

    def _newest(self, family: str) -> Document:
        members = [
            image
            for _, image in self.store.images.items()
            if image.get("family") == family
            and image["status"] == "READY"
            and image.get("deprecated", {}).get("state", "ACTIVE") == "ACTIVE"
        ]
        if not members:
            raise not_found(f"The resource 'images/family/{family}'")
        return max(members, key=lambda image: image["creationTimestamp"])

    def _family(self, request: Request) -> Answer:
        family = request.arguments["family"]
        if request.arguments["project"] != self.project:
            if family == WORKER:
                return Answer(self._public_worker())
            raise not_found(f"The resource 'images/family/{family}'")
        return Answer(public(self._newest(family)))

    # -- insert

    def _insert(self, request: Request) -> Answer:
        with self.store.lock:
            if earlier := self.operations.earlier(request, "images.insert"):
                return earlier
            body = self.schema.body(request, "images.insert")
            name = body["name"]
            if self.store.images.get(name):
                raise Refused(
                    409,
                    f"The resource 'projects/{self.project}/global/images/{name}' already exists",
                    "alreadyExists",
                )
            given = [source for source in SOURCES if source in body]
            if len(given) != 1:
                raise Refused(400, f"Exactly one of {', '.join(SOURCES)} must be given", "required")
            if body.get("family") and not FAMILY.fullmatch(body["family"]):
                raise Refused(
                    400, f"Invalid value for field 'resource.family': '{body['family']}'."
                )
            places = body.get("storageLocations", [])
            if len(places) > 1 or any(place not in LOCATIONS for place in places):
                raise Refused(
                    400, f"Invalid value for field 'resource.storageLocations': {places}."
                )
            if given == ["rawDisk"]:
                self._object(body["rawDisk"].get("source", ""))
            else:
                raise Refused(
                    501, f"The stand-in makes no images from {given[0]}", "notImplemented"
                )
            image = self.born(body, "image", f"global/images/{name}")
            image |= {
                "status": "PENDING",
                "sourceType": "RAW",
                "_since": image["creationTimestamp"],
            }
            image.setdefault("architecture", "X86_64")
            image.setdefault("storageLocations", ["us"])
            source = image["rawDisk"]["source"]
            image["rawDisk"] = {"source": "", "containerType": "TAR"}
            self.store.images.put(name, image)
            return self.operations.begin(
                request, "images.insert", f"global/images/{name}", {"name": name, "source": source}
            )

    def _object(self, source: str) -> Document:
        where = "resource.rawDisk.source"
        match = OBJECT.fullmatch(urllib.parse.unquote(source))
        if not match:
            raise Refused(
                400, f"Invalid value for field '{where}': '{source}'. The URL is malformed."
            )
        if not match[2].endswith(".tar.gz"):
            raise Refused(
                400, f"Invalid value for field '{where}': '{source}'. It must end in .tar.gz."
            )
        found = self._storage.find(match[1], match[2])
        if found is None:
            raise Refused(
                400,
                f"Invalid value for field '{where}': '{source}'. "
                f"The referenced object was not found.",
            )
        return found

    def _create(self, operation: Document) -> None:
        arguments = operation["_arguments"]
        image = self.store.images.get(arguments["name"])
        if image is None or image["status"] != "PENDING":
            return
        path = self.path(image)
        try:
            archive = self._object(arguments["source"])
            size = unpack.archive(self._storage.path(archive), path)
        except (unpack.InvalidImageTar, Refused) as error:
            path.unlink(missing_ok=True)
            self.store.images.remove(arguments["name"])
            code = getattr(error, "code", "INVALID_FIELD_VALUE")
            raise Failed(code, str(error)) from None
        ready = {
            **image,
            "status": "READY",
            "diskSizeGb": gib(size),
            "archiveSizeBytes": archive["size"],
        }
        with self.store.lock:
            self.store.images.put(arguments["name"], ready)

    # -- changing

    def _change(self, request: Request, kind: str, changed: Document) -> Answer:
        name = changed["name"]
        self.store.images.put(name, changed)
        return self.operations.begin(request, kind, f"global/images/{name}")

    def _patch(self, request: Request) -> Answer:
        with self.store.lock:
            if earlier := self.operations.earlier(request, "images.patch"):
                return earlier
            image = self.named(request.arguments["image"])
            body = self.schema.body(request, "images.patch")
            refused = set(body) - {"description", "family", "deprecated", "labels", "name"}
            if refused:
                raise Refused(400, f"Fields that cannot be patched: {', '.join(sorted(refused))}")
            kept: Document = {
                key: body[key] for key in ("description", "family", "deprecated") if key in body
            }
            return self._change(request, "images.patch", {**image, **kept})

    def _deprecate(self, request: Request) -> Answer:
        with self.store.lock:
            if earlier := self.operations.earlier(request, "images.deprecate"):
                return earlier
            image = self.named(request.arguments["image"])
            body = self.schema.body(request, "images.deprecate")
            if "state" not in body:
                raise Refused(400, "Required field 'resource.state' not specified", "required")
            changed = {**image, "deprecated": body}
            if body["state"] == "ACTIVE":
                del changed["deprecated"]
            return self._change(request, "images.deprecate", changed)

    def _set_labels(self, request: Request) -> Answer:
        with self.store.lock:
            image = self.named(request.arguments["image"])
            body = self.schema.body(request, "images.setLabels")
            return self._change(request, "images.setLabels", self.relabel(image, body))

    def _delete(self, request: Request) -> Answer:
        with self.store.lock:
            if earlier := self.operations.earlier(request, "images.delete"):
                return earlier
            name = request.arguments["image"]
            image = self.named(name)
            if image["status"] == "DELETING":
                raise Refused(400, f"The resource '{name}' is not ready", "resourceNotReady")
            self.store.images.put(name, {**image, "status": "DELETING"})
            return self.operations.begin(
                request, "images.delete", f"global/images/{name}", {"name": name}
            )

    def _destroy(self, operation: Document) -> None:
        time.sleep(0.005)
        name = operation["_arguments"]["name"]
        with self.store.lock:
            image = self.store.images.get(name)
            if image is not None:
                self.store.discard(self.path(image))
                self.store.images.remove(name)

    # -- policies

    def _get_policy(self, request: Request) -> Answer:
        return Answer(iam.policy(self.named(request.arguments["image"])))

    def _set_policy(self, request: Request) -> Answer:
        body = self.schema.body(request, "images.setIamPolicy")
        with self.store.lock:
            name = request.arguments["image"]
            changed = iam.changed(self.named(name), body)
            self.store.images.put(name, changed)
        return Answer(iam.policy(changed))

    def _test(self, request: Request) -> Answer:
        body = self.schema.body(request, "images.testIamPermissions")
        held = [name for name in body.get("permissions", ()) if name.startswith("compute.")]
        return Answer({"permissions": held})
