"""The seam between the core and the clouds: Provider, Source, Emulated, Traits, load()."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from publisher.emulation import Faults
from publisher.errors import HostError, UsageError
from publisher.model import Audience, Disk, Finding, Image, Query, Spec, Upload
from publisher.task import Task

GROUP = "publisher.providers"

sdk_imports = threading.RLock()
"""Held while an SDK is imported. SDKs of several vendors share packages whose
modules import each other (requests, for one), and Python ends two threads that
import those at the same time with a deadlock error."""


class Options(BaseModel):
    """Base of every provider's [targets.NAME] section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "{name}-{version}",
        description="Name of the image in this cloud; {name}, {version} and {arch} are filled in.",
    )

    def locations(self) -> tuple[str, ...]:
        """The regions to publish to, the one that receives the upload first."""
        raise NotImplementedError

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        """The options in what follows "PROVIDER:" in a target of `migrate`, such
        as "us-east-1". Raises UsageError when it has not that form."""
        raise NotImplementedError

    @classmethod
    def from_reference(cls, text: str, given: Mapping[str, object]) -> Mapping[str, object]:
        """The options needed to read the image that `text` (a reference without
        "PROVIDER:") names, where `given` are those that the user set; what is
        returned goes over them. Raises UsageError when it has not that form."""
        raise NotImplementedError

    def fill(self, spec: Spec) -> str:
        """The image's name in this cloud. Raises PipelineError for an unknown {field}."""
        from publisher.errors import PipelineError

        try:
            return self.name.format(name=self.own_name(spec), version=spec.version, arch=spec.arch)
        except (KeyError, IndexError, ValueError) as error:
            raise PipelineError(
                f"cannot fill in the template {self.name!r}: {error}",
                hint="use only {name}, {version} and {arch}",
            ) from error

    def own_name(self, spec: Spec) -> str:
        """What {name} stands for: it does not end with the architecture where the
        template says that too."""
        return spec.name.removesuffix(f"-{spec.arch}") if "{arch" in self.name else spec.name

    def claims(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        """Option ▶ what it makes of this image that no other image of the release may
        be: names that are unique in a place. Raises PipelineError as `fill` does."""
        name = self.fill(spec)
        return {"name": [f"{place}/{name}" for place in self.locations()]}

    def opened_as(self) -> str:
        """What the cloud opens to an audience as a whole, images of other releases
        included, such as a gallery; empty where each image is opened by itself."""
        return ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the core must know about a cloud without knowing the cloud.

    `size_multiple` is the unit of a disk's virtual size in bytes, `size_max`
    the largest; `reference` shows how an image is named to `migrate`; `extra`
    is the pip extra that brings the vendor's SDK. `boots`: images become machines
    there, so the provider is Rehearsable (publisher.proof.guest).
    """

    title: str
    extra: str
    reference: str
    size_multiple: int
    size_max: int
    regional: bool
    boots: bool = False


class Provider(Protocol):
    """One account in one cloud.

    Made with its options; endpoints and credentials come from the environment,
    by the variables that the vendor's own tools read. Making one imports no
    SDK and sends no request. All methods may be called from several threads.

    Every verb may be called again with the same arguments after a crash, with
    or without the task's memory: it finds its own earlier work in the cloud
    instead of repeating it. Verbs raise ProviderError; `transient=True` marks
    what a retry may cure, and they retry through `task.retry` only. Between
    requests they call `task.check()`, so that Cancelled comes within seconds.

    Every resource is tagged at birth with image name, version, disk digest and
    run, so that `find` on another machine sees it.
    """

    name: ClassVar[str]
    traits: ClassVar[Traits]
    options: ClassVar[type[Options]]

    def __init__(self, options: Options) -> None: ...

    def validate(self, spec: Spec) -> Sequence[Finding]:
        """Offline and instant: names against the cloud's rules, size, arch,
        firmware. `spec.digest` may be empty and `spec.size` 0 when not known.
        `Finding.key` is relative to the target's section (`name`, `regions[1]`)."""

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        """Online, seconds, before the build: credentials, permissions, quotas,
        regions, names taken. Raises CredentialsError or UnreachableError."""

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        """Bring the bytes into the first of `options.locations()`; holes are not
        read. Continues an upload that was cut off, block by block."""

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        """Make a private image of the upload; returns when it is available.
        The same content under the same name is returned as it is; other content
        under that name raises ConflictError. Intermediate resources are removed."""

    def copy(self, image: Image, regions: Sequence[str], task: Task) -> Sequence[Image]:
        """Private copies in `regions` (which may include the image's own, or none);
        returns when all are available: one Image a region, in that order."""

    def verify(self, image: Image, disk: Disk, task: Task) -> None:
        """Read back bytes and attributes; raise VerifyError naming the first
        difference. Reads everything that the cloud lets one read."""

    def release(self, image: Image, audience: Audience, task: Task) -> None:
        """Open the image to exactly this audience."""

    def withdraw(self, image: Image, task: Task) -> None:
        """The inverse of release: private again."""

    def find(self, query: Query, task: Task) -> Sequence[Image]:
        """All images with our tags that match, in all of `options.locations()`,
        with their state and audience as the cloud has them now."""

    def delete(self, image: Image, task: Task) -> None:
        """Remove the image and everything made for it (its region only). Gone already is fine."""


@runtime_checkable
class Source(Protocol):
    """A cloud that `migrate` can read from."""

    def download(self, image_ref: str, into: Path, task: Task) -> Disk:
        """Read the disk behind `image_ref` (without "PROVIDER:") into the sparse
        raw file `into`. Continues what was cut off; removes what it made in the
        cloud, also when it fails. Works on images that we did not make."""

    def describe(self, image_ref: str, task: Task) -> Spec:
        """What is known of that image: name, arch, firmware, size in bytes (0 if unknown)."""


class Sandbox(Protocol):
    """A cloud's local stand-in: a real HTTP server on loopback, its state on disk.

    Strict: refuses what the cloud refuses. `faults` makes it misbehave.
    """

    faults: Faults

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point the vendor's own clients here."""

    def content(self, image_ref: str) -> Iterator[bytes]:
        """The bytes behind a registered image, straight from the stand-in's
        files and not through its API: the whole virtual disk, holes as zeros."""

    def corrupt(self, image_ref: str, offset: int) -> None:
        """Flip one bit of the stored byte at `offset` behind a registered image."""

    def resources(self) -> Sequence[str]:
        """Everything that costs money there: uploads, disks, objects, images,
        workers, as "kind/id"."""


@runtime_checkable
class Emulated(Protocol):
    """A provider that brings a local stand-in of its cloud."""

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Sandbox:
        """Not started yet; keeps its state under `state` between starts."""

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        """Values for required options that fit a fresh sandbox (project, bucket, …)."""


def names() -> list[str]:
    """The providers that are installed, in alphabetical order."""
    return sorted(entry.name for entry in _installed())


@functools.cache
def _installed() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=GROUP)


def load(name: str) -> type[Provider]:
    """The provider class of that name.

    Raises UsageError for an unknown one and HostError where its SDK is missing.
    Importing a provider does not import its SDK; that happens on first use.
    """
    for entry in _installed():
        if entry.name == name:
            provider: type[Provider] = entry.load()
            return provider
    known = names()
    raise UsageError(
        f"there is no provider {name!r}",
        hint=f"installed are: {', '.join(known) or 'none'}",
    )


def require(module: str, extra: str) -> None:
    """Import an SDK module or say which extra brings it."""
    try:
        with sdk_imports:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise HostError(
            f"the Python package {error.name} is not installed",
            hint=f"pip install 'cloud-image-publisher[{extra}]'",
        ) from error
