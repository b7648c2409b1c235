"""Google Cloud's rules for names and labels, and the identity that labels carry."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from providers.gcp import identity
from providers.gcp.options import GcpOptions, architecture, features, label
from providers.gcp.provider import Gcp
from publisher.model import GIB, Query, Severity, Spec

SPEC = Spec(name="web", version="1.2.3", size=GIB, digest="ab" * 32, run="r1")


def options(**given: object) -> GcpOptions:
    return GcpOptions(**{"project": "my-project", "bucket": "my-bucket", **given})


def errors(spec: Spec = SPEC, **given: object) -> set[str]:
    findings = Gcp(options(**given)).validate(spec)
    return {f.key or f.rule for f in findings if f.severity is Severity.ERROR}


def test_versions_are_brought_into_the_alphabet_of_names() -> None:
    assert options().fill(SPEC) == "web-1-2-3"
    spec = dataclasses.replace(SPEC, name="My_Web", version="1.0~rc1")
    assert options(name="{name}-v{version}-{arch}").fill(spec) == "my-web-v1-0-rc1-x86-64"
    arm = dataclasses.replace(SPEC, arch="aarch64")
    assert options(name="{name}-{arch}").fill(arm) == "web-aarch64"


def test_an_architecture_at_the_end_of_a_name_is_not_said_twice() -> None:
    spec = dataclasses.replace(SPEC, name="web-x86_64")
    assert options().fill(spec) == "web-x86-64-1-2-3"
    assert options(name="{name}-{version}-{arch}").fill(spec) == "web-1-2-3-x86-64"


def test_a_family_differs_between_the_images_of_a_release() -> None:
    dev, prod = (dataclasses.replace(SPEC, name=name) for name in ("web-dev", "web-prod"))
    filled = options(family="{name}")
    assert (filled.family_name(dev), filled.family_name(prod)) == ("web-dev", "web-prod")
    assert filled.claims(dev)["family"] == ["my-project/web-dev"]
    assert (
        options(family="web").claims(dev)["family"] == options(family="web").claims(prod)["family"]
    )
    assert options().claims(dev)["family"] == []
    assert errors(family="{name}-{arch}") == set()
    assert errors(family="{name}" * 22) == errors(family="web-") == {"family"}


@pytest.mark.parametrize(
    "name", ["1-{version}", "{name}-", "{name}.x", "x" * 64, "Web", "{name}_1"]
)
def test_a_bad_template_is_an_error_at_its_key(name: str) -> None:
    assert errors(name=name) == {"name"}


def test_good_names_give_no_error() -> None:
    assert errors() == set()


def test_a_disk_has_whole_gibibytes() -> None:
    assert errors(dataclasses.replace(SPEC, size=GIB + 512)) == {"gcp.size"}


def test_a_version_that_fits_no_label_is_an_error() -> None:
    assert "gcp.version" in errors(dataclasses.replace(SPEC, version="ÄÖÜ" * 10))


@pytest.mark.parametrize("labels", [{"Team": "x"}, {"team": "X"}, {"team": "a" * 64}, {"1": "x"}])
def test_labels_in_the_options_must_be_right(labels: dict[str, str]) -> None:
    assert errors(labels=labels) == {f"labels.{next(iter(labels))}"}


def test_more_labels_than_an_image_has_are_refused() -> None:
    assert errors(labels={f"l{n}": "x" for n in range(60)}) == {"labels"}


def test_tags_are_turned_into_labels_and_that_is_said() -> None:
    spec = dataclasses.replace(SPEC, tags={"Owner": "Infra Team"})
    (finding,) = Gcp(options()).validate(spec)
    assert finding.severity is Severity.NOTE
    assert identity.labels(options(), spec)["owner"] == "infra-team"
    assert label("Ä b") == "--b"


@pytest.mark.parametrize(
    "given",
    [
        {"guest_os_features": ["MAGIC"]},
        {"storage_locations": ["us", "eu"]},
        {"family": "Web"},
        {"family": "{nmae}"},
        {"project": "My Project"},
        {"bucket": "-"},
        {"zone": "us"},
        {"kms_key": "key"},
        {"surprise": 1},
    ],
)
def test_options_that_google_refuses_are_refused_first(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        options(**given)


def test_features_follow_from_the_firmware() -> None:
    common = ("GVNIC", "VIRTIO_SCSI_MULTIQUEUE")
    assert features(options(), SPEC) == ("UEFI_COMPATIBLE", *common)
    assert features(options(), dataclasses.replace(SPEC, firmware="bios")) == common
    assert features(options(guest_os_features=["IDPF"]), SPEC) == ("IDPF",)
    uefi = dataclasses.replace(SPEC, firmware="uefi")
    assert errors(uefi, guest_os_features=["IDPF"]) == {"guest_os_features"}


def test_the_architecture_is_upper_case() -> None:
    assert architecture(SPEC) == "X86_64"
    assert architecture(dataclasses.replace(SPEC, arch="aarch64")) == "ARM64"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("1.2.3", "1_2_3"),
        ("web", "web"),
        ("my_image", "my__5fimage"),
        ("Web", "__57eb"),
        ("1..2", "1__2e_2"),
        ("1.", "1__2e"),
        ("1.41", "1_41"),
        ("1A", "1__41"),
        ("ä", "__c3__a4"),
        ("", ""),
        ("a__2eb", "a__5f__5f2eb"),
    ],
)
def test_any_text_survives_a_label(text: str, encoded: str) -> None:
    assert identity.encode(text) == encoded
    assert identity.decode(encoded) == text


def test_what_labels_say_is_what_was_published() -> None:
    labels = identity.labels(options(), SPEC)
    assert all(len(value) <= 63 for value in labels.values())
    found = identity.recognise(labels)
    assert found is not None
    assert (found.name, found.version, found.digest, found.run) == (
        SPEC.name,
        SPEC.version,
        SPEC.digest,
        SPEC.run,
    )
    assert identity.recognise({"publisher-name": "web"}) is None


def test_a_filter_names_what_was_asked_for() -> None:
    assert identity.list_filter(Query()) == "(labels.publisher-name:*)"
    text = identity.list_filter(Query(name="web", version="1.2", digest="ab" * 32))
    assert "(labels.publisher-version=1_2)" in text
    assert f"(labels.publisher-sha256-2={'ab' * 16})" in text
