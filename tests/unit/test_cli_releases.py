"""`publish list` and `publish show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher import manifest
from publisher.manifest import Flavour, Manifest, Timing, manifest_path
from publisher.model import GIB, MIB
from tests.unit.cli_fakes import IMAGES, Command


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


def keep(state: Path, name: str, version: str, day: int) -> None:
    path = manifest_path(state, name, version)
    path.parent.mkdir(parents=True)
    made = Manifest(
        name=name,
        version=version,
        run=f"run-{day}",
        created=f"2026-11-{day:02}T10:00:00+00:00",
        flavours=(
            Flavour(
                name=name,
                arch="x86_64",
                firmware="bios+uefi",
                digest="ab" * 32,
                size=2 * GIB,
                data=527 * MIB,
                references=tuple(image.reference for image in IMAGES),
            ),
        ),
        images=IMAGES,
        audience={"nimbus": "public"},
        tools={"qemu": "7.2"},
        timings=(Timing("build", 212.0, reused=True), Timing("nimbus.upload", 4.2)),
    )
    manifest.write(made, path)


def test_an_empty_state_directory_lists_nothing(publish: Command) -> None:
    assert publish("list").out == f"no releases in {publish.state}\n"
    assert not publish.state.exists()


def test_list_shows_the_newest_first(publish: Command) -> None:
    keep(publish.state, "web", "1.0.0", 1)
    keep(publish.state, "web", "1.1.0", 2)
    assert publish("list").out.splitlines() == [
        "name  version  created                    size     images",
        "web   1.1.0    2026-11-02T10:00:00+00:00  2.0 GiB  nimbus cirrus",
        "web   1.0.0    2026-11-01T10:00:00+00:00  2.0 GiB  nimbus cirrus",
    ]


def test_list_as_json(publish: Command) -> None:
    keep(publish.state, "web", "1.0.0", 1)
    (one,) = json.loads(publish("list", "--json").out)
    assert (one["name"], one["images"][0]["ref"]) == ("web", "north/img-1")


def test_show_takes_the_newest_of_a_name(publish: Command) -> None:
    keep(publish.state, "web", "1.0.0", 1)
    keep(publish.state, "web", "1.1.0", 2)
    assert publish("show", "web").out.splitlines() == [
        "web 1.1.0",
        "nimbus:north/img-1",
        "cirrus:demo/web-1-2-0",
        "",
        "created   2026-11-02T10:00:00+00:00",
        "run       run-2",
        "arch      x86_64, bios+uefi",
        "size      2.0 GiB, 527 MiB of data",
        f"sha256    {'ab' * 32}",
        "audience  nimbus: public",
        "tool      qemu 7.2",
        f"manifest  {manifest_path(publish.state, 'web', '1.1.0')}",
        "",
        "step           time",
        "build          3 min 32 s  reused",
        "nimbus.upload  4.2 s",
    ]


def test_show_takes_one_version(publish: Command) -> None:
    keep(publish.state, "web", "1.0.0", 1)
    keep(publish.state, "web", "1.1.0", 2)
    assert json.loads(publish("show", "web@1.0.0", "--json").out)["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("words", "hint"),
    [("wbe", 'did you mean "web"?'), ("web@1.0.1", 'did you mean "web@1.0.0"?')],
)
def test_show_helps_with_a_name_that_is_not_there(publish: Command, words: str, hint: str) -> None:
    keep(publish.state, "web", "1.0.0", 1)
    assert publish("show", words).code == 2
    assert publish.err == f"error: there is no release '{words}'\n  hint: {hint}\n"


def test_show_with_no_release_at_all(publish: Command) -> None:
    assert publish("show", "web").code == 2
    assert publish.err == (
        f"error: there is no release 'web'\n  hint: {publish.state} holds no releases\n"
    )
