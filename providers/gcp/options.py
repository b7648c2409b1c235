"""The [targets.gcp] section, and Google Cloud's rules for names and labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import Field

from publisher.errors import UsageError
from publisher.model import GIB, Finding, Severity, Spec
from publisher.provider import Options

NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1035: https://cloud.google.com/compute/docs/naming-resources"""
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE_MOST = 63
LABELS_MOST = 64
IDENTITY_LABELS = 5
"""https://cloud.google.com/compute/docs/labeling-resources#requirements"""
GLOBAL = "global"

Feature: TypeAlias = Literal[
    "BARE_METAL_LINUX_COMPATIBLE",
    "CCA_CAPABLE",
    "GVNIC",
    "IDPF",
    "MULTI_IP_SUBNET",
    "SECURE_BOOT",
    "SEV_CAPABLE",
    "SEV_LIVE_MIGRATABLE",
    "SEV_LIVE_MIGRATABLE_V2",
    "SEV_SNP_CAPABLE",
    "SNP_SVSM_CAPABLE",
    "SUSPEND_RESUME_COMPATIBLE",
    "TDX_CAPABLE",
    "UEFI_COMPATIBLE",
    "VIRTIO_SCSI_MULTIQUEUE",
    "WINDOWS",
]


USUAL: tuple[Feature, ...] = ("UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE")
"""What is declared of a disk that nobody has looked at."""
DERIVED: tuple[Feature, ...] = (
    *USUAL,
    *("IDPF", "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE", "TDX_CAPABLE"),
)
"""What is declared of a disk that bears it, unless the options name the features."""
BY_UEFI: tuple[Feature, ...] = (
    *("UEFI_COMPATIBLE", "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2"),
    *("SEV_SNP_CAPABLE", "TDX_CAPABLE"),
)
"""What means nothing of an image that is not started by UEFI."""


class GcpOptions(Options):
    """Options of the target `gcp`."""

    project: str = Field(
        description="Id of the project that owns the image.",
        pattern=r"^(?:[a-z][a-z0-9.-]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$",
    )
    bucket: str = Field(
        description="Cloud Storage bucket for the bytes on their way; it stays empty afterwards.",
        pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$",
    )
    family: str | None = Field(
        None,
        description="Image family, which resolves to its newest image; {name} and {arch} are "
        "filled in.",
        pattern=r"^(?:[a-z]|\{(?:name|arch)\})(?:[-a-z0-9]|\{(?:name|arch)\})*$",
    )
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="Labels of the image, besides [image] tags."
    )
    storage_locations: tuple[str, ...] = Field(
        (),
        description='Where Google keeps the image: one multi-region or region, such as "eu".',
        max_length=1,
    )
    guest_os_features: tuple[Feature, ...] | None = Field(
        None,
        description="Guest OS features; by default those of the firmware, network cards, disks "
        "and memory encryption that the disk supports.",
    )
    licenses: tuple[str, ...] = Field((), description="URLs of licenses to attach to the image.")
    kms_key: str | None = Field(
        None,
        description="Cloud KMS key that encrypts the image: "
        "projects/…/locations/…/keyRings/…/cryptoKeys/….",
        pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+(/.*)?$",
    )
    verify: Literal["read-back", "attributes"] = Field(
        "read-back",
        description="read-back: a short-lived machine reads the image's bytes back. attributes: "
        "compare what the API tells, and trust the checksums of the upload.",
    )
    zone: str = Field(
        "us-central1-a",
        description="Zone of the short-lived machine that reads images.",
        pattern=r"^[a-z]+-[a-z]+[0-9]-[a-z]$",
    )
    worker_machine_type: str = Field(
        "e2-standard-4", description="Machine type of the short-lived machine."
    )
    worker_image: str = Field(
        "projects/debian-cloud/global/images/family/debian-12",
        description="Image of the short-lived machine: a Linux with Python 3 that runs "
        "startup scripts.",
        pattern=r"^projects/[^/]+/global/images/(family/)?[^/]+$",
    )
    worker_network: str = Field(
        "global/networks/default", description="Network of the short-lived machine."
    )
    worker_subnetwork: str | None = Field(
        None, description="Subnetwork of the short-lived machine, where the network needs one."
    )
    worker_external_ip: bool = Field(
        True,
        description="Give the short-lived machine an external address. Without one, the "
        "subnetwork needs Private Google Access.",
    )

    def locations(self) -> tuple[str, ...]:
        """Images are global."""
        return (GLOBAL,)

    @classmethod
    def from_target(cls, text: str) -> Mapping[str, object]:
        """PROJECT or PROJECT/BUCKET."""
        project, _, bucket = text.partition("/")
        return {"project": project, **({"bucket": bucket} if bucket else {})}

    @classmethod
    def from_reference(cls, text: str, given: Mapping[str, object]) -> Mapping[str, object]:
        """The image may be another project's; the worker runs in the project that is given."""
        project, slash, image = text.partition("/")
        if not (slash and image):
            raise UsageError(f"gcp:{text} names no image", hint="write gcp:PROJECT/IMAGE")
        return {"project": given.get("project", project)}

    def fill(self, spec: Spec) -> str:
        """As in Options; what is filled in is brought into RFC 1035's alphabet
        (1.2.3 becomes 1-2-3), the template itself is not touched."""
        plain = dataclasses.replace(spec, version=_dashed(spec.version))
        return super().fill(plain).replace(spec.arch, _dashed(spec.arch))

    def own_name(self, spec: Spec) -> str:
        return _dashed(super().own_name(spec))

    def family_name(self, spec: Spec) -> str | None:
        """The image's family, filled in."""
        if self.family is None:
            return None
        return self.family.format(name=_dashed(spec.name), arch=_dashed(spec.arch))

    def claims(self, spec: Spec) -> Mapping[str, Sequence[str]]:
        family = self.family_name(spec)
        return {
            "name": [f"{self.project}/{self.fill(spec)}"],
            "family": [f"{self.project}/{family}"] if family else [],
        }


