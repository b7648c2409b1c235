"""Copied files with placeholders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.build import steps
from publisher.errors import PipelineError
from publisher.recipe import Recipe
from tests.unit.local_guest import LocalGuest, step


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "conf").write_bytes(b"host ${HOST}\r\n\nprice $$5 $HOST\n")
    (site / "conf").chmod(0o440)
    (site / "sub" / "plain").write_text("nothing")
    (site / "link").symlink_to("conf")
    return site


def check(directory: Path, **copy: Any) -> None:
    given = {"source": {"debian": {}}, "size": "2GiB", "steps": [{"copy": copy}]}
    steps.check_files(Recipe.model_validate(given), directory)


def test_a_tree_is_filled_in_and_stays_as_it_is_here(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = LocalGuest(tmp_path, monkeypatch, "tmpfs")
    copy = {"from": "site", "to": "/srv", "template": True, "variables": {"HOST": "a$b"}}
    steps.run(step(copy=copy), tmp_path, guest, lambda _: None)
    ((to, texts, mode, owner),) = guest.copied
    assert (to, mode, owner) == ("/srv", None, "root:root")
    assert texts == {"conf": "host a$b\n\nprice $5 a$b\n", "sub/plain": "nothing"}
    assert b"${HOST}" in (site / "conf").read_bytes()


def test_a_single_file_keeps_its_name_and_mode(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = LocalGuest(tmp_path, monkeypatch, "tmpfs")
    kept: list[tuple[str, int, bytes]] = []

    def copy(source: Path, to: str, *, mode: int | None, owner: str) -> None:
        kept.append((source.name, source.stat().st_mode & 0o777, source.read_bytes()))

    monkeypatch.setattr(guest, "copy", copy)
    given = {"from": "site/conf", "to": "/srv/", "template": True, "variables": {"HOST": "h"}}
    steps.run(step(copy=given), tmp_path, guest, lambda _: None)
    assert kept == [("conf", 0o440, b"host h\r\n\nprice $5 h\n")]


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (b"one\ntwo ${NAME}\n", "variables", r"site/conf, line 2: there is no variable NAME"),
        (b"one\n\n5 $ more", "template", r"site/conf, line 3: a \$ without a name"),
        (b"\xff\xfe", "template", "site/conf is no UTF-8 text"),
    ],
)
def test_a_template_that_can_not_be_filled_is_found_before_the_build(
    text: bytes, key: str, says: str, site: Path, tmp_path: Path
) -> None:
    (site / "conf").chmod(0o644)
    (site / "conf").write_bytes(text)
    with pytest.raises(PipelineError, match=says) as caught:
        check(tmp_path, **{"from": "site", "to": "/srv", "template": True})
    assert caught.value.key == f"build.steps[0].copy.{key}"
    check(tmp_path, **{"from": "site", "to": "/srv"})
