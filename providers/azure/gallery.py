"""A Compute Gallery as Resource Manager has it: read, make, change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from providers.azure import api, tags
from providers.azure.api import GALLERIES, Api, Body
from providers.azure.disks import settled
from providers.azure.options import AzureOptions, normal_region
from providers.azure.refs import Ref
from publisher.errors import ConflictError, ProviderError
from publisher.model import Spec
from publisher.task import Task

_SHORT = 900.0
_REPLICATION = 24 * 3600.0
_ARCHITECTURES: Mapping[str, str] = {"x86_64": "x64", "aarch64": "Arm64"}


class Gallery:
    """One gallery. Changes of one version or of the sharing are made one at a time."""

    def __init__(self, service: Api, group: str, name: str) -> None:
        self._api = service
        self._group = group
        self.name = name
        self._changing = threading.Lock()

    # -- the gallery

    def get(self, task: Task) -> Body | None:
        """With its permissions and the groups that it is shared with."""
        return task.retry(
            lambda: self._api.get(
                lambda c: c.galleries.get(
                    self._group,
                    self.name,
                    select="Permissions",
                    expand="SharingProfile/Groups",
                    api_version=GALLERIES,
                )
            )
        )

    def put(self, body: Body, task: Task) -> None:
        self._api.finish(
            task,
            lambda c, polling: c.galleries.begin_create_or_update(
                self._group, self.name, body, api_version=GALLERIES, polling=polling
            ),
            what=f"writing gallery {self.name}",
            timeout=_SHORT,
        )
        self._settle(lambda: self.get(task), task, f"gallery {self.name}", _SHORT)

    def share(self, update: Body, task: Task) -> None:
        self._api.finish(
            task,
            lambda c, polling: c.gallery_sharing_profile.begin_update(
                self._group, self.name, update, api_version=GALLERIES, polling=polling
            ),
            what=f"sharing gallery {self.name}",
            timeout=_SHORT,
        )

    # -- definitions

    def definition(self, name: str, task: Task) -> Body | None:
        return task.retry(
            lambda: self._api.get(
                lambda c: c.gallery_images.get(self._group, self.name, name, api_version=GALLERIES)
            )
        )

    def definitions(self, task: Task) -> list[Body]:
        return task.retry(
            lambda: self._api.list(
                lambda c: c.gallery_images.list_by_gallery(
                    self._group, self.name, api_version=GALLERIES
                )
            )
        )

    def put_definition(self, name: str, body: Body, task: Task) -> None:
        self._api.finish(
            task,
            lambda c, polling: c.gallery_images.begin_create_or_update(
                self._group, self.name, name, body, api_version=GALLERIES, polling=polling
            ),
            what=f"making image definition {name}",
            timeout=_SHORT,
        )
        self._settle(lambda: self.definition(name, task), task, f"image definition {name}", _SHORT)

    # -- versions

    def version(self, ref: Ref, task: Task) -> Body | None:
        """With its replication status."""
        return task.retry(
            lambda: self._api.get(
                lambda c: c.gallery_image_versions.get(
                    self._group,
                    self.name,
                    ref.definition,
                    ref.version,
                    expand="ReplicationStatus",
                    api_version=GALLERIES,
                )
            )
        )

    def versions(self, definition: str, task: Task) -> list[Body]:
        return task.retry(
            lambda: self._api.list(
                lambda c: c.gallery_image_versions.list_by_gallery_image(
                    self._group, self.name, definition, api_version=GALLERIES
                )
            )
        )

    def settled_version(self, ref: Ref, task: Task, timeout: float = _REPLICATION) -> Body | None:
        """The version once no change of it is under way; None when there is none."""
        found = self.version(ref, task)
        if found is None or settled(found, "image version"):
            return found

        def look() -> tuple[float, bool]:
            nonlocal found
            found = self.version(ref, task)
            task.phase(progress(found) if found else f"waiting for version {ref.version}")
            return 0.0, found is None or settled(found, "image version")

        api.patiently(task, look, what=f"waiting for version {ref.version}", timeout=timeout)
        return found

    def put_version(self, ref: Ref, body: Body, task: Task) -> None:
        """Returns when the version and all of its regions are there."""
        self._api.finish(
            task,
            lambda c, polling: c.gallery_image_versions.begin_create_or_update(
                self._group,
                self.name,
                ref.definition,
                ref.version,
                body,
                api_version=GALLERIES,
                polling=polling,
            ),
            what=f"writing version {ref.version}",
            timeout=_REPLICATION,
        )
        self._settle(lambda: self.version(ref, task), task, f"version {ref.version}", _REPLICATION)

    def change_version(
        self, ref: Ref, change: Callable[[Body], Body | None], task: Task
    ) -> Body | None:
        """GET, `change` the writable part, PUT. None from `change` means nothing to do.

        Returns the version as it was read before; None when there is none.
        """
        while not self._changing.acquire(timeout=0.2):
            task.check()
        try:
            found = self.settled_version(ref, task)
            if found is not None:
                body = change(writable(found))
                if body is not None:
                    self.put_version(ref, body, task)
            return found
        finally:
            self._changing.release()

    def delete_version(self, ref: Ref, task: Task) -> None:
        """Gone already is fine."""
        if self.version(ref, task) is None:
            return
        self._api.finish(
            task,
            lambda c, polling: c.gallery_image_versions.begin_delete(
                self._group,
                self.name,
                ref.definition,
                ref.version,
                api_version=GALLERIES,
                polling=polling,
            ),
            what=f"removing version {ref.version}",
            timeout=_REPLICATION,
        )

        def look() -> tuple[float, bool]:
            return 0.0, self.version(ref, task) is None

        api.patiently(task, look, what=f"removing version {ref.version}", timeout=_REPLICATION)

    @staticmethod
    def _settle(read: Callable[[], Body | None], task: Task, what: str, timeout: float) -> None:
        def look() -> tuple[float, bool]:
            found = read()
            return 0.0, found is not None and settled(found, what.partition(" ")[0])

        api.patiently(task, look, what=f"waiting for {what}", timeout=timeout)


def writable(version: Body) -> Body:
    """What a PUT of an existing version must hold: all of it but the read-only parts."""
    properties = version["properties"]
    profile = {k: v for k, v in properties["publishingProfile"].items() if k != "publishedDate"}
    storage = properties["storageProfile"]
    os_disk = {k: v for k, v in storage["osDiskImage"].items() if k != "sizeInGB"}
    kept = ("blockDeletionBeforeEndOfLife",)
    safety = {k: v for k, v in (properties.get("safetyProfile") or {}).items() if k in kept}
    body: Body = {
        "location": version["location"],
        "tags": dict(version.get("tags") or {}),
        "properties": {
            "publishingProfile": profile,
            "storageProfile": {**storage, "osDiskImage": os_disk},
            # Without this, a region can't be taken away again.
            "safetyProfile": {**safety, "allowDeletionOfReplicatedLocations": True},
        },
    }
    if "securityProfile" in properties:
        body["properties"]["securityProfile"] = properties["securityProfile"]
    return body


def target_regions(version: Body) -> list[str]:
    regions = version["properties"]["publishingProfile"].get("targetRegions") or []
    return [normal_region(region["name"]) for region in regions]


def replication(version: Body) -> dict[str, Body]:
    """Region ▶ its replication status; empty when it was not asked for."""
    status = version["properties"].get("replicationStatus") or {}
    return {normal_region(item["region"]): item for item in status.get("summary") or []}


def progress(version: Body) -> str:
    """One line on how far each region is."""
    states = [
        f"{region} {item.get('progress', 0)} %"
        for region, item in replication(version).items()
        if item.get("state") != "Completed"
    ]
    return f"replicating: {', '.join(states)}" if states else "replicating"


def definition_body(options: AzureOptions, spec: Spec, location: str) -> Body:
    """Generation, architecture and SecurityType explicit: their defaults change
    with the API version (V2 and TrustedLaunchSupported from 2025-03-03 on)."""
    features = [{"name": "SecurityType", "value": options.security_for(spec)}]
    if options.accelerated_for(spec):
        features.append({"name": "IsAcceleratedNetworkSupported", "value": "True"})
    if options.nvme_for(spec):
        features.append({"name": "DiskControllerTypes", "value": "SCSI, NVMe"})
    properties: Body = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": options.generation_for(spec),
        "architecture": architecture(spec),
        "identifier": options.identifier(spec),
        "features": features,
    }
    if spec.description:
        properties["description"] = spec.description
    identity = tags.identity(spec)
    kept = {key: identity[key] for key in (*spec.tags, tags.NAME, tags.RUN)}
    return {"location": location, "tags": kept, "properties": properties}


def architecture(spec: Spec) -> str:
    return _ARCHITECTURES[spec.arch]


def security_type(definition: Body) -> str:
    features: Iterable[Body] = definition["properties"].get("features") or []
    for feature in features:
        if feature.get("name") == "SecurityType":
            return str(feature.get("value"))
    return "Standard"


def check_definition(found: Body, wanted: Body) -> None:
    """Raises ConflictError where an existing definition can't hold this image."""
    has, wants = found["properties"], wanted["properties"]
    differences: list[tuple[str, Any, Any]] = [
        (key, has.get(key), wants[key])
        for key in ("osType", "osState", "hyperVGeneration", "architecture")
        if has.get(key, "x64" if key == "architecture" else None) != wants[key]
    ]
    if security_type(found) != security_type(wanted):
        differences.append(("SecurityType", security_type(found), security_type(wanted)))
    for key, is_, should in differences:
        raise ConflictError(
            f"image definition {found.get('name')} has {key} {is_}, this image needs {should}",
            provider="azure",
            key="targets.azure.name",
            hint="choose another name, such as one with {arch} in it, or set the option to match",
        )


def expect_same(found: Body, digest: str, ref: Ref) -> None:
    """Raises ConflictError where a version of that name holds something else."""
    is_ = (found.get("tags") or {}).get(tags.DIGEST, "")
    if is_ == digest:
        return
    holds = "other content" if is_ else "an image that this program did not make"
    raise ConflictError(
        f"version {ref.version} of {ref.definition} in gallery {ref.gallery} holds {holds}",
        provider="azure",
        key="targets.azure.version",
        hint="raise the image's version, or delete the one in the gallery",
    )


def failed(found: Body) -> bool:
    return found["properties"].get("provisioningState") in ("Failed", "Canceled")


def missing(ref: Ref) -> ProviderError:
    return ProviderError(
        f"there is no image {ref}",
        provider="azure",
        code="ResourceNotFound",
        hint="check the reference; it may have been deleted",
    )
