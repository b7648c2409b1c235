"""A full disk is told as what it is, whoever met it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher import provider, run
from publisher.errors import CredentialsError, HostError, ProviderError
from publisher.migrate import plan_migration
from publisher.model import Image
from publisher.task import Retry
from tests.unit.nimbus import CLOUDS, PROVIDERS, Cloud


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    monkeypatch.setattr(provider, "load", PROVIDERS.__getitem__)
    CLOUDS.clear()
    CLOUDS.update({name: Cloud() for name in PROVIDERS})
    origin = CLOUDS["cirrus"]
    origin.images["north/o"] = Image("cirrus", "north", "north/o", "origin", "1.0.0", "?")
    origin.bytes["north/o"] = bytes(4096)
    plan = plan_migration("cirrus:north/o", ["nimbus:north"])
    yield lambda: run.run(plan, state=tmp_path, retry=Retry(1, 0.001, 0.001))
    CLOUDS.clear()


def fails_with(error: Exception) -> None:
    def before(verb: str) -> None:
        if verb == "upload":
            raise error

    CLOUDS["nimbus"].before = before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_step_that_finds_no_space_names_the_file(go: Callable[[], Any], number: int) -> None:
    fails_with(OSError(number, os.strerror(number), "/var/tmp/pages"))
    with pytest.raises(HostError, match="no space left on the device: /var/tmp/pages") as caught:
        go()
    assert "free some space" in caught.value.hint


def test_a_failure_on_a_full_disk_is_the_disks(
    go: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails_with(ProviderError("HTTP status 500", provider="nimbus"))
    full = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(HostError, match=f"no space left on the device: {tmp_path}") as caught:
        go()
    assert isinstance(caught.value.__cause__, ProviderError)


def test_a_failure_with_space_left_stays_what_it_is(go: Callable[[], Any]) -> None:
    fails_with(CredentialsError("expired", provider="nimbus"))
    with pytest.raises(CredentialsError, match="expired"):
        go()
