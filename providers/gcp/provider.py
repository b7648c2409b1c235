"""Google Cloud as a Provider: a bucket receives a tar.gz, Compute Engine makes an image of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from providers.gcp import check, download, identity, images, verify
from providers.gcp import upload as uploads
from providers.gcp.api import PROVIDER, Api
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions, problems
from providers.gcp.read import Reading
from publisher.model import GIB, Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.proof.guest import Guest
from publisher.provider import Options, Sandbox, Traits
from publisher.task import Task


class Gcp:
    name: ClassVar[str] = PROVIDER
    traits: ClassVar[Traits] = Traits(
        title="Google Cloud",
        extra="gcp",
        reference="gcp:PROJECT/IMAGE",
        size_multiple=GIB,
        size_max=64 * 1024 * GIB,
        regional=False,
        boots=True,
    )
    options: ClassVar[type[Options]] = GcpOptions

    def __init__(self, options: Options) -> None:
        assert isinstance(options, GcpOptions)
        self._options = options
        self._api = Api()
        self._bucket = Bucket(self._api, options.bucket)

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return [*problems(self._options, spec), *identity.problems(spec)]

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        del regions
        return list(check.check(self._api, self._options, self._bucket, spec, task))

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        name = self._options.fill(spec)
        found = images.get(self._api, self._options.project, name, task)
        if found is not None:  # before gigabytes are sent in vain
            if error := images.conflict(self._options, found, disk.sha256):
                raise error
            if images.status(found) == "READY":
                archive = uploads.object_name(name, disk.sha256)
                return uploads.uploaded(self._bucket, archive, disk.sha256)
        return uploads.upload(self._bucket, self._options, disk, spec, task)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        resource = images.register(self._api, self._options, upload, spec, task)
        uploads.remove(self._bucket, self._options.fill(spec), spec.digest, task)
        return images.describe(self._api, self._options.project, resource, task)

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        """Images are global: there is one for every region that is asked for."""
        del task
        return [image for _ in regions]

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        verify.verify(self._api, self._options, self._bucket, image, disk, task)

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        images.allow(self._api, image, images.members(audience), task)

    def withdraw(self, image: Image, task: Task) -> None:
        images.allow(self._api, image, (), task)

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        return images.find(self._api, self._options, query, task)

    def delete(self, image: Image, task: Task) -> None:
        project, name = images.parse(image.ref)
        resource = images.get(self._api, project, name, task)
        if resource is not None:
            for purpose in ("verify", "download"):
                Reading(
                    self._api, self._options, self._bucket, resource, purpose, task
                ).remove_leftovers()
        images.delete(self._api, image, task)
        uploads.remove(self._bucket, name, image.digest, task)

    def describe(self, image_ref: str, task: Task) -> Spec:
        return download.describe(download.resource(self._api, image_ref, task))

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        return download.download(self._api, self._options, self._bucket, image_ref, into, task)

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        from providers.gcp import guest

        assert options is None or isinstance(options, GcpOptions)
        return guest.Guest(options)

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Sandbox:
        from providers.gcp.sandbox import GcpSandbox

        return GcpSandbox(state, port)

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        return {"project": "sandbox-project", "bucket": "sandbox-images"}
