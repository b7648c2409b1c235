"""A pipeline may claim of a disk what it really has, and nothing more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from providers.aws.options import AwsOptions, ena
from providers.azure.gallery import definition_body
from providers.azure.options import AzureOptions
from providers.gcp.options import GcpOptions
from providers.gcp.options import features as declared
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
AWS = AwsOptions(regions=("us-east-1",))


def test_what_the_guest_really_has_may_be_claimed() -> None:
    features = (
        *("GVNIC", "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2"),
        *("UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE"),
    )
    gcp = GCP.model_copy(update={"guest_os_features": features})
    assert claims("gcp", gcp, SPEC, World()) == []
    claimed = {"nvme": True, "accelerated_networking": True, "security_type": "TrustedLaunch"}
    assert claims("azure", AZURE.model_copy(update=claimed), SPEC, World()) == []
    assert claims("aws", AWS.model_copy(update={"ena": True}), SPEC, World()) == []


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


CONFIDENTIAL = "CONFIG_INTEL_TDX_GUEST=y\nCONFIG_ARM_CCA_GUEST=y\n"
UNSIGNED: Files = {**good_esp(), "/EFI/BOOT/BOOTX64.EFI": loader(signed=False)}


@pytest.mark.parametrize(
    ("feature", "version", "config", "esp", "lack"),
    [
        ("CCA_CAPABLE", VERSION, CONFIDENTIAL, good_esp(), ""),
        ("CCA_CAPABLE", VERSION, "", good_esp(), "does not tell of its configuration"),
        ("CCA_CAPABLE", VERSION, "CONFIG_X=y\n", good_esp(), "without CONFIG_ARM_CCA_GUEST"),
        ("CCA_CAPABLE", VERSION, CONFIDENTIAL, {}, "no EFI/BOOT/"),
        ("SECURE_BOOT", VERSION, "", good_esp(), ""),
        ("SECURE_BOOT", VERSION, "", UNSIGNED, "no signature"),
        ("SECURE_BOOT", VERSION, "", {}, "no EFI/BOOT/"),
        ("TDX_CAPABLE", "6.6.0-9-cloud", CONFIDENTIAL, good_esp(), ""),
        ("TDX_CAPABLE", "6.5.0-9-cloud", CONFIDENTIAL, good_esp(), "older than 6.6"),
        ("TDX_CAPABLE", "6.1.0-9-cloud", CONFIDENTIAL, good_esp(), "older than 6.6"),
        ("BARE_METAL_LINUX_COMPATIBLE", VERSION, "", good_esp(), "no driver idpf"),
        ("BARE_METAL_LINUX_COMPATIBLE", VERSION, "", {}, "no EFI/BOOT/"),
    ],
)
def test_what_a_feature_needs_is_looked_for(
    feature: str, version: str, config: str, esp: Files, lack: str
) -> None:
    files = with_kernel(version)
    files[f"/boot/config-{version}"] = config.encode()
    options = GCP.model_copy(update={"guest_os_features": (feature,)})
    told = claims("gcp", options, SPEC, World(files, esp))
    errors = [finding.evidence for finding in told if finding.severity is ERROR]
    assert [lack in error for error in errors] == ([True] if lack else [])


@pytest.mark.parametrize("built_in", ["idpf", "nvme", "both"])
def test_bare_metal_needs_its_disks_and_its_network_card(built_in: str) -> None:
    files = good()
    absent("nvme")(files)
    names = ("idpf", "nvme") if built_in == "both" else (built_in,)
    path = f"{world.MODULES}/modules.builtin"
    builtin = files[path]
    assert isinstance(builtin, bytes)
    files[path] = builtin + "".join(f"\n{world.module(name)}" for name in names).encode()
    options = GCP.model_copy(update={"guest_os_features": ("BARE_METAL_LINUX_COMPATIBLE",)})
    told = claims("gcp", options, SPEC, World(files))
    errors = [finding for finding in told if finding.severity is ERROR]
    assert bool(errors) is (built_in != "both")


def test_confidential_machines_need_the_driver_of_their_network_card() -> None:
    files = good()
    absent("gve")(files)
    options = GCP.model_copy(update={"guest_os_features": ("UEFI_COMPATIBLE", "SEV_CAPABLE")})
    told = claims("gcp", options, SPEC, World(files))
    (error,) = [finding for finding in told if finding.severity is ERROR]
    assert "SEV_CAPABLE is claimed, but" in error.evidence
    assert "no driver gve" in error.evidence


def test_a_feature_that_could_be_claimed_is_a_note() -> None:
    features = ("UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE", "SEV_LIVE_MIGRATABLE_V2")
    options = GCP.model_copy(update={"guest_os_features": features})
    (note,) = claims("gcp", options, SPEC, World())
    assert (note.severity, "SEV_CAPABLE" in note.evidence) == (NOTE, True)


# -- what is not claimed follows from the disk


def abilities(name: str, disk: World) -> tuple[str, ...]:
    kind: Any = provider.load(name)
    return tuple(kind.guest(None).abilities(disk))


def lacking(*modules: str) -> World:
    files = good()
    absent(*modules)(files)
    return World(files)


@pytest.mark.parametrize(
    ("name", "options"), [("aws", AWS), ("gcp", GCP), ("azure", AZURE)], ids=lambda x: str(x)[:5]
)
def test_what_nobody_claims_is_no_error(name: str, options: Any) -> None:
    disk = lacking("ena", "gve", "idpf", "mlx5_core", "mana", "nvme", "pci-hyperv")
    assert claims(name, options, SPEC, disk) == []
    unsigned = World(esp={**good_esp(), "/EFI/BOOT/BOOTX64.EFI": loader(signed=False)})
    assert claims(name, options, SPEC, unsigned) == []
    kind: Any = provider.load(name)
    rules = {rule.id: rule for rule in kind.guest(options).rules(SPEC)}
    for rule in ("aws.network-driver", "azure.nvme-driver", "azure.accelerated-networking"):
        for found in world.found(rules[rule], disk) if rule in rules else ():
            assert found.severity is not ERROR


def test_ena_is_told_of_as_the_disk_has_it() -> None:
    with_driver = dataclasses.replace(SPEC, abilities=abilities("aws", World()))
    without = dataclasses.replace(SPEC, abilities=abilities("aws", lacking("ena")))
    assert [ena(AWS, spec) for spec in (SPEC, with_driver, without)] == [True, True, False]
    claimed = AWS.model_copy(update={"ena": True})
    assert ena(claimed, without)


def test_azures_definition_says_what_the_disk_bears() -> None:
    everything = dataclasses.replace(SPEC, abilities=abilities("azure", World()))
    assert features_of(everything) == features_of(SPEC)
    assert features_of(everything) == {
        "SecurityType": "TrustedLaunchSupported",
        "IsAcceleratedNetworkSupported": "True",
        "DiskControllerTypes": "SCSI, NVMe",
    }
    for modules, feature in (
        (("mlx5_core", "mana"), "IsAcceleratedNetworkSupported"),
        (("pci-hyperv",), "DiskControllerTypes"),
    ):
        spec = dataclasses.replace(SPEC, abilities=abilities("azure", lacking(*modules)))
        assert features_of(everything).keys() - features_of(spec).keys() == {feature}
    unsigned = World(esp={**good_esp(), "/EFI/BOOT/BOOTX64.EFI": loader(signed=False)})
    spec = dataclasses.replace(SPEC, abilities=abilities("azure", unsigned))
    assert features_of(spec)["SecurityType"] == "Standard"


def features_of(spec: Spec) -> dict[str, str]:
    body = definition_body(AZURE, spec, "westeurope")
    return {feature["name"]: feature["value"] for feature in body["properties"]["features"]}


USUAL = ("UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE")


@pytest.mark.parametrize(
    ("config", "modules", "firmware", "features"),
    [
        ("", (), "bios+uefi", USUAL),
        ("", ("gve",), "bios+uefi", ("UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE")),
        ("", (), "bios", ("GVNIC", "VIRTIO_SCSI_MULTIQUEUE")),
        (
            "CONFIG_AMD_MEM_ENCRYPT=y\nCONFIG_SEV_GUEST=m\n",
            (),
            "uefi",
            (*USUAL, "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE"),
        ),
        ("CONFIG_AMD_MEM_ENCRYPT=y\n", (), "bios", ("GVNIC", "VIRTIO_SCSI_MULTIQUEUE")),
    ],
)
def test_guest_os_features_follow_from_the_disk(
    config: str, modules: tuple[str, ...], firmware: Any, features: tuple[str, ...]
) -> None:
    files = good()
    absent(*modules)(files)
    files[f"/boot/config-{VERSION}"] = config.encode()
    spec = dataclasses.replace(SPEC, firmware=firmware, abilities=abilities("gcp", World(files)))
    assert declared(GCP, spec) == features
    named = GCP.model_copy(update={"guest_os_features": ("IDPF",)})
    assert declared(named, spec) == ("IDPF",)


def test_a_disk_without_gvnic_is_shown_as_machines_without_it() -> None:
    kind: Any = provider.load("gcp")
    spec = dataclasses.replace(SPEC, abilities=abilities("gcp", lacking("gve")))
    assert [look.kind for look in kind.guest(GCP).looks(SPEC)] == ["e2-small", "c3-standard-4"]
    assert [look.kind for look in kind.guest(GCP).looks(spec)] == ["e2-small"]


def test_a_feature_that_is_left_out_is_a_note() -> None:
    kind: Any = provider.load("gcp")
    rules = {rule.id: rule for rule in kind.guest(GCP).rules(SPEC)}
    told = world.found(rules["gcp.features-unclaimed"], lacking("gve"))
    assert f"GVNIC is not declared: kernel {VERSION} has no driver gve" in [
        finding.evidence for finding in told
    ]
    assert {finding.severity for finding in told} == {NOTE}


def test_a_claimed_driver_that_the_guest_lacks_is_an_error() -> None:
    files = good()
    absent("ena", "gve", "mlx5_core", "mana")(files)
    aws = claims("aws", AWS.model_copy(update={"ena": True}), SPEC, World(files))
    assert [(f.severity, f.key) for f in aws] == [(ERROR, "targets.aws.ena")]
    with_gvnic = GCP.model_copy(update={"guest_os_features": ("GVNIC",)})
    gcp = claims("gcp", with_gvnic, SPEC, World(files))
    assert (ERROR, "targets.gcp.guest_os_features") in [(f.severity, f.key) for f in gcp]
    fast = AZURE.model_copy(update={"accelerated_networking": True})
    azure = claims("azure", fast, SPEC, World(files))
    assert [(f.severity, f.key) for f in azure] == [(ERROR, "targets.azure.accelerated_networking")]


def test_nvme_that_is_claimed_and_not_in_the_initramfs_is_an_error() -> None:
    files = good()
    not_early("pci-hyperv")(files)
    options = AZURE.model_copy(update={"nvme": True})
    (told,) = claims("azure", options, SPEC, World(files))
    assert (told.severity, told.key) == (ERROR, "targets.azure.nvme")


def test_trusted_launch_needs_a_signed_loader() -> None:
    esp = good_esp()
    esp["/EFI/BOOT/BOOTX64.EFI"] = loader(signed=False)
    options = AZURE.model_copy(update={"security_type": "TrustedLaunchSupported"})
    (told,) = claims("azure", options, SPEC, World(esp=esp))
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
