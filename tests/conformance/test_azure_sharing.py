"""Release and withdraw, where a gallery is shared as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.azure import tags
from providers.azure.gallery import Gallery
from providers.azure.refs import Ref
from publisher.errors import ProviderError
from publisher.events import Note
from publisher.model import Audience, Image, Query
from tests.unit.azure_world import AzureWorld, azure_world

ONE, TWO, HAND = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AzureWorld]:
    with azure_world(tmp_path) as world:
        yield world


def release(world: AzureWorld, image: Image, *accounts: str) -> None:
    audience = Audience("shared", accounts) if accounts else Audience("public")
    world.provider().release(image, audience, world.task())


def seen(world: AzureWorld, image: Image) -> Audience:
    found = world.provider().find(Query(version=image.version), world.task())
    return found[0].audience


def excluded(world: AzureWorld, image: Image) -> bool:
    found = Gallery(world.api, "images", "images").version(Ref.parse(image.ref), world.task())
    assert found is not None
    return bool(found["properties"]["publishingProfile"]["excludeFromLatest"])


def test_a_version_is_out_of_latest_until_its_release(world: AzureWorld) -> None:
    image = world.publish()
    assert excluded(world, image)
    release(world, image, ONE)
    assert not excluded(world, image)
    world.provider().withdraw(image, world.task())
    assert excluded(world, image)


def test_a_gallery_is_open_to_all_releases_in_it(world: AzureWorld) -> None:
    first, second = world.publish("1.0.0"), world.publish("2.0.0")
    release(world, first, ONE)
    release(world, second, TWO)
    assert set(seen(world, first).accounts) == {ONE, TWO}
    world.provider().withdraw(first, world.task())
    assert seen(world, second) == Audience("shared", (TWO,))
    warnings = [e for e in world.events if isinstance(e, Note) and e.level == "warning"]
    assert "stays open" in warnings[-1].text
    world.provider().withdraw(second, world.task())
    assert seen(world, second) == Audience()


def test_withdrawing_one_public_image_keeps_the_other_public(world: AzureWorld) -> None:
    first, second = world.publish("1.0.0"), world.publish("2.0.0")
    release(world, first)
    release(world, second)
    world.provider().withdraw(first, world.task())
    assert seen(world, second) == Audience("public")
    world.provider().withdraw(second, world.task())
    assert seen(world, second) == Audience()


def test_who_was_let_in_by_hand_stays(world: AzureWorld) -> None:
    image = world.publish()
    gallery = Gallery(world.api, "images", "images")
    found = gallery.get(world.task())
    assert found is not None
    gallery.put(
        {"location": "westeurope", "properties": {"sharingProfile": {"permissions": "Groups"}}},
        world.task(),
    )
    groups = [{"type": "Subscriptions", "ids": [HAND]}]
    gallery.share({"operationType": "Add", "groups": groups}, world.task())
    release(world, image, ONE)
    assert set(seen(world, image).accounts) == {ONE, HAND}
    world.provider().withdraw(image, world.task())
    assert seen(world, image) == Audience("shared", (HAND,))


def test_a_gallery_that_is_public_by_hand_is_neither_closed_nor_narrowed(
    world: AzureWorld,
) -> None:
    image = world.publish()
    release(world, image)
    gallery, ref = Gallery(world.api, "images", "images"), Ref.parse(image.ref)
    gallery.change_version(
        ref, lambda body: {**body, "tags": tags.with_audience(body["tags"], Audience())},
        world.task(),
    )  # fmt: skip
    world.provider().withdraw(image, world.task())
    assert seen(world, image) == Audience("public")
    with pytest.raises(ProviderError, match="not by this program"):
        release(world, image, ONE)


def test_a_release_that_died_halfway_is_closed_by_withdraw(world: AzureWorld) -> None:
    image = world.publish()
    release(world, image, ONE)
    world.sandbox.faults.add("drop", pattern="PUT .*versions", skip=1, times=10**6)
    with pytest.raises(ProviderError):
        release(world, image, TWO)
    world.sandbox.faults.clear()
    world.provider().withdraw(image, world.task())
    assert seen(world, image) == Audience()
    assert world.gallery().get("groups") in (None, [])


def test_an_image_that_azure_keeps_private_is_not_released(world: AzureWorld) -> None:
    image = world.publish(security_type="TrustedLaunch")
    with pytest.raises(ProviderError, match="TrustedLaunch") as caught:
        release(world, image, ONE)
    assert caught.value.key == "targets.azure.security_type"
    assert excluded(world, image)


def test_a_public_release_names_the_missing_section(world: AzureWorld) -> None:
    image = world.publish()
    with pytest.raises(ProviderError) as caught:
        world.provider(community=None).release(image, Audience("public"), world.task())
    assert caught.value.key == "targets.azure.community"


def test_an_account_that_is_no_id_is_refused(world: AzureWorld) -> None:
    image = world.publish()
    with pytest.raises(ProviderError, match="123456789012"):
        release(world, image, "123456789012")
    assert seen(world, image) == Audience()


def test_many_accounts_fit_into_tags() -> None:
    accounts = tuple(sorted(f"aaaaaaaa-0000-4000-8000-{n:012}" for n in range(30)))
    marked = tags.with_audience({"own": "tag"}, Audience("shared", accounts))
    assert all(len(value) <= 256 for value in marked.values())
    assert tags.audience(marked) == Audience("shared", accounts)
    assert tags.with_audience(marked, Audience()) == {"own": "tag"}


def test_deleting_the_last_released_image_closes_the_gallery(world: AzureWorld) -> None:
    image = world.publish()
    release(world, image, ONE)
    world.provider().delete(image, world.task())
    assert world.gallery().get("groups") in (None, [])
