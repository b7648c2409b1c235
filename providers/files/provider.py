"""Files as a Provider: a release is a directory of disk files, digests and a signature.

Private: the files stand under .publish, which is not served. Public: they stand
under their name, and the index lists them. Shared with some: not by files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from providers.files import checks, download, images, upload, verify
from providers.files.api import Place, open_place
from providers.files.options import FilesOptions, normal, split
from providers.files.signing import Signer
from publisher.model import SECTOR, Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.provider import Options, Sandbox, Traits
from publisher.task import Task


class Files:
    name: ClassVar[str] = "files"
    traits: ClassVar[Traits] = Traits(
        title="Files",
        extra="files",
        reference="files:/srv/images/web-1.0.0-x86_64",
        size_multiple=SECTOR,
        size_max=checks.SIZE_MAX,
        regional=False,
    )
    options: ClassVar[type[Options]] = FilesOptions

    def __init__(self, options: Options) -> None:
        assert isinstance(options, FilesOptions)
        self._options = options
        self._signer = Signer(options.signing_key) if options.signing_key else None

    def _place(self, task: Task) -> Place:
        return open_place(self._options.url, task)

    def _place_of(self, image_ref: str, task: Task) -> Place:
        """A reference says where it is; the options may be a target's."""
        return open_place(normal(split(image_ref)[0]), task)

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return list(checks.validate(self._options, spec))

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:  # noqa: ARG002
        return checks.check(self._place(task), self._options, self._signer, spec)

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        return upload.upload(self._place(task), self._options, disk, spec, task)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        return images.register(self._place(task), self._options, self._signer, upload, spec)

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        return images.same_here(self._place(task), image, regions)

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        verify.verify(self._place(task), self._signer, image, disk)

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        images.release(self._place(task), self._options, self._signer, image, audience)

    def withdraw(self, image: Image, task: Task) -> None:
        images.withdraw(self._place(task), self._options, self._signer, image)

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        return images.find(self._place(task), query)

    def delete(self, image: Image, task: Task) -> None:
        images.delete(self._place(task), self._options, self._signer, image)

    # -- Source

    def describe(self, image_ref: str, task: Task) -> Spec:
        return download.describe(self._place_of(image_ref, task), image_ref)

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        return download.download(self._place_of(image_ref, task), image_ref, into, task)

    # -- Emulated

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Sandbox:
        from providers.files.sandbox import FilesSandbox

        return FilesSandbox(state, port)

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        return {"url": "/images"}
