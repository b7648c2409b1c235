"""What a pipeline may say of the disk's source, and what of it decides the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from publisher.errors import PipelineError
from publisher.recipe import Recipe, describe, fingerprint

URL = "https://images.example/disk.qcow2"
SHA256 = "a" * 64


def recipe(kind: str, **source: Any) -> Recipe:
    return Recipe.model_validate({"source": {kind: source}, "size": "2GiB"})


def test_a_disk_by_url_needs_a_digest_and_one_is_enough() -> None:
    with pytest.raises(ValidationError, match="a URL needs a digest"):
        recipe("disk", file=URL)
    with pytest.raises(ValidationError, match="give only one of sha256, sums"):
        recipe("disk", file=URL, sha256=SHA256, sums="SHA256SUMS", key="key.asc")
    with pytest.raises(ValidationError, match="sha256"):
        recipe("disk", file=URL, sha256="abc")
    recipe("disk", file=URL, sha256=SHA256)
    recipe("disk", file="disk.qcow2")


def test_a_list_of_digests_needs_the_key_that_signs_it() -> None:
    with pytest.raises(ValidationError, match="sums needs key"):
        recipe("disk", file=URL, sums=f"{URL}.sums")
    with pytest.raises(ValidationError, match="belong to sums"):
        recipe("disk", file=URL, sha256=SHA256, key="key.asc")


@pytest.mark.parametrize("url", ["https://me:secret@host/disk", "https://token@host/disk"])
def test_credentials_have_no_place_in_a_pipeline(url: str) -> None:
    with pytest.raises(ValidationError, match=r"~/\.netrc"):
        recipe("disk", file=url, sha256=SHA256)


def test_other_protocols_are_refused() -> None:
    with pytest.raises(ValidationError, match="start with https:// or http://"):
        recipe("disk", file="ftp://host/disk", sha256=SHA256)


@pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b", "."])
def test_a_command_sees_only_what_lies_beside_the_pipeline(path: str) -> None:
    with pytest.raises(ValidationError, match="relative path without"):
        recipe("command", run="make", output="disk", inputs=[path])
    with pytest.raises(ValidationError, match="relative path without"):
        recipe("command", run="make", output=path)


def test_a_command_is_not_empty() -> None:
    runs: list[Any] = ["", []]
    for run in runs:
        with pytest.raises(ValidationError):
            recipe("command", run=run, output="disk")


def test_names_of_variables_are_names() -> None:
    with pytest.raises(ValidationError):
        recipe("command", run="make", output="disk", environment=["A=b"])


def test_a_snapshot_is_a_moment() -> None:
    recipe("debian", snapshot="20261101T000000Z")
    with pytest.raises(ValidationError, match="snapshot"):
        recipe("debian", snapshot="last week")


def test_a_repository_has_a_key() -> None:
    with pytest.raises(ValidationError, match="key"):
        recipe("debian", repositories=[{"url": "https://apt.example", "suite": "stable"}])


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (recipe("debian"), "debian bookworm"),
        (
            recipe("debian", suite="sid", snapshot="20261101T000000Z"),
            "debian sid of 20261101T000000Z",
        ),
        (recipe("disk", file=f"{URL}?sig=secret", sha256=SHA256), "disk disk.qcow2"),
        (recipe("command", run=["mkosi", "build"], output="x"), "command mkosi build"),
        (recipe("command", run="a\nb\n", output="x"), "command a …"),
    ],
)
def test_a_source_says_what_it_is(made: Recipe, title: str, tmp_path: Path) -> None:
    inputs = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert describe(inputs) == title


class Changes:
    """Whether a recipe's fingerprint is one that was not seen before."""

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self._recipe = recipe
        self._directory = directory
        self._seen: list[dict[str, Any]] = []

    def __call__(self) -> bool:
        now = fingerprint(self._recipe, self._directory)
        new = now not in self._seen
        self._seen.append(now)
        return new


def test_a_command_is_keyed_by_its_inputs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "part").write_text("1")
    (tmp_path / "build.conf").write_text("1")
    (tmp_path / "unnamed").write_text("1")
    wanted = recipe(
        "command", run="make", inputs=["tree", "build.conf"], output="x", environment=["TOKEN"]
    )
    changed = Changes(wanted, tmp_path)
    assert changed()
    assert not changed()
    monkeypatch.setenv("TOKEN", "secret")
    (tmp_path / "unnamed").write_text("2")
    os.utime(tmp_path / "build.conf", (1, 1))
    assert not changed()
    (tmp_path / "tree" / "part").write_text("2")
    assert changed()
    (tmp_path / "build.conf").write_text("2")
    assert changed()
    os.chmod(tmp_path / "build.conf", 0o755)
    assert changed()


def test_a_disk_is_keyed_by_its_bytes_or_by_the_digest_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("1")
    (tmp_path / "disk").symlink_to("real")
    changed = Changes(recipe("disk", file="disk"), tmp_path)
    assert changed()
    (tmp_path / "real").write_text("2")
    assert changed()
    fingerprint(recipe("disk", file="not-here", sha256=SHA256), tmp_path)
    one, other = (recipe("disk", file=URL, sha256=digit * 64) for digit in "ab")
    assert fingerprint(one, tmp_path) != fingerprint(other, tmp_path)


def test_keys_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    key = tmp_path / "key.asc"
    repository = {"url": "https://apt.example", "suite": "stable", "key": "key.asc"}
    for wanted in (
        recipe("disk", file=URL, sums=f"{URL}.sums", key="key.asc"),
        recipe("debian", repositories=[repository]),
    ):
        key.write_text("1")
        changed = Changes(wanted, tmp_path)
        assert changed()
        key.write_text("2")
        assert changed()


def test_a_missing_input_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        fingerprint(recipe("command", run="make", output="x", inputs=["none"]), tmp_path)
    assert caught.value.key == "build.source.command.inputs[0]"
    with pytest.raises(PipelineError) as caught:
        fingerprint(recipe("disk", file="none.qcow2"), tmp_path)
    assert caught.value.key == "build.source.disk.file"


def test_a_script_behind_a_link_is_keyed_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("1")
    (tmp_path / "script").symlink_to("real")
    step = {"run": {"file": "script"}}
    wanted = Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": [step]})
    changed = Changes(wanted, tmp_path)
    assert changed()
    (tmp_path / "real").write_text("2")
    assert changed()
