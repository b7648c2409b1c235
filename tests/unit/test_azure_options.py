"""Azure's names, sizes and derived settings, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from providers.azure.options import AzureOptions, check_names, disk_name
from providers.azure.refs import Ref
from publisher.errors import PipelineError, UsageError
from publisher.model import MIB, Severity, Spec


def options(**more: Any) -> AzureOptions:
    return AzureOptions(
        **{"resource_group": "group", "gallery": "images", "location": "westeurope", **more}
    )


def keys(options: AzureOptions, **spec: Any) -> list[str]:
    findings = list(check_names(options, Spec(**{"name": "web", "version": "1.2.3", **spec})))
    assert all(f.severity is Severity.ERROR and f.fix for f in findings)
    return [finding.key for finding in findings]


def test_sound_options_have_no_findings() -> None:
    assert keys(options(), size=64 * MIB) == []


def test_a_gallery_is_opened_as_a_whole() -> None:
    assert options().opened_as() == "group/images"
    assert options(subscription="s").opened_as() == "s/group/images"


def test_two_images_need_two_definitions_with_two_identifiers() -> None:
    dev, prod = Spec("web-dev", "1.2.3"), Spec("web-prod", "1.2.3")
    given = options(subscription="s")
    assert given.claims(dev)["name"] == ["s/group/images/web-dev"]
    assert given.claims(dev)["sku"] != given.claims(prod)["sku"]
    named = options(name="web")
    assert named.claims(dev)["name"] == named.claims(prod)["name"]
    same = options(offer="web", sku="web")
    assert same.claims(dev)["sku"] == same.claims(prod)["sku"]


@pytest.mark.parametrize("version", ["1.2", "1.2.3.4", "v1.2.3", "1.2.2147483648", "1.2.x", ""])
def test_a_version_is_three_32_bit_integers(version: str) -> None:
    assert keys(options(), version=version) == ["version"]


def test_a_template_makes_a_version_of_three_numbers() -> None:
    assert keys(options(version="{version}.0"), version="1.2") == []


@pytest.mark.parametrize("gallery", ["my-images", "_images", "images_", "", "a" * 81])
def test_a_gallery_has_no_hyphens_and_plain_ends(gallery: str) -> None:
    assert keys(options(gallery=gallery)) == ["gallery"]


@pytest.mark.parametrize("name", ["-web", "web-", "web server", "a" * 65 + "{name}" * 10])
def test_a_definition_has_80_plain_characters(name: str) -> None:
    assert "name" in keys(options(name=name))


def test_a_resource_group_does_not_end_in_a_dot() -> None:
    assert keys(options(resource_group="group.")) == ["resource_group"]


def test_the_identifier_is_limited() -> None:
    assert keys(options(offer="a" * 65)) == ["offer"]
    assert keys(options(sku="with space")) == ["sku"]


@pytest.mark.parametrize(
    ("given", "firmware", "arch", "wrong"),
    [
        ({"generation": "V2"}, "bios", "x86_64", ["generation"]),
        ({"generation": "V1"}, "uefi", "x86_64", ["generation"]),
        ({"generation": "V1"}, "bios+uefi", "aarch64", ["generation"]),
        ({"generation": "V1", "security_type": "TrustedLaunch"}, "bios", "x86_64",
         ["security_type"]),
        ({"generation": "V1"}, "bios+uefi", "x86_64", []),
    ],
)  # fmt: skip
def test_generation_fits_firmware_and_architecture(
    given: dict[str, str], firmware: Any, arch: Any, wrong: list[str]
) -> None:
    assert keys(options(**given), firmware=firmware, arch=arch) == wrong


@pytest.mark.parametrize(
    ("firmware", "arch", "generation", "security"),
    [
        ("bios", "x86_64", "V1", "Standard"),
        ("uefi", "x86_64", "V2", "TrustedLaunchSupported"),
        ("bios+uefi", "x86_64", "V2", "TrustedLaunchSupported"),
        ("uefi", "aarch64", "V2", "Standard"),
    ],
)
def test_generation_and_security_are_derived(
    firmware: Any, arch: Any, generation: str, security: str
) -> None:
    spec = Spec("web", "1.0.0", firmware=firmware, arch=arch)
    assert options().generation_for(spec) == generation
    assert options().security_for(spec) == security


@pytest.mark.parametrize("size", [10 * MIB, 64 * MIB + 512, 40 * 1024**4])
def test_a_size_that_azure_refuses_is_found(size: int) -> None:
    assert keys(options(), size=size) == [""]


def test_tags_are_limited() -> None:
    assert keys(options(), tags={"a/b": "c"}) == [""]
    assert keys(options(), tags={"a": "c" * 257}) == [""]
    assert keys(options(), tags={f"t{i}": "x" for i in range(39)}) == [""]


def test_the_location_comes_first_and_names_are_normal() -> None:
    given = options(
        location="West Europe", regions=("northeurope", {"name": "West Europe", "replicas": 3})
    )
    assert given.locations() == ("westeurope", "northeurope")
    assert given.region("westeurope").replicas == 3
    assert given.region("northeurope").replicas == 1
    assert given.region("northeurope").storage_account_type == "Standard_LRS"


def test_the_first_region_stands_in_for_the_location() -> None:
    assert options(location=None, regions=("uksouth",)).locations() == ("uksouth",)
    assert keys(options(location=None)) == ["regions"]


def test_the_subscription_comes_from_the_option_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "from-environment")
    assert options().subscription_id() == "from-environment"
    assert options(subscription="own").subscription_id() == "own"
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID")
    with pytest.raises(PipelineError, match="which Azure subscription"):
        options().subscription_id()


def test_a_temporary_disk_is_named_by_what_it_holds() -> None:
    assert disk_name("upload", "a", "b") == disk_name("upload", "a", "b")
    assert disk_name("upload", "a", "b") != disk_name("upload", "ab", "")
    assert len(disk_name("upload", "a" * 500)) <= 80


def test_a_reference_goes_both_ways_and_takes_resource_ids() -> None:
    ref = Ref.parse("sub/group/gallery/web/1.0.0")
    assert str(ref) == "sub/group/gallery/web/1.0.0"
    assert Ref.parse(ref.id) == ref
    for wrong in ("gallery/web/1.0.0", "a/b/c/d/", ""):
        with pytest.raises(UsageError):
            Ref.parse(wrong)
