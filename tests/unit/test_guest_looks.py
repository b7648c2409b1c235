"""The machines that a rehearsal shows to a guest, and what every provider has for it."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from providers.aws.options import AwsOptions
from publisher.model import Spec
from publisher.proof.guest import Diary, Look, smbios
from publisher.proof.rehearse import Status, judge
from tests.unit.guest_world import SPEC, Guest, looks, service

ROOT = Path(__file__).parents[2]
CLOUDS = ("aws", "azure", "gcp")
ARM = Spec("demo", "1", arch="aarch64", firmware="uefi")
BIOS = Spec("demo", "1", firmware="bios")
AZURE: dict[str, Any] = {"resource_group": "group", "gallery": "gallery", "location": "westeurope"}
GCP: dict[str, Any] = {"project": "project-1", "bucket": "bucket"}


def fields(look: Look, kind: int) -> dict[str, str]:
    """The values of one SMBIOS table."""
    tables = [dict(part.split("=", 1) for part in text.split(",")) for text in look.smbios]
    return next(table for table in tables if table["type"] == str(kind))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_provider_has_the_same_files_for_its_guests(cloud: str) -> None:
    files = {path.name for path in (ROOT / "providers" / cloud / "guest").glob("*.py")}
    assert {"__init__.py", "machine.py", "metadata.py", "identity.py", "tree.py"} <= files


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("spec", [SPEC, ARM, BIOS])
def test_every_look_says_where_it_is_and_what_it_cannot_show(cloud: str, spec: Spec) -> None:
    for look in looks(cloud, spec):
        assert "169.254.169.254" in look.addresses
        assert look.unproven
        assert look.unshown
        assert look.title
        assert all(re.fullmatch(r"type=\d(,[a-z]+=[^,]+)+", value) for value in look.smbios)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_listens_has_an_address_in_the_machines_network(cloud: str) -> None:
    [look, *_] = looks(cloud)
    listening = {address for address, _ in service(cloud).endpoints}
    assert listening <= set(look.addresses)
    assert set(look.names.values()) <= listening


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("name", ["web", "web.corp.example"])
def test_a_machine_finds_itself_by_its_names(cloud: str, name: str) -> None:
    here = service(cloud, hostname=name, address="10.0.2.15")
    assert here.names[name] == "10.0.2.15"
    assert not set(here.names) & set(looks(cloud)[0].names)


def test_the_clouds_name_servers_know_what_the_metadata_say() -> None:
    aws, gcp = (service(cloud, address="10.0.2.15") for cloud in ("aws", "gcp"))
    said = Guest(gcp, "169.254.169.254").ask(
        "GET", "/computeMetadata/v1/instance/hostname", {"Metadata-Flavor": "Google"}
    )
    assert said.text.startswith("rehearsal.")
    assert gcp.names[said.text] == "10.0.2.15"
    assert aws.names["rehearsal.ec2.internal"] == "10.0.2.15"
    assert aws.names["ip-10-0-2-15.ec2.internal"] == "10.0.2.15"
    assert aws.names["instance-data.ec2.internal"] == "169.254.169.254"
    assert "169.254.169.253" in looks("aws")[0].addresses
    abroad = service("aws", given=AwsOptions(regions=("eu-west-1",)))
    assert "rehearsal.eu-west-1.compute.internal" in abroad.names


@pytest.mark.parametrize("cloud", CLOUDS)
def test_another_seed_is_another_instance(cloud: str) -> None:
    one, same, other = service(cloud), service(cloud), service(cloud, seed="cd" * 16)
    assert (one.instance_id, one.uuid, one.mac) == (same.instance_id, same.uuid, same.mac)
    assert one.instance_id != other.instance_id
    assert one.uuid != other.uuid


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_smbios_of_a_boot_names_its_instance(cloud: str) -> None:
    [look, *_] = looks(cloud)
    here = service(cloud)
    values = smbios(look, here)
    assert any(here.uuid in value for value in values)
    assert not any("{" in value for value in values)


def test_ec2_is_known_by_a_serial_and_uuid_that_start_with_ec2() -> None:
    [look, *_] = looks("aws")
    here = service("aws")
    system = fields(dataclasses.replace(look, smbios=smbios(look, here)), 1)
    assert system["serial"] == system["uuid"] == here.uuid
    assert here.uuid.startswith("ec2")
    assert fields(look, 0)["vendor"] == "Amazon EC2"
    assert fields(look, 1)["product"] == "t3.micro"
    assert re.fullmatch(r"i-0[0-9a-f]{16}", here.instance_id)


def test_ec2_boots_as_the_image_will_be_registered() -> None:
    assert [look.boot for look in looks("aws")] == ["uefi", "bios"]
    assert [look.boot for look in looks("aws", BIOS)] == ["bios"]
    [arm] = looks("aws", ARM)
    assert (arm.boot, fields(arm, 1)["product"]) == ("uefi", "t4g.micro")
    assert {look.disk for look in looks("aws")} == {"nvme"}


def test_a_nitro_tpm_is_there_when_the_image_asks_for_it() -> None:
    assert not any(look.tpm for look in looks("aws"))
    [look] = looks("aws", regions=("eu-west-1",), tpm=True)
    assert (look.boot, look.tpm) == ("uefi", True)


def test_a_verdict_tells_what_lint_judges_from_what_nothing_shows() -> None:
    found = {claim.evidence: claim.status for claim in judge.unproven(looks("azure"))}
    assert {status for text, status in found.items() if "hv_netvsc" in text} == {Status.LINT}
    assert {status for text, status in found.items() if "245" in text} == {Status.UNPROVABLE}


def test_ec2_says_that_ena_is_judged_by_lint_only() -> None:
    assert any("ena" in text for text in looks("aws")[0].unproven)


def test_gce_boots_as_the_guest_os_features_say() -> None:
    assert {look.boot for look in looks("gcp")} == {"uefi"}
    assert {look.boot for look in looks("gcp", BIOS)} == {"bios"}
    declared = ("UEFI_COMPATIBLE", "SECURE_BOOT", "GVNIC")
    secure = looks("gcp", **GCP, guest_os_features=declared)
    assert {(look.boot, look.tpm) for look in secure} == {("uefi-secure", True)}


def test_gce_has_scsi_first_and_nvme_where_the_image_bears_newer_machines() -> None:
    assert [look.disk for look in looks("gcp")] == ["virtio-scsi", "nvme"]
    old = looks("gcp", **GCP, guest_os_features=("UEFI_COMPATIBLE",))
    assert [look.disk for look in old] == ["virtio-scsi"]
    assert not any("gve" in text for text in old[0].unproven)
    assert [look.disk for look in looks("gcp", ARM)] == ["nvme"]


def test_a_look_tells_which_devices_stand_in_for_the_clouds_own() -> None:
    assert looks("aws")[0].stand_ins == {"virtio_net": "ena"}
    scsi, nvme = looks("azure")
    assert scsi.stand_ins == {"virtio_net": "hv_netvsc", "virtio_scsi": "hv_storvsc"}
    assert nvme.stand_ins == {"virtio_net": "hv_netvsc"}
    second, third = looks("gcp")
    assert (second.stand_ins, third.stand_ins) == ({}, {"virtio_net": "gve"})


def test_ec2s_arm_machines_have_another_serial_port_than_qemus() -> None:
    assert [look.console for look in looks("aws", ARM)] == ["ttyS0"]
    assert {look.console for look in looks("aws")} == {""}


def test_gce_says_what_confidential_machines_do_besides() -> None:
    declared = ("UEFI_COMPATIBLE", "GVNIC", "IDPF", "SEV_CAPABLE", "TDX_CAPABLE")
    [look, *_] = looks("gcp", **GCP, guest_os_features=declared)
    assert all(word in " ".join(look.unproven) for word in ("gve", "idpf"))
    assert all(word in " ".join(look.unshown) for word in ("SEV", "TDX"))


def test_gce_is_known_by_its_product_name_and_resolves_its_metadata_server() -> None:
    [look, *_] = looks("gcp")
    assert fields(look, 1)["product"] == "Google Compute Engine"
    assert fields(look, 1)["serial"].startswith("GoogleCloud-")
    assert look.names["metadata.google.internal"] == "169.254.169.254"


def test_azure_is_known_by_its_asset_tag_and_brings_a_cd() -> None:
    for spec in (SPEC, BIOS, ARM):
        for look in looks("azure", spec):
            assert fields(look, 3)["asset"] == "7783-7084-3265-9085-8269-3286-77"
            assert look.cdrom
            assert look.reports_ready


def test_azure_boots_as_the_definition_says() -> None:
    [look] = looks("azure", BIOS)
    assert (look.boot, look.disk, look.tpm) == ("bios", "virtio-scsi", False)
    trusted, plain = looks("azure")
    assert (trusted.boot, trusted.disk, trusted.tpm) == ("uefi-secure", "virtio-scsi", True)
    assert (plain.boot, plain.disk, plain.tpm) == ("uefi", "nvme", False)
    only = looks("azure", **AZURE, security_type="TrustedLaunch")
    assert {look.boot for look in only} == {"uefi-secure"}
    standard = looks("azure", **AZURE, security_type="Standard", nvme=False)
    assert [(look.boot, look.disk) for look in standard] == [("uefi", "virtio-scsi")]
    assert {look.boot for look in looks("azure", ARM)} == {"uefi"}


def test_azure_says_that_hyper_v_is_judged_by_lint_only() -> None:
    text = " ".join(looks("azure")[0].unproven)
    assert all(word in text for word in ("hv_storvsc", "hv_netvsc", "mlx5_core", "mana"))


def test_azures_first_generation_shows_its_uuid_with_bytes_swapped() -> None:
    old, new = service("azure", BIOS), service("azure")
    assert old.uuid != new.uuid
    assert old.uuid[19:] == new.uuid[19:]
    assert bytes.fromhex(old.uuid[:8])[::-1].hex() == new.uuid[:8]


def test_a_diary_is_bounded_and_still_hears_that_the_guest_is_ready() -> None:
    diary = Diary()

    def ask_on() -> None:
        for _ in range(500):
            diary.note("metadata", "x" * 900)

    threads = [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    diary.note("ready", "Ready")
    reports = diary.reports()
    assert len(reports) == Diary.MOST + 1
    assert reports[-1].kind == "ready"
    assert max(len(report.text) for report in reports) == Diary.LONGEST
