"""[targets.azure]: the options, and Azure's rules for names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from providers.azure.refs import Ref
from publisher.errors import PipelineError, UsageError
from publisher.model import MIB, Finding, Severity, Spec
from publisher.provider import Options

SecurityType: TypeAlias = Literal[
    "Standard",
    "TrustedLaunchSupported",
    "TrustedLaunch",
    "ConfidentialVmSupported",
    "TrustedLaunchAndConfidentialVmSupported",
]
Generation: TypeAlias = Literal["V1", "V2"]
ReplicaStorage: TypeAlias = Literal["Standard_LRS", "Standard_ZRS", "Premium_LRS"]

TRUSTED, NVME, ACCELERATED = "trusted_launch", "nvme", "accelerated_networking"
"""What is looked for on the disk: `Spec.abilities`."""

UPLOAD_MIN = 20_972_032
"""Smallest `uploadSizeBytes` of a disk, the VHD's footer included."""
SIZE_MAX = 32 * 1024**4 - MIB
_INT32_MAX = 2**31 - 1

# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
_DEFINITION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?")
_GALLERY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._]{0,78}[A-Za-z0-9])?")
_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_IDENTIFIER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_TAG_KEY_REFUSED = re.compile(r"[<>%&\\?/]")
_TAGS_MAX = 50
_TAGS_OURS = 12
"""Tags that this program may add to a version: identity, and an audience in pieces."""


def normal_region(name: str) -> str:
    """The programmatic name of a region: "West Europe" is "westeurope"."""
    return name.replace(" ", "").lower()


class Region(BaseModel):
    """One target region with replica settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Region, such as westeurope.", min_length=1)
    replicas: int | None = Field(
        None, ge=1, le=100, description="Replicas in this region; `replicas` by default."
    )
    storage_account_type: ReplicaStorage | None = Field(
        None, description="Storage of this region's replicas; `storage_account_type` by default."
    )


class Community(BaseModel):
    """What a community (public) gallery tells its users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    publisher_uri: str = Field(description="Web page of the publisher.", min_length=1)
    publisher_contact: str = Field(description="E-mail address of the publisher.", min_length=1)
    eula: str = Field(description="Licence terms: a text or a URL.", min_length=1)
    public_name_prefix: str = Field(
        description="Start of the gallery's public name.", pattern=r"^[A-Za-z0-9]{5,16}$"
    )


