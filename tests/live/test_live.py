"""A small disk goes to a real account, is verified, found, read back and removed.

Each cloud skips unless the variables that name its places are set; credentials
come from where the vendor's tools take them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from publisher import provider as seam
from publisher.conformance import make_disk
from publisher.model import GIB, Image, Query, Severity, Spec
from publisher.provider import Options, Source
from publisher.task import Task, detached

PLACES: Mapping[str, Mapping[str, str]] = {
    "aws": {"regions": "LIVE_AWS_REGIONS"},
    "azure": {
        "subscription": "LIVE_AZURE_SUBSCRIPTION",
        "resource_group": "LIVE_AZURE_RESOURCE_GROUP",
        "gallery": "LIVE_AZURE_GALLERY",
        "regions": "LIVE_AZURE_REGIONS",
    },
    "gcp": {"project": "LIVE_GCP_PROJECT", "bucket": "LIVE_GCP_BUCKET"},
}


def places(name: str) -> Options:
    """The options of a target from the environment; skips, naming what is missing."""
    missing = [variable for variable in PLACES[name].values() if not os.environ.get(variable)]
    if missing:
        pytest.skip(f"set {', '.join(missing)}")
    given: dict[str, Any] = {
        option: os.environ[variable] for option, variable in PLACES[name].items()
    }
    if "regions" in given:
        given["regions"] = given["regions"].split(",")
    return seam.load(name).options.model_validate(given)


@pytest.mark.live
@pytest.mark.parametrize("name", sorted(PLACES))
def test_a_disk_is_published_verified_found_read_back_and_removed(
    name: str, tmp_path: Path
) -> None:
    options = places(name)
    provider = seam.load(name)(options)
    disk = make_disk(tmp_path / "disk.raw", GIB)
    stamp = int(time.time())
    spec = Spec(
        name="publish-live-test",
        version=f"0.0.{stamp}",
        size=disk.size,
        description="A test of cloud-image-publisher; may be removed",
        digest=disk.sha256,
        run=f"live-{stamp}",
    )
    query = Query(name=spec.name, version=spec.version)

    def task(verb: str) -> Task:
        return detached(tmp_path / verb, f"{name}.{verb}", run=spec.run)

    assert not provider.validate(spec)
    findings = provider.check(spec, options.locations(), task("check"))
    assert not [finding for finding in findings if finding.severity is Severity.ERROR]
    try:
        upload = provider.upload(disk, spec, task("upload"))
        image = provider.register(upload, spec, task("register"))
        copies = provider.copy(image, options.locations(), task("copy"))
        for copy in copies:
            provider.verify(copy, disk, task("verify"))
        assert isinstance(provider, Source)
        read = provider.download(image.ref, tmp_path / "read.raw", task("download"))
        assert read.sha256 == disk.sha256
        assert refs(provider.find(query, task("find"))) == refs(copies)
    finally:
        for left in provider.find(query, task("find")):
            provider.delete(left, task("delete"))
    assert not provider.find(query, task("find"))


def refs(images: Sequence[Image]) -> set[str]:
    return {image.ref for image in images}
