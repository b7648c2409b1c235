"""The verbs of the Azure provider, beyond what the contract asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.azure.sandbox import operations
from providers.azure.sandbox.resources import SUBSCRIPTION
from providers.azure.sandbox.store import Entry
from publisher.errors import Cancelled, ConflictError, ProviderError, VerifyError
from publisher.events import StepPhase
from publisher.model import Audience, Image, Query, Severity
from publisher.task import Cancellation, Retry
from tests.unit.azure_world import AzureWorld, azure_world, small_disk

BOTH = ("westeurope", "northeurope")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AzureWorld]:
    with azure_world(tmp_path) as world:
        yield world


def pages_sent(world: AzureWorld) -> int:
    return sum("comp=page&" in line for line in world.sandbox.faults.requests)


def test_another_machine_sends_only_the_missing_pages(world: AzureWorld) -> None:
    world.provider().upload(world.disk, world.spec(), world.task())
    whole = pages_sent(world)
    world.sandbox.faults.clear()
    cancellation = Cancellation()
    world.sandbox.faults.add("stall", "comp=page&", skip=2, fired=cancellation.cancel)
    with pytest.raises(Cancelled):
        world.provider().upload(world.disk, world.spec("2.0.0"), world.task("first", cancellation))
    before = pages_sent(world)
    world.provider().upload(world.disk, world.spec("2.0.0"), world.task("second"))
    assert 0 < pages_sent(world) - before < whole


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_no_access_stays_open(world: AzureWorld, how: str) -> None:
    cancellation = Cancellation()
    if how == "cancelled":
        world.sandbox.faults.add("stall", "comp=page&", fired=cancellation.cancel)
    else:
        world.sandbox.faults.add("fail", "comp=page&", times=100)
    with pytest.raises((Cancelled, ProviderError)):
        world.provider().upload(world.disk, world.spec(), world.task("x", cancellation))
    assert world.sandbox.manager._state.grants == {}
    world.sandbox.faults.clear()
    image = world.publish()
    assert world.sandbox.manager._state.grants == {}
    world.sandbox.corrupt(image.ref, 0)
    with pytest.raises(VerifyError):
        world.provider().verify(image, world.disk, world.task())
    assert world.sandbox.manager._state.grants == {}
    assert not any(name.startswith("disk/") for name in world.sandbox.resources())


def test_other_content_is_refused_before_a_byte_is_sent(world: AzureWorld, tmp_path: Path) -> None:
    world.publish()
    other = small_disk(tmp_path / "other.raw", b"other")
    world.sandbox.faults.requests.clear()
    with pytest.raises(ConflictError) as caught:
        world.provider().upload(other, world.spec(disk=other), world.task())
    assert caught.value.key == "targets.azure.version"
    assert pages_sent(world) == 0


def test_an_image_that_is_registered_is_not_sent_again(world: AzureWorld) -> None:
    image = world.publish()
    world.sandbox.faults.requests.clear()
    assert world.publish().ref == image.ref
    assert pages_sent(world) == 0
    assert len(world.sandbox.resources()) == 1


def test_a_definition_of_another_kind_is_a_conflict(world: AzureWorld) -> None:
    world.publish()
    with pytest.raises(ConflictError, match="hyperVGeneration V2"):
        world.publish("2.0.0", generation="V1")


def copies(world: AzureWorld, image: Image) -> list[Image]:
    return list(world.provider().copy(image, BOTH, world.task()))


def test_copy_never_takes_a_region_away(world: AzureWorld) -> None:
    image = world.publish()
    copies(world, image)
    world.provider().copy(image, ("uksouth",), world.task())
    regions = {name.rpartition("@")[2] for name in world.sandbox.resources()}
    assert regions == {"West Europe", "North Europe", "UK South"}


def test_replicas_are_as_asked_for(world: AzureWorld) -> None:
    image = world.publish()
    wanted = {"name": "northeurope", "replicas": 4, "storage_account_type": "Premium_LRS"}
    world.provider(regions=("westeurope", wanted)).copy(image, BOTH, world.task())
    entry = next(e for e in world.sandbox.manager._state.resources.values() if "versions" in e.id)
    replica = entry.properties["publishingProfile"]["targetRegions"][1]
    assert (replica["regionalReplicaCount"], replica["storageAccountType"]) == (4, "Premium_LRS")


def test_delete_of_one_region_leaves_the_others(world: AzureWorld) -> None:
    home, away = copies(world, world.publish())
    world.provider().delete(away, world.task())
    (left,) = world.provider().find(Query(), world.task())
    assert left.region == home.region
    world.provider().delete(home, world.task())
    assert list(world.sandbox.resources()) == []


def test_delete_leaves_other_content_under_the_name_alone(world: AzureWorld) -> None:
    image = world.publish()
    stranger = Image("azure", "westeurope", image.ref, "web", "1.0.0", "0" * 64)
    world.provider().delete(stranger, world.task())
    assert len(world.provider().find(Query(), world.task())) == 1


def test_verify_reads_the_attributes_too(world: AzureWorld) -> None:
    image = world.publish()
    wrong = Image.from_json({**image.to_json(), "details": {**image.details, "generation": "V1"}})
    with pytest.raises(VerifyError, match="generation is V2, not V1"):
        world.provider().verify(wrong, world.disk, world.task())
    elsewhere = Image.from_json({**image.to_json(), "region": "northeurope"})
    with pytest.raises(VerifyError, match="northeurope"):
        world.provider().verify(elsewhere, world.disk, world.task())


def test_an_image_of_others_is_downloaded_and_described(world: AzureWorld, tmp_path: Path) -> None:
    image = world.publish()
    entry = next(e for e in world.sandbox.manager._state.resources.values() if "versions" in e.id)
    entry.body["tags"] = {"made": "by hand"}
    spec = world.provider().describe(image.ref, world.task())
    assert (spec.name, spec.version, spec.firmware, spec.size) == ("web", "1.0.0", "uefi", 0)
    disk = world.provider(gallery="another").download(
        f"azure:{image.ref}".removeprefix("azure:"), tmp_path / "back.raw", world.task()
    )
    assert disk.sha256 == world.disk.sha256
    with pytest.raises(ProviderError, match="there is no image"):
        world.provider().describe(image.ref.replace("1.0.0", "9.9.9"), world.task())


# -- check


def check(world: AzureWorld, **options: object) -> list[tuple[str, Severity]]:
    provider = world.provider(**options)
    regions = world.options(**options).locations()
    findings = provider.check(world.spec(), regions, world.task())
    return [(finding.key, finding.severity) for finding in findings]


def test_a_region_that_is_none_is_found(world: AzureWorld) -> None:
    assert check(world, regions=("westeurope", "atlantis")) == [("regions[1]", Severity.ERROR)]
    assert check(world, location="atlantis", regions=()) == [("location", Severity.ERROR)]


def test_a_missing_group_is_found_or_made(world: AzureWorld) -> None:
    assert check(world, resource_group="none") == [("resource_group", Severity.ERROR)]
    assert check(world, resource_group="none", create_resource_group=True) == []
    image = world.publish(resource_group="none", create_resource_group=True)
    assert image.ref.startswith(f"{SUBSCRIPTION}/none/")


def test_a_subscription_of_others_is_found(world: AzureWorld) -> None:
    assert check(world, subscription="22222222-0000-4000-8000-000000000000") == [
        ("subscription", Severity.ERROR)
    ]


def test_missing_permissions_are_found(world: AzureWorld) -> None:
    manager = world.sandbox.manager
    manager.resources.permissions = [
        {"actions": ["Microsoft.Compute/*"], "notActions": ["Microsoft.Compute/galleries/share/*"]}
    ]
    assert check(world) == [("gallery", Severity.WARNING)]
    manager.resources.permissions = [{"actions": ["*/read"], "notActions": []}]
    assert ("resource_group", Severity.ERROR) in check(world)


def test_a_full_quota_is_found(world: AzureWorld) -> None:
    world.sandbox.manager.resources.disk_limit = 1
    assert check(world) == [("disk_sku", Severity.ERROR)]


def test_a_taken_name_is_found(world: AzureWorld) -> None:
    world.publish()
    assert check(world) == [("version", Severity.NOTE)]
    assert check(world, generation="V1", security_type="Standard") == [("name", Severity.ERROR)]


def test_an_open_gallery_is_found(world: AzureWorld) -> None:
    image = world.publish()
    world.provider().release(image, Audience("public"), world.task())
    assert ("gallery", Severity.WARNING) in check(world)


@pytest.mark.parametrize("path", ["/disks/", "/versions/"])
def test_a_lost_answer_to_an_operation_that_takes_long_is_waited_for(
    world: AzureWorld, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated, the request meets its own operation, more often than there are attempts."""
    task = world.task()
    if path == "/versions/":
        uploaded = world.provider().upload(world.disk, world.spec(), task)
    refused = 0

    def busy(self: operations.Operations, entry: Entry) -> bool:
        nonlocal refused
        if not held(self, entry):
            return False
        refused += 1
        if refused == 3 * Retry().attempts:
            monkeypatch.setattr(operations, "_AGE", 0.0)
        return True

    held = operations.Operations.busy
    monkeypatch.setattr(operations.Operations, "busy", busy)
    monkeypatch.setattr(operations, "_AGE", 3600.0)
    world.sandbox.faults.add("lose", f"PUT .*{path}")
    if path == "/disks/":
        world.provider().upload(world.disk, world.spec(), task)
    else:
        world.provider().register(uploaded, world.spec(), task)
    assert refused == 3 * Retry().attempts
    why = "is in progress" if path == "/disks/" else "is being changed"
    assert any(isinstance(event, StepPhase) and why in event.phase for event in world.events)


def test_an_operation_that_never_lets_go_is_named_in_the_end(
    world: AzureWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_AGE", 3600.0)
    world.sandbox.faults.add("lose", "PUT .*/disks/")
    with pytest.raises(ProviderError, match=r"timed out after 900 s: making disk .* in progress"):
        world.provider().upload(world.disk, world.spec(), world.task())
