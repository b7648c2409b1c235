"""The recipe and what decides its fingerprint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from publisher.errors import PipelineError
from publisher.model import GIB
from publisher.recipe import Recipe, fingerprint


def recipe(*steps: dict[str, Any], **changes: Any) -> Recipe:
    values = {"source": {"debian": {}}, "size": "2GiB", "steps": steps, **changes}
    return Recipe.model_validate(values)


def test_sizes_are_written_with_units() -> None:
    assert recipe(size="2GiB").size == recipe(size="2048 MiB").size == 2 * GIB
    with pytest.raises(ValidationError, match='such as "10GiB"'):
        recipe(size="much")


def test_a_step_does_exactly_one_thing() -> None:
    with pytest.raises(ValidationError, match="exactly one of packages, run, copy"):
        recipe({"run": "true", "packages": ["nginx"]})
    with pytest.raises(ValidationError, match="exactly one of"):
        recipe({"name": "nothing"})


def test_there_is_exactly_one_source() -> None:
    with pytest.raises(ValidationError, match=r"exactly one of \[build.source.debian\]"):
        recipe(source={})


@pytest.mark.parametrize(
    ("step", "title"),
    [
        ({"packages": ["nginx", "curl"]}, "packages nginx curl"),
        ({"run": "\necho one\necho two\n"}, "run echo one …"),
        ({"run": {"file": "setup.sh"}}, "run file setup.sh"),
        ({"copy": {"from": "site", "to": "/srv"}}, "copy site to /srv"),
        ({"run": "true", "name": "Warm up"}, "Warm up"),
    ],
)
def test_a_step_says_what_it_is(step: dict[str, Any], title: str) -> None:
    assert recipe(step).steps[0].title() == title


def test_everything_that_goes_into_the_disk_changes_the_fingerprint(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("hello")
    (tmp_path / "setup.sh").write_text("true")
    wanted = recipe({"copy": {"from": "site", "to": "/srv"}}, {"run": {"file": "setup.sh"}})
    seen = [fingerprint(wanted, tmp_path)]

    def changed() -> bool:
        now = fingerprint(wanted, tmp_path)
        new = now not in seen
        seen.append(now)
        return new

    assert not changed()
    (site / "index.html").write_text("hullo")
    assert changed()
    os.chmod(site / "index.html", 0o600)
    assert changed()
    (site / "link").symlink_to("index.html")
    assert changed()
    (site / "empty").mkdir()
    assert changed()
    (site / "index.html").rename(site / "other.html")
    assert changed()
    (tmp_path / "setup.sh").write_text("false")
    assert changed()


def test_a_missing_file_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        fingerprint(recipe({"packages": ["x"]}, {"copy": {"from": "no", "to": "/"}}), tmp_path)
    assert caught.value.key == "build.steps[1].copy.from"
    assert "no does not exist" in str(caught.value)
