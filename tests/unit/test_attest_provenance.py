"""Provenance, as a run of a real pipeline file leaves it: what made the disk, and no secret."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher import build, plan, provenance, provider, run
from publisher.build import sources
from publisher.build.builder import BY_HAND, EVIDENCE, MATERIALS
from publisher.build.debian import Installation
from publisher.fetch import Digest
from publisher.manifest import Manifest
from publisher.model import MIB, Disk, Spec
from publisher.pipeline import load
from publisher.proof.attest import statements
from publisher.recipe import Recipe, digest_tree
from publisher.task import Retry, Task
from tests.unit import nimbus

HEAD = """
[image]
name = "web"
version = "1.0.0"
[targets.nimbus]
[lint]
enabled = false
[build]
size = "2MiB"
"""
TOKEN = "correct horse battery staple 42"
STEPS = """
source.debian.suite = "bookworm"
source.debian.packages = ["${TOKEN}"]
[[build.steps]]
run = "echo ${TOKEN}"
secrets.PASSWORD.environment = "MY_PASSWORD"
[[build.steps]]
copy = { from = "motd", to = "/etc/motd" }
"""


@pytest.fixture(autouse=True)
def clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nimbus, "CLOUDS", {})
    monkeypatch.setattr(provider, "names", lambda: list(nimbus.PROVIDERS))
    monkeypatch.setattr(provider, "load", lambda name: nimbus.PROVIDERS[name])
    monkeypatch.setattr(provenance, "host_tools", lambda *_: {})


def publish(directory: Path, text: str, environ: Mapping[str, str]) -> Manifest:
    file = directory / "pipeline.toml"
    file.write_text(text)
    drawn = plan.plan(load(file, environ=environ))
    return run.run(drawn, state=directory / "state", retry=Retry(1, 0.001, 0.001))


def predicate(made: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(json.dumps(list(statements(made))))[0]["predicate"]
    return found


def digests(made: Manifest) -> Mapping[str, Mapping[str, str]]:
    found = predicate(made)["buildDefinition"]["resolvedDependencies"]
    return {about.get("uri") or about["name"]: about["digest"] for about in found}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A release whose machine is left out: only what is told of its build counts."""

    def fake(recipe: Recipe, spec: Spec, *, store: Any, task: Task, **_: object) -> Disk:
        task.memory.set(EVIDENCE, [])
        task.memory.set(BY_HAND, [])
        releases = {"http://mirror.example/debian/dists/bookworm/InRelease": "e" * 64}
        tree = Installation(tmp_path / "tree.tar", releases)
        task.memory.set(MATERIALS, sources.materials(recipe, {}, tree))
        path = store.scratch("made.raw")
        path.write_bytes(b"disk".ljust(2 * MIB, b"\0"))
        made: Disk = store.add(path)
        return made

    monkeypatch.setattr(build, "build", fake)
    monkeypatch.setenv("MY_PASSWORD", "Tr0ub4dor")
    (tmp_path / "motd").write_text("hello\n")
    return publish(tmp_path, HEAD + STEPS, {"TOKEN": TOKEN})


def test_the_whole_recipe_is_told(built: Manifest, tmp_path: Path) -> None:
    given = predicate(built)["buildDefinition"]["externalParameters"]
    recipe = given["recipe"]
    assert (recipe["size"], recipe["firmware"]) == (2 * MIB, "bios+uefi")
    assert recipe["source"]["debian"]["suite"] == "bookworm"
    assert recipe["steps"][0]["run"] == "echo ${TOKEN}"
    assert recipe["steps"][1]["copy"]["from"] == "motd"
    assert recipe["files"] == {"build.steps[1].copy.from": digest_tree(tmp_path / "motd")}
    file = (tmp_path / "pipeline.toml").read_bytes()
    assert given["pipeline"] == {
        "name": "pipeline.toml",
        "digest": {"sha256": hashlib.sha256(file).hexdigest()},
    }


def test_no_value_that_may_be_secret_is_told(built: Manifest) -> None:
    told = json.dumps([built.to_json(), list(statements(built))])
    assert TOKEN not in told
    assert "Tr0ub4dor" not in told
    assert "MY_PASSWORD" in told


def test_the_archives_indices_and_the_local_files_are_dependencies(
    built: Manifest, tmp_path: Path
) -> None:
    assert digests(built) == {
        "http://mirror.example/debian/dists/bookworm/InRelease": {"sha256": "e" * 64},
        "build.steps[1].copy.from": {"treeSha256": digest_tree(tmp_path / "motd")},
    }


def test_what_was_built_keeps_the_file_that_it_was_built_by(
    built: Manifest, tmp_path: Path
) -> None:
    again = publish(tmp_path, f"# a comment\n{HEAD}{STEPS}", {"TOKEN": TOKEN})
    assert again.flavours[0].origin["pipeline"] == built.flavours[0].origin["pipeline"]


def test_the_inventory_is_a_byproduct(built: Manifest) -> None:
    found = predicate(built)["runDetails"]["byproducts"]
    assert [(about["name"], about["mediaType"]) for about in found] == [
        ("sbom.cdx.json", "application/vnd.cyclonedx+json"),
        ("sbom.spdx.json", "application/spdx+json"),
    ]
    for about, document in zip(
        found, built.flavours[0].proofs["inventory"]["documents"], strict=True
    ):
        data = Path(document["path"]).read_bytes()
        assert about["digest"] == {"sha256": hashlib.sha256(data).hexdigest()}


def test_times_are_in_utc_and_say_so_with_a_z(built: Manifest) -> None:
    """https://github.com/in-toto/attestation/blob/main/spec/v1/field_types.md"""
    finished = predicate(built)["runDetails"]["metadata"]["finishedOn"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", finished)


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")
def test_a_disk_that_is_published_as_it_is_comes_from_its_stated_digest(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"boot".ljust(2 * MIB, b"\0"))
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    source = f'source.disk = {{ file = "base.raw", sha256 = "{digest}" }}\n'
    assert digests(publish(tmp_path, HEAD + source, {})) == {
        "build.source.disk": {"sha256": digest}
    }


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")
def test_what_a_signed_list_vouched_for_is_a_dependency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the build sees it: the pipeline names the list and the key."""
    base = tmp_path / "base.raw"
    base.write_bytes(b"boot".ljust(2 * MIB, b"\0"))
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "resolve", lambda *_: {"file": Digest("sha256", digest)})
    found = digests(publish(tmp_path, HEAD + 'source.disk.file = "base.raw"\n', {}))
    assert found["build.source.disk"] == {"sha256": digest}


def test_a_migration_comes_from_its_reference(built: Manifest) -> None:
    from dataclasses import replace

    source = {"migrated": "nimbus:north/img0"}
    moved = replace(built, flavours=(replace(built.flavours[0], source=source, origin={}),))
    found = predicate(moved)["buildDefinition"]
    assert found["resolvedDependencies"] == [{"uri": "nimbus:north/img0"}]
    assert found["externalParameters"]["source"] == source
