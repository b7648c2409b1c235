"""A small cloud in memory, for tests of the engine."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from publisher.disks import raw
from publisher.errors import ConflictError, ProviderError, VerifyError
from publisher.model import MIB, Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.provider import Options, Traits
from publisher.task import Task


class Cloud:
    """What the cloud holds; `calls` records every verb, `before` may raise in one."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytes] = {}
        self.images: dict[str, Image] = {}
        self.bytes: dict[str, bytes] = {}
        self.findings: list[Finding] = []
        self.made = 0
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda verb: None
        self.after: Callable[[str], None] = lambda verb: None
        self.lock = threading.RLock()

    def call(self, verb: str) -> None:
        with self.lock:
            self.calls.append(verb)
        self.before(verb)

    def verbs(self) -> set[str]:
        return set(self.calls)


CLOUDS: dict[str, Cloud] = {}


class NimbusOptions(Options):
    cloud: str = Field("nimbus", description="Which cloud of the test.")
    regions: tuple[str, ...] = Field(("north",), description="Regions.")

    def locations(self) -> tuple[str, ...]:
        return self.regions

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        return {"regions": text.split(",")}

    @classmethod
    def from_reference(cls, text: str, given: Mapping[str, object]) -> Mapping[str, object]:
        return {"regions": [text.partition("/")[0]]}


class Nimbus:
    name: ClassVar[str] = "nimbus"
    traits: ClassVar[Traits] = Traits(
        "Nimbus", "nimbus", "nimbus:REGION/ID", MIB, 2**50, regional=True
    )
    options: ClassVar[type[Options]] = NimbusOptions

    def __init__(self, options: Options) -> None:
        assert isinstance(options, NimbusOptions)
        self.own = options
        self.cloud = CLOUDS.setdefault(self.name, Cloud())

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return []

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        self.cloud.call("check")
        return self.cloud.findings

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        self.cloud.call("upload")
        with raw.Reader(disk) as reader:
            self.cloud.uploads[disk.sha256] = b"".join(reader.stream())
        self.cloud.after("upload")
        return Upload(self.name, self.own.regions[0], disk.sha256, disk.sha256)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        self.cloud.call("register")
        for image in self.cloud.images.values():
            if (image.name, image.version) == (spec.name, spec.version):
                if image.digest != spec.digest:
                    raise ConflictError(f"{image.ref} has other content", provider=self.name)
                return image
        image = self._add(spec, self.own.regions[0], self.cloud.uploads[upload.ref])
        self.cloud.after("register")
        return image

    def _add(self, spec: Spec | Image, region: str, content: bytes) -> Image:
        with self.cloud.lock:
            uid = str(self.cloud.made)
            self.cloud.made += 1
        ref = f"{region}/img{uid}"
        image = Image(self.name, region, ref, spec.name, spec.version, spec.digest, uid=uid)
        self.cloud.images[ref] = image
        self.cloud.bytes[ref] = content
        return image

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        self.cloud.call("copy")
        copies = []
        for region in regions:
            found = [
                i
                for i in self.cloud.images.values()
                if (i.region, i.name, i.digest) == (region, image.name, image.digest)
            ]
            copies += found[:1] or [self._add(image, region, self.cloud.bytes[image.ref])]
        return copies

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        self.cloud.call("verify")
        with raw.Reader(disk) as reader:
            if b"".join(reader.stream()) != self.cloud.bytes[image.ref]:
                raise VerifyError(f"{image.ref} differs", provider=self.name)

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        self.cloud.call("release")
        self._open(image, audience)
        self.cloud.after("release")

    def withdraw(self, image: Image, task: Task) -> None:
        self.cloud.call("withdraw")
        self._open(image, Audience())

    def _open(self, image: Image, audience: Audience) -> None:
        now = self.cloud.images[image.ref]
        self.cloud.images[image.ref] = dataclasses.replace(now, audience=audience)

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        self.cloud.call("find")
        return [
            image
            for image in self.cloud.images.values()
            if image.region in self.own.regions
            and query.matches(name=image.name, version=image.version, digest=image.digest)
        ]

    def delete(self, image: Image, task: Task) -> None:
        self.cloud.images.pop(image.ref, None)

    def describe(self, image_ref: str, task: Task) -> Spec:
        self.cloud.call("describe")
        return Spec("origin", "1.0.0", arch="aarch64", firmware="uefi")

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        self.cloud.call("download")
        assert image_ref.startswith(self.own.regions[0]), "read with the target's options"
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_bytes(self.cloud.bytes[image_ref])
        return raw.inspect(into)


def fail(provider: str, verb: str, **options: Any) -> None:
    """Let a verb of a provider fail for good."""

    def refuse(called: str) -> None:
        if called == verb:
            raise ProviderError(f"{provider} refuses to {verb}", provider=provider, **options)

    CLOUDS[provider].before = refuse


class Stratus(Nimbus):
    name: ClassVar[str] = "stratus"


class Cirrus(Nimbus):
    name: ClassVar[str] = "cirrus"


PROVIDERS = {kind.name: kind for kind in (Nimbus, Stratus, Cirrus)}
