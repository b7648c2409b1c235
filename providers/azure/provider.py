"""Azure: a managed disk by direct upload, a version in a Compute Gallery, its regions."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from providers.azure.options import SIZE_MAX, AzureOptions, check_names, normal_region
from publisher.errors import ProviderError
from publisher.model import MIB, Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.provider import Options, Traits
from publisher.task import Task

if TYPE_CHECKING:
    from providers.azure.api import Api
    from providers.azure.disks import Disks
    from providers.azure.gallery import Gallery
    from providers.azure.images import Images
    from providers.azure.refs import Ref
    from publisher.proof.guest import Guest
    from publisher.provider import Sandbox


class Azure:
    """One resource group with its gallery."""

    name: ClassVar[str] = "azure"
    options: ClassVar[type[Options]] = AzureOptions
    traits: ClassVar[Traits] = Traits(
        title="Microsoft Azure",
        extra="azure",
        reference="azure:SUBSCRIPTION/GROUP/GALLERY/DEFINITION/VERSION",
        size_multiple=MIB,
        size_max=SIZE_MAX,
        regional=True,
        boots=True,
    )

    def __init__(self, options: Options) -> None:
        assert isinstance(options, AzureOptions)
        self._options = options

    # -- publish

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return list(check_names(self._options, spec))

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        from providers.azure.check import Check

        check = Check(self._api, self._options, self._gallery, self._images.ref(spec), task)
        return list(check.run(spec, regions))

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        from providers.azure import gallery, upload

        ref = self._images.ref(spec)
        region = self._options.locations()[0]
        held = self._gallery.version(ref, task)
        if held is not None and not gallery.failed(held):
            # Registered before: the bytes are in the image, and register returns it.
            gallery.expect_same(held, disk.sha256, ref)
            name = upload.name_of(disk, spec)
            return Upload("azure", region, self._disks.id(name), disk.sha256)
        self._make_group(task)
        name = upload.upload(self._disks, self._options, disk, spec, task)
        return Upload("azure", region, self._disks.id(name), disk.sha256)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        return self._images.register(upload, spec, task)

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        return self._images.copy(image, regions, task)

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        from providers.azure import verify

        verify.verify(self._gallery, self._disks, self._options, image, disk, task)

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        from providers.azure import sharing
        from providers.azure.refs import Ref

        sharing.release(self._gallery, self._options, Ref.parse(image.ref), audience, task)

    def withdraw(self, image: Image, task: Task) -> None:
        from providers.azure import sharing
        from providers.azure.refs import Ref

        sharing.withdraw(self._gallery, Ref.parse(image.ref), task)

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        return self._images.find(query, task)

    def delete(self, image: Image, task: Task) -> None:
        self._images.delete(image, task)

    # -- migrate

    def describe(self, image_ref: str, task: Task) -> Spec:
        from providers.azure import download

        gallery, ref = self._source(image_ref)
        return download.describe(gallery, ref, task)

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        from providers.azure import download

        gallery, ref = self._source(image_ref)
        return download.download(gallery, self._disks, self._options, ref, into, task)

    def _source(self, image_ref: str) -> tuple[Gallery, Ref]:
        """The gallery that holds the image: any that the credentials can read."""
        from providers.azure.api import Api
        from providers.azure.gallery import Gallery
        from providers.azure.refs import Ref

        ref = Ref.parse(image_ref)
        own = ref.subscription == self._options.subscription_id()
        service = self._api if own else Api(ref.subscription)
        return Gallery(service, ref.group, ref.gallery), ref

    # -- sandbox

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        from providers.azure import guest

        assert options is None or isinstance(options, AzureOptions)
        return guest.Guest(options)

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Sandbox:
        from providers.azure.sandbox import AzureSandbox

        return AzureSandbox(state, port)

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        return {
            "resource_group": "images",
            "gallery": "images",
            "location": "westeurope",
            "community": {
                "publisher_uri": "https://images.example",
                "publisher_contact": "images@images.example",
                "eula": "https://images.example/eula",
                "public_name_prefix": "sandbox",
            },
        }

    # -- what the verbs share, made on first use

    @functools.cached_property
    def _api(self) -> Api:
        from providers.azure.api import Api

        return Api(self._options.subscription_id())

    @functools.cached_property
    def _disks(self) -> Disks:
        from providers.azure.disks import Disks

        return Disks(self._api, self._options.resource_group)

    @functools.cached_property
    def _gallery(self) -> Gallery:
        from providers.azure.gallery import Gallery

        return Gallery(self._api, self._options.resource_group, self._options.gallery)

    @functools.cached_property
    def _images(self) -> Images:
        from providers.azure.images import Images

        return Images(self._api, self._options, self._gallery, self._disks)

    def _make_group(self, task: Task) -> None:
        from providers.azure import api
        from providers.azure.errors import is_gone

        if not self._options.create_resource_group:
            return
        path = (
            f"/subscriptions/{self._api.subscription}/resourceGroups/{self._options.resource_group}"
        )

        def ensure() -> None:
            try:
                self._api.read(path, api.GROUPS)
            except ProviderError as error:
                if not is_gone(error):
                    raise
                location = normal_region(self._options.locations()[0])
                self._api.write(path, api.GROUPS, {"location": location})

        task.retry(ensure)
