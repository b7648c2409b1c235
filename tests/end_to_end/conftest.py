"""The demo, run once for all tests that need a real image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from publisher.disks.store import Store
from publisher.model import Disk
from tests.end_to_end.command import RUN_DEMO, Ended, publish


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def demo(state: Path) -> Ended:
    return publish(*RUN_DEMO, "--state", str(state))


@pytest.fixture(scope="session")
def manifest(demo: Ended) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(demo.finished["manifest"]).read_text())
    return loaded


@pytest.fixture(scope="session")
def sealed(manifest: dict[str, Any], state: Path) -> Disk:
    (flavour,) = manifest["flavours"]
    disk = Store(state).get(flavour["digest"])
    assert disk is not None
    return disk


def share_installations(state: Path, other: Path) -> None:
    """Let a second state directory use the installations of the first: they take minutes."""
    into = other / "store" / "bootstrap"
    into.mkdir(parents=True)
    for file in (state / "store" / "bootstrap").iterdir():
        os.link(file, into / file.name)
