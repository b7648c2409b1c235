"""The stand-in for Resource Manager refuses what Azure refuses, asked by the SDK itself."""

from __future__ import annotations

import copy
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.azure import upload
from providers.azure.api import DISKS, GALLERIES, Body
from providers.azure.disks import Disks
from providers.azure.gallery import Gallery
from providers.azure.refs import Ref
from providers.azure.sandbox.resources import SUBSCRIPTION
from providers.azure.sandbox.schema import Types
from providers.azure.sandbox.web import Refused
from publisher.errors import ProviderError
from publisher.model import MIB
from tests.unit.azure_world import AzureWorld, azure_world

SIZE = 20 * MIB + 512
DISK: Body = {
    "location": "westeurope",
    "properties": {
        "osType": "Linux",
        "hyperVGeneration": "V2",
        "supportedCapabilities": {"supportedSecurityOption": "TrustedLaunchSupported"},
        "creationData": {"createOption": "Upload", "uploadSizeBytes": SIZE},
    },
}
DEFINITION: Body = {
    "location": "westeurope",
    "properties": {
        "osType": "Linux",
        "osState": "Generalized",
        "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
    },
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AzureWorld]:
    with azure_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureWorld]:
    """A world that stays as it is, for what is refused: a gallery and a whole disk."""
    with azure_world(tmp_path_factory.mktemp("azure")) as world:
        gallery(world).put({"location": "westeurope"}, world.task())
        gallery(world).put_definition("web", DEFINITION, world.task())
        uploaded(world)
        yield world


def with_(body: Body, path: str, value: Any) -> Body:
    """A copy of the body with one property set; None takes it away."""
    changed = copy.deepcopy(body)
    *parents, last = path.split(".")
    place = changed
    for key in parents:
        place = place.setdefault(key, {})
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return changed


def make_disk(world: AzureWorld, body: Body, name: str = "disk") -> None:
    Disks(world.api, "images").create(name, body, world.task())


def gallery(world: AzureWorld, name: str = "images") -> Gallery:
    return Gallery(world.api, "images", name)


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("location", None, "InvalidParameter"),
        ("location", "atlantis", "LocationNotAvailableForResourceType"),
        ("properties.creationData", None, "InvalidParameter"),
        ("properties.creationData.createOption", "Magic", "InvalidParameter"),
        ("properties.creationData.uploadSizeBytes", None, "InvalidParameter"),
        ("properties.creationData.uploadSizeBytes", SIZE - 512, "InvalidParameter"),
        ("properties.creationData.uploadSizeBytes", "24 MiB", "InvalidParameter"),
        ("properties.creationData.uploadSizeBytes", 10 * MIB + 512, "InvalidParameter"),
        ("properties.creationData.unknown", 1, "InvalidRequestContent"),
        ("properties.diskState", "Unattached", "InvalidParameter"),
        ("properties.diskSizeGB", 1, "InvalidParameter"),
        ("properties.hyperVGeneration", "V3", "InvalidParameter"),
        ("properties.hyperVGeneration", "V1", "InvalidParameter"),
        ("sku", {"name": "Fast_LRS"}, "InvalidParameter"),
        ("tags", {"a": 1}, "InvalidParameter"),
        ("colour", "blue", "InvalidRequestContent"),
    ],
)
def test_a_disk_that_azure_would_refuse_is_refused(
    refusing: AzureWorld, path: str, value: Any, code: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        make_disk(refusing, with_(DISK, path, value))
    assert caught.value.code == code
    assert len(refusing.sandbox.resources()) == 1


def test_a_disk_goes_through_its_states(world: AzureWorld) -> None:
    disks, task = Disks(world.api, "images"), world.task()

    def state() -> Any:
        found = disks.get("disk", task)
        assert found is not None
        return found["properties"]["diskState"]

    make_disk(world, DISK)
    assert state() == "ReadyToUpload"
    with pytest.raises(ProviderError, match="Read access is not allowed"):
        disks.grant("disk", "Read", task)
    disks.grant("disk", "Write", task)
    assert state() == "ActiveUpload"
    with pytest.raises(ProviderError, match="active shared access signature"):
        world.api.finish(
            task,
            lambda c, polling: c.disks.begin_delete(
                "images", "disk", api_version=DISKS, polling=polling
            ),
            what="delete",
        )
    disks.revoke("disk", task)
    assert state() == "ActiveUpload", "an upload without a footer is no disk"
    disks.remove("disk", task)
    assert disks.get("disk", task) is None


def test_an_upload_without_a_footer_does_not_become_a_disk(world: AzureWorld) -> None:
    disks, task = Disks(world.api, "images"), world.task()
    make_disk(world, DISK)
    with (
        pytest.raises(ProviderError) as caught,
        disks.opened("disk", "Write", task) as pages,
    ):
        pages.put(0, b"x" * 512)
    assert caught.value.code == "InvalidVhd"
    found = disks.get("disk", task)
    assert found is not None
    assert found["properties"]["diskState"] == "ActiveUpload"
    assert world.sandbox.manager._state.grants == {}


def test_a_disk_keeps_what_it_was_made_of(world: AzureWorld) -> None:
    make_disk(world, DISK)
    make_disk(world, DISK)
    with pytest.raises(ProviderError) as caught:
        make_disk(world, with_(DISK, "properties.creationData.uploadSizeBytes", SIZE + MIB))
    assert caught.value.code == "PropertyChangeNotAllowed"


def test_a_gallery_has_no_hyphen(world: AzureWorld) -> None:
    with pytest.raises(ProviderError, match="my-images"):
        gallery(world, "my-images").put({"location": "westeurope"}, world.task())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties.osType", None),
        ("properties.osState", "Fresh"),
        ("properties.identifier.sku", None),
        ("properties.provisioningState", "Succeeded"),
        ("properties.architecture", "riscv64"),
        ("properties.features", [{"name": "x", "worth": "y"}]),
        ("properties.recommended", {"vCPUs": {"min": "two"}}),
    ],
)
def test_a_definition_that_azure_would_refuse_is_refused(
    refusing: AzureWorld, path: str, value: Any
) -> None:
    with pytest.raises(ProviderError) as caught:
        gallery(refusing).put_definition("new", with_(DEFINITION, path, value), refusing.task())
    assert caught.value.code in ("InvalidParameter", "InvalidRequestContent")