class AzureOptions(Options):
    """Images go into a Compute Gallery. Azure shares galleries as a whole, not
    single images: see `providers/azure/sharing.py`."""

    name: str = Field(
        "{name}",
        description="Name of the image definition; {name}, {version} and {arch} are filled in.",
    )
    version: str = Field(
        "{version}",
        description="Name of the image version, Major.Minor.Patch; {version} is filled in.",
    )
    subscription: str | None = Field(
        None, description="Subscription id; the environment's AZURE_SUBSCRIPTION_ID by default."
    )
    resource_group: str = Field(description="Resource group that holds the gallery.")
    create_resource_group: bool = Field(
        False, description="Create the resource group if it is missing."
    )
    gallery: str = Field(description="Compute Gallery; created if it is missing.")
    location: str | None = Field(
        None,
        description="Region of the gallery and of the upload; the first of `regions` by default.",
    )
    regions: tuple[str | Region, ...] = Field(
        (), description="Target regions: names, or tables with name and replicas."
    )
    replicas: int = Field(1, ge=1, le=100, description="Replicas in each region.")
    storage_account_type: ReplicaStorage = Field(
        "Standard_LRS", description="Storage of the replicas."
    )
    publisher: str = Field(
        "cloud-image-publisher", description="Publisher in the definition's identifier."
    )
    offer: str = Field("{name}", description="Offer in the definition's identifier.")
    sku: str = Field(
        "{definition}",
        description="SKU in the definition's identifier; {definition} and {arch} are filled in.",
    )
    generation: Generation | None = Field(
        None, description="Hyper-V generation; V2 for a disk that boots by UEFI by default."
    )
    security_type: SecurityType | None = Field(
        None,
        description="SecurityType of the definition; TrustedLaunchSupported for V2 on x86_64 "
        "with a signed loader and Standard otherwise by default. TrustedLaunch can't be shared.",
    )
    accelerated_networking: bool | None = Field(
        None,
        description="Say that the image supports accelerated networking; by default if its "
        "kernel has one of the drivers.",
    )
    nvme: bool | None = Field(
        None,
        description="Say that the image boots from NVMe controllers (V2 only); by default if its "
        "initramfs has the drivers.",
    )
    exclude_from_latest: bool = Field(
        False, description='Leave the version out of "latest" after the release too.'
    )
    end_of_life: date | None = Field(None, description="End of life of the version.")
    disk_sku: Literal["Standard_LRS", "StandardSSD_LRS", "Premium_LRS"] = Field(
        "Standard_LRS", description="Kind of the temporary disks."
    )
    community: Community | None = Field(
        None, description="What a public gallery must state; needed for a public release."
    )
    workers: int = Field(8, ge=1, le=64, description="Parallel transfers to or from a disk.")

    def locations(self) -> tuple[str, ...]:
        """None where an image is only read: that goes where the image is."""
        names = [region.name if isinstance(region, Region) else region for region in self.regions]
        wanted = ([self.location] if self.location else []) + names
        return tuple(dict.fromkeys(normal_region(name) for name in wanted))

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        """SUBSCRIPTION/GROUP/GALLERY, with :REGION,REGION behind it where more than
        the options' own are wanted."""
        place, _, regions = text.partition(":")
        parts = place.split("/")
        if len(parts) != 3 or not all(parts):
            raise UsageError(
                f"azure:{text} names no gallery",
                hint="write azure:SUBSCRIPTION/GROUP/GALLERY[:REGION,REGION]",
            )
        wanted: dict[str, object] = dict(
            zip(("subscription", "resource_group", "gallery"), parts, strict=True)
        )
        return {**wanted, "regions": regions.split(",")} if regions else wanted

    @classmethod
    def from_reference(cls, text: str, given: Mapping[str, object]) -> Mapping[str, object]:
        """What is made to read the image goes where `given` says, or beside the image."""
        ref = Ref.parse(text)
        beside = {
            "subscription": ref.subscription,
            "resource_group": ref.group,
            "gallery": ref.gallery,
        }
        return {**beside, **{key: given[key] for key in beside if key in given}}

    def region(self, name: str) -> Region:
        """The settings of one target region, the defaults filled in."""
        own = next(
            (r for r in self.regions if isinstance(r, Region) and normal_region(r.name) == name),
            Region(name=name),
        )
        return Region(
            name=name,
            replicas=own.replicas or self.replicas,
            storage_account_type=own.storage_account_type or self.storage_account_type,
        )

    def subscription_id(self) -> str:
        """Raises PipelineError when neither the option nor the environment has one."""
        found = self.subscription or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
        if not found:
            raise PipelineError(
                "which Azure subscription?",
                key="targets.azure.subscription",
                hint="set the option, or AZURE_SUBSCRIPTION_ID in the environment",
            )
        return found

    def definition_name(self, spec: Spec) -> str:
        return self.fill(spec)

    def claims(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        """A definition is for one architecture; its identifier is unique in the gallery."""
        identifier = "/".join(self.identifier(spec).values())
        return {
            "name": [f"{self.opened_as()}/{self.definition_name(spec)}"],
            "sku": [f"{self.opened_as()}/{identifier}"],
        }

    def opened_as(self) -> str:
        return "/".join(filter(None, (self.subscription, self.resource_group, self.gallery)))

    def version_name(self, spec: Spec) -> str:
        return self._template("version", self.version, version=spec.version)

    def identifier(self, spec: Spec) -> dict[str, str]:
        """publisher, offer and sku: unique in a gallery."""
        fields = {
            "name": spec.name,
            "version": spec.version,
            "arch": spec.arch,
            "definition": self.definition_name(spec),
        }
        return {
            part: self._template(part, getattr(self, part), **fields)
            for part in ("publisher", "offer", "sku")
        }

    @staticmethod
    def _template(key: str, template: str, **fields: str) -> str:
        try:
            return template.format(**fields)
        except (KeyError, IndexError, ValueError) as error:
            raise PipelineError(
                f"cannot fill in the template {template!r}: {error}",
                key=f"targets.azure.{key}",
                hint=f"use only {', '.join('{' + name + '}' for name in fields)}",
            ) from error

    def generation_for(self, spec: Spec) -> Generation:
        if self.generation is not None:
            return self.generation
        return "V1" if spec.firmware == "bios" else "V2"

    def security_for(self, spec: Spec) -> SecurityType:
        if self.security_type is not None:
            return self.security_type
        trusted = self.generation_for(spec) == "V2" and spec.arch == "x86_64"
        return "TrustedLaunchSupported" if trusted and spec.bears(TRUSTED) else "Standard"

    def nvme_for(self, spec: Spec) -> bool:
        """Only V2 has NVMe controllers."""
        wanted = spec.bears(NVME) if self.nvme is None else self.nvme
        return wanted and self.generation_for(spec) == "V2"

    def accelerated_for(self, spec: Spec) -> bool:
        given = self.accelerated_networking
        return spec.bears(ACCELERATED) if given is None else given


def disk_name(purpose: str, *identity: str) -> str:
    """The name of a temporary disk: the same on every machine, for every run."""
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    return f"publish-{purpose}-{digest[:24]}"


def check_names(options: AzureOptions, spec: Spec) -> Iterator[Finding]:
    """Azure's rules for names, sizes and tags, as findings relative to the section."""

    def wrong(key: str, what: str, fix: str) -> Finding:
        return Finding(f"azure.{key.partition('[')[0]}", Severity.ERROR, what, fix, key)

    if not options.locations():
        yield wrong("regions", "no region is named", "give location, regions or both")
    definition = options.definition_name(spec)
    if not _DEFINITION.fullmatch(definition):
        yield wrong(
            "name",
            f"{definition!r} cannot name an image definition",
            "use 1 to 80 letters, digits, dots, underscores or hyphens; "
            "start with a letter or digit, end with one or an underscore",
        )
    version = options.version_name(spec)
    numbers = _VERSION.fullmatch(version)
    if not numbers or any(int(number) > _INT32_MAX for number in numbers.groups()):
        yield wrong(
            "version",
            f"{version!r} cannot name an image version",
            "use Major.Minor.Patch, three 32-bit integers: in [image] version, "
            'or with a template such as "{version}.0"',
        )
    if not _GALLERY.fullmatch(options.gallery):
        yield wrong(
            "gallery",
            f"{options.gallery!r} cannot name a gallery",
            "use 1 to 80 letters, digits, dots or underscores, and no hyphens; "
            "start and end with a letter or digit",
        )
    if not _GROUP.fullmatch(options.resource_group):
        yield wrong(
            "resource_group",
            f"{options.resource_group!r} cannot name a resource group",
            "use 1 to 90 letters, digits, underscores, hyphens, dots or parentheses, "
            "and no dot at the end",
        )
    for part, value in options.identifier(spec).items():
        limit = 128 if part == "publisher" else 64
        if len(value) > limit or not _IDENTIFIER.fullmatch(value):
            yield wrong(
                part,
                f"{value!r} cannot be a definition's {part}",
                f"use 1 to {limit} letters, digits, dots, underscores or hyphens, "
                "and no dot at the end",
            )
    yield from _check_disk(options, spec, wrong)
    yield from _check_tags(spec, wrong)


def _check_disk(options: AzureOptions, spec: Spec, wrong: Any) -> Iterator[Finding]:
    generation = options.generation_for(spec)
    if generation == "V2" and spec.firmware == "bios":
        yield wrong("generation", "generation V2 boots by UEFI, the disk by BIOS only", "use V1")
    if generation == "V1" and spec.firmware == "uefi":
        yield wrong("generation", "generation V1 boots by BIOS, the disk by UEFI only", "use V2")
    if generation == "V1" and spec.arch == "aarch64":
        yield wrong("generation", "Azure has no generation V1 for aarch64", "use V2")
    if generation == "V1" and options.security_for(spec) != "Standard":
        yield wrong("security_type", f"{options.security_type} needs generation V2", "use Standard")
    if spec.size and spec.size + 512 < UPLOAD_MIN:
        yield wrong("", f"a disk of {spec.size} bytes is too small for Azure", "use 20 MiB or more")
    if spec.size > SIZE_MAX:
        yield wrong("", f"a disk of {spec.size} bytes is too large for Azure", "stay below 32 TiB")
    if spec.size % MIB:
        yield wrong("", f"a disk of {spec.size} bytes is no multiple of 1 MiB", "round it up")


def _check_tags(spec: Spec, wrong: Any) -> Iterator[Finding]:
    if len(spec.tags) > _TAGS_MAX - _TAGS_OURS:
        yield wrong(
            "",
            f"{len(spec.tags)} tags are too many for Azure",
            f"use at most {_TAGS_MAX - _TAGS_OURS}",
        )
    for key, value in spec.tags.items():
        if _TAG_KEY_REFUSED.search(key) or not 0 < len(key) <= 512 or len(value) > 256:
            yield wrong(
                "",
                f"Azure refuses the tag {key!r}",
                r"use keys without <>%&\?/ and values of at most 256 characters",
            )
