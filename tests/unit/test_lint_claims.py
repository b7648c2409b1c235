"""A pipeline may claim of a disk what it really has, and nothing more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from providers.aws.options import AwsOptions
from providers.azure.options import AzureOptions
from providers.gcp.options import GcpOptions
from publisher import provider
from publisher.model import Finding, Spec
from tests.unit import lint_world as world
from tests.unit.lint_broken import ERROR, NOTE, absent, not_early
from tests.unit.lint_world import VERSION, Files, Link, World, good, good_esp, loader


def claims(name: str, options: Any, spec: Spec, disk: World) -> list[Finding]:
    kind: Any = provider.load(name)
    told = [f for rule in kind.guest(options).rules(spec) for f in world.found(rule, disk)]
    return [finding for finding in told if finding.key]


def with_kernel(version: str) -> Files:
    """The good installation with a kernel of another version."""
    files: Files = {
        path.replace(VERSION, version): content
        if isinstance(content, Link)
        else content.replace(VERSION.encode(), version.encode())
        for path, content in good().items()
    }
    early = [f"usr/lib/modules/{version}/{world.module(name)}" for name in world.EARLY]
    files[f"/boot/initrd.img-{version}"] = world.cpio(early)
    return files


SPEC = Spec("web", "1")
AZURE = AzureOptions(resource_group="g", gallery="g", location="westeurope")
GCP = GcpOptions(project="project-1", bucket="bucket")


def test_what_the_guest_really_has_may_be_claimed() -> None:
    features = ("GVNIC", "SEV_CAPABLE", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE")
    gcp = GCP.model_copy(update={"guest_os_features": features})
    assert claims("gcp", gcp, SPEC, World()) == []
    assert claims("azure", AZURE, SPEC, World()) == []
    aws = AwsOptions(regions=("us-east-1",))
    assert claims("aws", aws, SPEC, World()) == []


@pytest.mark.parametrize(
    ("feature", "lack"),
    [
        ("IDPF", "no driver idpf"),
        ("TDX_CAPABLE", "without CONFIG_INTEL_TDX_GUEST"),
        ("SEV_SNP_CAPABLE", "without CONFIG_SEV_GUEST"),
        ("WINDOWS", "is Linux"),
    ],
)
def test_a_claimed_feature_that_the_guest_lacks_is_an_error(feature: str, lack: str) -> None:
    options = GCP.model_copy(update={"guest_os_features": ("UEFI_COMPATIBLE", "GVNIC", feature)})
    told = claims("gcp", options, SPEC, World())
    (error,) = [finding for finding in told if finding.severity is ERROR]
    assert lack in error.evidence
    assert error.key == "targets.gcp.guest_os_features"


@pytest.mark.parametrize(
    ("version", "lack"),
    [
        ("5.10.0-9-cloud", "older than 6.6"),
        ("6.1.0-9-cloud", ""),
        ("6.5.0-9-cloud", "older than 6.6"),
        ("6.12.0-9-cloud", ""),
        ("5.14.0-570.12.1.el9_6.x86_64", ""),
    ],
)
def test_live_migration_of_encrypted_memory_needs_a_kernel_with_support(
    version: str, lack: str
) -> None:
    features = ("UEFI_COMPATIBLE", "GVNIC", "SEV_LIVE_MIGRATABLE_V2")
    options = GCP.model_copy(update={"guest_os_features": features})
    told = claims("gcp", options, SPEC, World(with_kernel(version)))
    errors = [finding.evidence for finding in told if finding.severity is ERROR]
    assert len(errors) == bool(lack)
    assert all(lack in evidence for evidence in errors)


def test_confidential_machines_need_the_driver_of_their_network_card() -> None:
    files = good()
    absent("gve")(files)
    options = GCP.model_copy(update={"guest_os_features": ("UEFI_COMPATIBLE", "SEV_CAPABLE")})
    (error,) = claims("gcp", options, SPEC, World(files))
    assert "SEV_CAPABLE is claimed, but" in error.evidence
    assert "no driver gve" in error.evidence


def test_a_feature_that_could_be_claimed_is_a_note() -> None:
    options = GCP.model_copy(update={"guest_os_features": ("UEFI_COMPATIBLE", "GVNIC")})
    (note,) = claims("gcp", options, SPEC, World())
    assert (note.severity, "SEV_CAPABLE" in note.evidence) == (NOTE, True)


def test_a_claimed_driver_that_the_guest_lacks_is_an_error() -> None:
    files = good()
    absent("ena", "gve", "mlx5_core", "mana")(files)
    aws = claims("aws", AwsOptions(regions=("us-east-1",)), SPEC, World(files))
    assert [(f.severity, f.key) for f in aws] == [(ERROR, "targets.aws.ena")]
    gcp = claims("gcp", GCP, SPEC, World(files))
    assert (ERROR, "targets.gcp.guest_os_features") in [(f.severity, f.key) for f in gcp]
    azure = claims("azure", AZURE, SPEC, World(files))
    assert [(f.severity, f.key) for f in azure] == [(ERROR, "targets.azure.accelerated_networking")]


def test_nvme_that_is_claimed_and_not_in_the_initramfs_is_an_error() -> None:
    files = good()
    not_early("pci-hyperv")(files)
    (told,) = claims("azure", AZURE, SPEC, World(files))
    assert (told.severity, told.key) == (ERROR, "targets.azure.nvme")


def test_trusted_launch_needs_a_signed_loader() -> None:
    esp = good_esp()
    esp["/EFI/BOOT/BOOTX64.EFI"] = loader(signed=False)
    (told,) = claims("azure", AZURE, SPEC, World(esp=esp))
    assert (told.severity, told.key) == (ERROR, "targets.azure.security_type")


def test_a_tpm_needs_uefi_and_a_driver() -> None:
    options = AwsOptions(regions=("us-east-1",), tpm=True)
    told = claims("aws", options, SPEC, World(esp={}))
    assert [f.evidence.partition(":")[0] for f in told if f.key == "targets.aws.tpm"] == [
        "a NitroTPM needs UEFI",
        f"kernel {VERSION} has no driver tpm_crb",
    ]


def test_generation_v2_needs_a_loader() -> None:
    spec = dataclasses.replace(SPEC, firmware="bios+uefi")
    told = claims("azure", AZURE, spec, World(esp={}))
    assert "targets.azure.generation" in [finding.key for finding in told]