def _dashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def features(options: GcpOptions, spec: Spec) -> tuple[str, ...]:
    """The guest OS features to declare: those of the options, or what the disk bears.
    Google's ARM machines boot by UEFI only."""
    if options.guest_os_features is not None:
        return options.guest_os_features
    uefi = "uefi" in spec.firmware or spec.arch == "aarch64"
    wanted = DERIVED if spec.abilities is not None else USUAL
    return tuple(f for f in wanted if spec.bears(f) and (uefi or f not in BY_UEFI))


def architecture(spec: Spec) -> str:
    return "ARM64" if spec.arch == "aarch64" else "X86_64"


def label(text: str) -> str:
    """A user's text as a label key or value: lower case, other characters as dashes."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:LABEL_VALUE_MOST]


def problems(options: GcpOptions, spec: Spec) -> Iterator[Finding]:
    """What Google Cloud would refuse, without asking it."""

    def error(rule: str, evidence: str, fix: str, key: str) -> Finding:
        return Finding(rule, Severity.ERROR, evidence, fix, key)

    name = options.fill(spec)
    if not NAME.fullmatch(name):
        yield error(
            "gcp.name",
            f"{name!r} is no name for an image",
            "1 to 63 lower-case letters, digits and dashes, starting with a letter and "
            "ending without a dash",
            "name",
        )
    family = options.family_name(spec)
    if family is not None and not NAME.fullmatch(family):
        yield error(
            "gcp.family",
            f"{family!r} is no name for an image family",
            "1 to 63 lower-case letters, digits and dashes, starting with a letter and "
            "ending without a dash",
            "family",
        )
    if spec.size % GIB:
        yield error(
            "gcp.size",
            f"the disk has {spec.size} bytes, not a whole number of GiB",
            "choose a build.size in whole GiB",
            "",
        )
    uefi = "UEFI_COMPATIBLE" in features(options, spec)
    if spec.arch == "aarch64" and spec.firmware == "bios":
        yield error(
            "gcp.firmware", "ARM machines boot by UEFI only", "set build.firmware to uefi", ""
        )
    elif spec.firmware == "uefi" and not uefi:
        yield error(
            "gcp.features",
            "the disk boots by UEFI only and UEFI_COMPATIBLE is not declared",
            "add UEFI_COMPATIBLE",
            "guest_os_features",
        )
    if len(options.labels) + len(spec.tags) > LABELS_MOST - IDENTITY_LABELS:
        yield error(
            "gcp.labels",
            f"{len(options.labels) + len(spec.tags)} labels and tags are too many",
            f"an image has {LABELS_MOST} labels, {IDENTITY_LABELS} of them are the program's own",
            "labels",
        )
    for key, value in options.labels.items():
        if not LABEL_KEY.fullmatch(key) or label(value) != value:
            yield error(
                "gcp.label",
                f"{key}={value!r} is no label",
                "up to 63 lower-case letters, digits, dashes and underscores; keys start "
                "with a letter",
                f"labels.{key}",
            )
    for key, value in spec.tags.items():
        if label(key) != key or label(value) != value:
            yield Finding(
                "gcp.tag",
                Severity.NOTE,
                f"the tag {key}={value} becomes the label {label(key)}={label(value)}",
                "labels hold lower-case letters, digits, dashes and underscores only",
            )
        if not LABEL_KEY.fullmatch(label(key)):
            yield error("gcp.tag", f"the tag {key!r} is no label", "start it with a letter", "")