def test_what_a_definition_does_not_say_is_v2_with_trusted_launch(world: AzureWorld) -> None:
    """As from API 2025-03-03 on: who wants another must say so."""
    task = world.task()
    gallery(world).put({"location": "westeurope"}, task)
    gallery(world).put_definition("web", DEFINITION, task)
    found = gallery(world).definition("web", task)
    assert found is not None
    assert found["properties"]["hyperVGeneration"] == "V2"
    assert {"name": "SecurityType", "value": "TrustedLaunchSupported"} in found["properties"][
        "features"
    ]


def test_identifiers_are_unique_and_definitions_fixed(world: AzureWorld) -> None:
    task = world.task()
    gallery(world).put({"location": "westeurope"}, task)
    gallery(world).put_definition("web", DEFINITION, task)
    with pytest.raises(ProviderError, match="same publisher, offer and sku"):
        gallery(world).put_definition("other", DEFINITION, task)
    with pytest.raises(ProviderError, match="osState"):
        gallery(world).put_definition(
            "web", with_(DEFINITION, "properties.osState", "Specialized"), task
        )


def uploaded(world: AzureWorld, **options: Any) -> str:
    disks = Disks(world.api, "images")
    return disks.id(
        upload.upload(disks, world.options(**options), world.disk, world.spec(), world.task())
    )


def whole_disk(world: AzureWorld) -> str:
    (resource,) = world.sandbox.resources()
    return resource.removeprefix("disk/")


def version_body(source: str) -> Body:
    return {
        "location": "westeurope",
        "properties": {
            "publishingProfile": {"targetRegions": [{"name": "westeurope"}]},
            "storageProfile": {"osDiskImage": {"source": {"id": source}}},
        },
    }


@pytest.fixture
def ready(world: AzureWorld) -> tuple[AzureWorld, Body]:
    task = world.task()
    gallery(world).put({"location": "westeurope"}, task)
    gallery(world).put_definition("web", DEFINITION, task)
    return world, version_body(uploaded(world))


def put_version(world: AzureWorld, body: Body, name: str = "1.0.0") -> None:
    ref = Ref(SUBSCRIPTION, "images", "images", "web", name)
    gallery(world).put_version(ref, body, world.task())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties.storageProfile", None),
        ("properties.storageProfile.osDiskImage.sizeInGB", 1),
        ("properties.publishingProfile.targetRegions", [{"name": "northeurope"}]),
        ("properties.publishingProfile.targetRegions", [{"name": "westeurope"}] * 2),
        ("properties.publishingProfile.targetRegions", [{"replicas": 1}]),
        (
            "properties.publishingProfile.targetRegions",
            [{"name": "westeurope", "regionalReplicaCount": 101}],
        ),
        ("properties.publishingProfile.publishedDate", "2026-01-01"),
        ("properties.publishingProfile.replicationMode", "Half"),
        ("properties.storageProfile.osDiskImage.source.id", "/no/such/disk"),
        ("location", "northeurope"),
    ],
)
def test_a_version_that_azure_would_refuse_is_refused(
    refusing: AzureWorld, path: str, value: Any
) -> None:
    body = version_body(whole_disk(refusing))
    with pytest.raises(ProviderError):
        put_version(refusing, with_(body, path, value))
    assert len(refusing.sandbox.resources()) == 1


