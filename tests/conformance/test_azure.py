"""Azure keeps the contract, against its sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from providers.azure.provider import Azure
from publisher.conformance import ProviderContract


class TestAzure(ProviderContract):
    provider = Azure
    options: ClassVar[Mapping[str, object]] = {"regions": ("West Europe", "northeurope")}
    accounts = (
        "aaaaaaaa-0000-4000-8000-000000000001",
        "tenant:bbbbbbbb-0000-4000-8000-000000000002",
    )

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        return {"IDENTITY_HEADER": "wrong"}
