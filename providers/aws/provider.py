"""Amazon Web Services as a Provider: each verb is the vendor's runbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from providers.aws import checks, download, permissions, upload, verify
from providers.aws.api import Api
from providers.aws.images import Images, ami_of, root_snapshot
from providers.aws.options import SIZE_MAX, AwsOptions
from publisher.errors import VerifyError
from publisher.model import GIB, Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.proof.guest import Guest
from publisher.provider import Options, Sandbox, Traits
from publisher.task import Task


class Aws:
    name: ClassVar[str] = "aws"
    traits: ClassVar[Traits] = Traits(
        title="AWS",
        extra="aws",
        reference="aws:us-east-1/ami-0123456789abcdef0",
        size_multiple=GIB,
        size_max=SIZE_MAX,
        regional=True,
        boots=True,
    )
    options: ClassVar[type[Options]] = AwsOptions

    def __init__(self, options: Options) -> None:
        assert isinstance(options, AwsOptions)
        self._options = options
        self._api = Api(options.workers)
        self._images = Images(self._api, options)

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return list(checks.validate(self._options, spec))

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        return checks.check(self._api, self._options, spec, regions, task)

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        region, name = self._options.regions[0], self._options.fill(spec)
        taken = task.retry(lambda: self._images.named(region, name))
        if taken is not None:  # before gigabytes are sent in vain
            self._images.refuse_other(taken, name, disk.sha256, region)
        return upload.upload(self._api, self._options, disk, spec, task)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        return self._images.register(upload, spec, task)

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        return self._images.copy(image, regions, task)

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        if image.digest != disk.sha256:
            raise VerifyError(f"{image.reference} was made from another disk", provider="aws")
        raw = self._images.require(image, task)
        verify.attributes(self._options, image, disk, raw)
        verify.content(self._api, self._options, image, disk, raw, task)

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        region, ami = ami_of(image.ref)
        snapshot = root_snapshot(self._images.require(image, task))
        closed = Audience("private")
        shared = audience if self._options.share_snapshots else closed
        permissions.open_snapshot(self._api, region, snapshot, shared, task)
        permissions.open_image(self._api, region, ami, audience, task)

    def withdraw(self, image: Image, task: Task) -> None:
        self.release(image, Audience("private"), task)

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        return self._images.find(query, task)

    def delete(self, image: Image, task: Task) -> None:
        self._images.delete(image, task)

    def describe(self, image_ref: str, task: Task) -> Spec:
        return download.describe(self._images, image_ref, task)

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        return download.download(self._api, self._options, self._images, image_ref, into, task)

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        from providers.aws import guest

        assert options is None or isinstance(options, AwsOptions)
        return guest.Guest(options)

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Sandbox:
        from providers.aws.sandbox import AwsSandbox

        return AwsSandbox(state, port)

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        return {"regions": ("us-east-1",)}
