"""AWS keeps the provider contract, against its sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from providers.aws.provider import Aws
from publisher.conformance import ProviderContract


class TestAws(ProviderContract):
    provider = Aws
    options: ClassVar[Mapping[str, object]] = {"regions": ("us-east-1", "eu-west-1")}
    accounts = ("444455556666", "777788889999")

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN000000000"}