@pytest.mark.parametrize("name", ["1.0", "1.0.x", "1.0.2147483648"])
def test_the_name_of_a_version_is_three_numbers(refusing: AzureWorld, name: str) -> None:
    with pytest.raises(ProviderError, match=name):
        put_version(refusing, version_body(whole_disk(refusing)), name)


def test_a_version_needs_a_whole_disk_of_the_right_kind(
    ready: tuple[AzureWorld, Body],
) -> None:
    world, _ = ready
    make_disk(world, DISK, "half")
    with pytest.raises(ProviderError, match="ReadyToUpload, not Unattached"):
        put_version(world, version_body(Disks(world.api, "images").id("half")))
    plain = uploaded(world, security_type="Standard")
    with pytest.raises(ProviderError, match="SecurityType"):
        put_version(world, version_body(plain))


def test_regions_are_not_taken_away_without_leave(ready: tuple[AzureWorld, Body]) -> None:
    world, body = ready
    both = [{"name": "westeurope"}, {"name": "North Europe"}]
    put_version(world, with_(body, "properties.publishingProfile.targetRegions", both))
    with pytest.raises(ProviderError, match="safety profile"):
        put_version(world, body)
    put_version(
        world, with_(body, "properties.safetyProfile", {"allowDeletionOfReplicatedLocations": True})
    )


def test_a_gallery_with_images_is_not_deleted(ready: tuple[AzureWorld, Body]) -> None:
    world, _ = ready
    with pytest.raises(ProviderError) as caught:
        world.api.finish(
            world.task(),
            lambda c, polling: c.galleries.begin_delete(
                "images", "images", api_version=GALLERIES, polling=polling
            ),
            what="delete",
        )
    assert caught.value.code == "CannotDeleteResource"


@pytest.mark.parametrize(
    "update",
    [
        {"operationType": "Open"},
        {"operationType": "Add", "groups": [{"type": "Everyone", "ids": []}]},
        {"operationType": "Add", "groups": [{"type": "Subscriptions", "ids": ["me"]}]},
        {"operationType": "EnableCommunity"},
        {"groups": []},
    ],
)
def test_sharing_that_azure_would_refuse_is_refused(world: AzureWorld, update: Body) -> None:
    gallery(world).put(
        {"location": "westeurope", "properties": {"sharingProfile": {"permissions": "Groups"}}},
        world.task(),
    )
    with pytest.raises(ProviderError):
        gallery(world).share(update, world.task())


def test_lists_come_in_pages(world: AzureWorld) -> None:
    for number in range(23):
        make_disk(world, DISK, f"disk{number}")
    assert len(Disks(world.api, "images").list(world.task())) == 23
    assert any("skiptoken" in line for line in world.sandbox.faults.requests)


def ask(world: AzureWorld, path: str, **headers: str) -> tuple[int, Body]:
    url = world.sandbox.environment["AZURE_RESOURCE_MANAGER_ENDPOINT"] + path
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def token(world: AzureWorld) -> str:
    env = world.sandbox.environment
    path = env["IDENTITY_ENDPOINT"].removeprefix(env["AZURE_RESOURCE_MANAGER_ENDPOINT"])
    _, body = ask(
        world,
        f"{path}?api-version=2019-08-01&resource=https://management.azure.com",
        **{"X-IDENTITY-HEADER": env["IDENTITY_HEADER"]},
    )
    return str(body["access_token"])


def test_requests_need_a_token_and_a_known_api_version(world: AzureWorld) -> None:
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images"
    bearer = {"Authorization": f"Bearer {token(world)}"}
    assert ask(world, group)[0] == 401
    assert ask(world, group, Authorization="Bearer x.y")[0] == 401
    for query, code in (
        ("", "MissingApiVersionParameter"),
        ("?api-version=1999-01-01", "NoRegisteredProviderFound"),
    ):
        status, body = ask(world, group + query, **bearer)
        assert (status, body["error"]["code"]) == (400, code)
    assert ask(world, group + "?api-version=2021-04-01", **bearer)[0] == 200
    other = group.replace(SUBSCRIPTION, "other") + "?api-version=2021-04-01"
    assert ask(world, other, **bearer)[1]["error"]["code"] == "SubscriptionNotFound"


def test_the_type_of_a_gallery_has_its_pattern() -> None:
    types = Types("galleries")
    types.check_resource("Microsoft.Compute/galleries", "a-b.c_d", {"location": "x"})
    for name in ("_a", "a.", "a b"):
        with pytest.raises(Refused):
            types.check_resource("Microsoft.Compute/galleries", name, {"location": "x"})
