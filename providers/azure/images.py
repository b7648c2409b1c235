"""Images as gallery versions: register, copy, find, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.azure import api, sharing, tags
from providers.azure import gallery as g
from providers.azure.api import Api, Body
from providers.azure.disks import Disks
from providers.azure.options import AzureOptions, normal_region
from providers.azure.refs import Ref
from publisher.errors import ProviderError
from publisher.model import Audience, Image, ImageState, Query, Spec, Upload
from publisher.task import Task

_STATES: dict[str, ImageState] = {
    "Succeeded": "available",
    "Failed": "failed",
    "Canceled": "failed",
}


class Images:
    """The images of one target."""

    def __init__(
        self, service: Api, options: AzureOptions, gallery: g.Gallery, disks: Disks
    ) -> None:
        self._api = service
        self._options = options
        self._gallery = gallery
        self._disks = disks

    def ref(self, spec: Spec) -> Ref:
        options = self._options
        return Ref(
            self._api.subscription,
            options.resource_group,
            options.gallery,
            options.definition_name(spec),
            options.version_name(spec),
        )

    # -- register

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        ref = self.ref(spec)
        source = upload.ref.rpartition("/")[2]
        found = self._gallery.version(ref, task)
        if found is not None:
            g.expect_same(found, upload.digest, ref)
            if g.failed(found):
                self._gallery.delete_version(ref, task)
            found = self._gallery.settled_version(ref, task)
        if found is None:
            self._make_gallery(spec, task)
            self._make_definition(spec, ref, task)
            self._gallery.put_version(ref, self._version_body(upload, spec), task)
        found = self._gallery.settled_version(ref, task)
        if found is None:
            raise g.missing(ref)
        self._disks.remove(source, task)
        audience = sharing.audience(self._gallery.get(task))
        asked = {
            "generation": self._options.generation_for(spec),
            "architecture": g.architecture(spec),
            "security": self._options.security_for(spec),
        }
        return image_of(ref, found, normal_region(found["location"]), audience, asked)

    def _make_gallery(self, spec: Spec, task: Task) -> None:
        if self._gallery.get(task) is not None:
            return
        body: Body = {
            "location": self._options.locations()[0],
            "tags": {tags.RUN: spec.run},
            "properties": {"description": "Images by cloud-image-publisher"},
        }
        self._gallery.put(body, task)

    def _make_definition(self, spec: Spec, ref: Ref, task: Task) -> None:
        wanted = g.definition_body(self._options, spec, self._options.locations()[0])
        found = self._gallery.definition(ref.definition, task)
        if found is not None:
            g.check_definition(found, wanted)
            return
        self._gallery.put_definition(ref.definition, wanted, task)

    def _version_body(self, upload: Upload, spec: Spec) -> Body:
        options = self._options
        profile: Body = {
            "targetRegions": [self._target(upload.region)],
            "replicaCount": options.replicas,
            "storageAccountType": options.storage_account_type,
            "replicationMode": "Full",
            # Until the release, who asks for the latest version does not get it.
            "excludeFromLatest": True,
        }
        if options.end_of_life is not None:
            profile["endOfLifeDate"] = f"{options.end_of_life.isoformat()}T00:00:00Z"
        return {
            "location": upload.region,
            "tags": tags.identity(spec),
            "properties": {
                "publishingProfile": profile,
                "storageProfile": {
                    "osDiskImage": {"hostCaching": "ReadWrite", "source": {"id": upload.ref}}
                },
                "safetyProfile": {"allowDeletionOfReplicatedLocations": True},
            },
        }

    def _target(self, region: str) -> Body:
        settings = self._options.region(region)
        return {
            "name": region,
            "regionalReplicaCount": settings.replicas,
            "storageAccountType": settings.storage_account_type,
        }

    # -- copy

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> list[Image]:
        """Adds regions, never takes one away: a shorter list in a PUT would take
        the image from its users (azure-cli 24099)."""
        ref = Ref.parse(image.ref)
        wanted = [normal_region(region) for region in regions]
        if not wanted:
            return []

        def add(body: Body) -> Body | None:
            profile = body["properties"]["publishingProfile"]
            has = {normal_region(target["name"]) for target in profile["targetRegions"]}
            more = [region for region in dict.fromkeys(wanted) if region not in has]
            if not more:
                return None
            profile["targetRegions"] += [self._target(region) for region in more]
            return body

        if self._gallery.change_version(ref, add, task) is None:
            raise g.missing(ref)
        found = self._replicated(ref, wanted, task)
        audience = sharing.audience(self._gallery.get(task))
        return [image_of(ref, found, region, audience, image.details) for region in wanted]

    def _replicated(self, ref: Ref, regions: Sequence[str], task: Task) -> Body:
        """Waits until the image is complete in all `regions`."""
        found: Body = {}

        def look() -> tuple[float, bool]:
            nonlocal found
            version = self._gallery.version(ref, task)
            if version is None:
                return 0.0, False
            found = version
            states = g.replication(version)
            for region in regions:
                state = states.get(region, {})
                if state.get("state") == "Failed":
                    raise ProviderError(
                        f"{ref.definition} {ref.version} could not be copied to {region}: "
                        f"{state.get('details') or 'no reason given'}",
                        provider="azure",
                        key="targets.azure.regions",
                        hint="check the region's quotas, then run the same command again",
                    )
            task.phase(g.progress(version))
            return 0.0, all(states.get(r, {}).get("state") == "Completed" for r in regions)

        api.patiently(task, look, what=f"replicating {ref.version}", timeout=24 * 3600.0)
        return found

    # -- find

    def find(self, query: Query, task: Task) -> list[Image]:
        gallery = self._gallery.get(task)
        if gallery is None:
            return []
        audience = sharing.audience(gallery)
        places = set(self._options.locations())
        images: list[Image] = []
        for definition in self._gallery.definitions(task):
            for version in self._gallery.versions(definition["name"], task):
                if not tags.matches(query, version.get("tags") or {}):
                    continue
                ref = Ref(
                    self._api.subscription,
                    self._options.resource_group,
                    self._options.gallery,
                    definition["name"],
                    version["name"],
                )
                images += [
                    image_of(ref, version, region, audience)
                    for region in g.target_regions(version)
                    if region in places
                ]
        return images

    # -- delete

    def delete(self, image: Image, task: Task) -> None:
        """The replica of one region; the version with its home region or its last.

        Definition and gallery stay: they cost nothing, and other versions may be
        on their way into them.
        """
        ref = Ref.parse(image.ref)
        found = self._gallery.version(ref, task)
        if found is not None and (found.get("tags") or {}).get(tags.DIGEST) == image.digest:
            found = self._gallery.settled_version(ref, task) if not g.failed(found) else found
        else:
            found = None
        region = normal_region(image.region)
        if found is not None:
            others = [r for r in g.target_regions(found) if r != region]
            if not others or region == normal_region(found["location"]):
                sharing.withdraw(self._gallery, ref, task)
                self._gallery.delete_version(ref, task)
            else:
                self._take_away(ref, region, task)
        self._remove_disks(image, task)

    def _take_away(self, ref: Ref, region: str, task: Task) -> None:
        def take(body: Body) -> Body | None:
            profile = body["properties"]["publishingProfile"]
            kept = [t for t in profile["targetRegions"] if normal_region(t["name"]) != region]
            if len(kept) == len(profile["targetRegions"]):
                return None
            profile["targetRegions"] = kept
            return body

        self._gallery.change_version(ref, take, task)

    def _remove_disks(self, image: Image, task: Task) -> None:
        """Temporary disks of this image that a killed run has left."""
        query = Query(name=image.name, version=image.version, digest=image.digest)
        for disk in self._disks.list(task):
            if disk["name"].startswith("publish-") and tags.matches(query, disk.get("tags") or {}):
                self._disks.remove(disk["name"], task)


def image_of(
    ref: Ref,
    version: Body,
    region: str,
    audience: Audience,
    details: Mapping[str, str] | None = None,
) -> Image:
    held = version.get("tags") or {}
    state = _STATES.get(version["properties"].get("provisioningState", ""), "pending")
    regional = g.replication(version).get(region, {}).get("state")
    if state == "available" and regional is not None and regional != "Completed":
        state = "failed" if regional == "Failed" else "pending"
    return Image(
        provider="azure",
        region=region,
        ref=str(ref),
        name=held.get(tags.NAME, ref.definition),
        version=held.get(tags.VERSION, ref.version),
        digest=held.get(tags.DIGEST, ""),
        state=state,
        audience=audience,
        details={
            **(details or {}),
            "id": ref.id,
            "gallery": ref.gallery,
            "definition": ref.definition,
        },
        # versions have no id besides their name; this is set once, and only by Azure
        uid=version["properties"]["publishingProfile"].get("publishedDate", ""),
    )
