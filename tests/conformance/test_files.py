"""Files keep the provider contract, at a place that fsspec writes to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from providers.files.provider import Files
from publisher.conformance import ProviderContract, World
from publisher.errors import ProviderError
from publisher.model import MIB, Audience, Query


class TestFiles(ProviderContract):
    provider = Files
    options: ClassVar[Mapping[str, object]] = {"formats": ("qcow2", "raw")}
    size = 12 * MIB
    identified = False

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        return {"FSSPEC_SHELF_KEY": "wrong"}

    def _audience(self) -> Audience:
        return Audience("public")

    def test_an_attestation_sees_other_bytes_under_the_same_tags(
        self, world: World, tmp_path: Path
    ) -> None:
        """With one format: of several, the smallest is read."""
        world.options = world.options.model_copy(update={"formats": ("raw",)})
        super().test_an_attestation_sees_other_bytes_under_the_same_tags(world, tmp_path)

    def test_release_opens_to_exactly_the_audience_and_withdraw_undoes_it(
        self, world: World
    ) -> None:
        """Files can be private or public; accounts are refused."""
        image = world.published()

        def seen() -> Audience:
            (found,) = world.provider().find(Query(name=world.spec.name), world.task())
            return found.audience

        assert seen() == Audience("private")
        world.provider().release(image, Audience("public"), world.task("release"))
        assert seen() == Audience("public")
        with pytest.raises(ProviderError, match="no accounts"):
            world.provider().release(image, Audience("shared", ("a",)), world.task("share"))
        world.provider().withdraw(image, world.task("withdraw"))
        assert seen() == Audience("private")
