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
    everything = "exactly one of packages, run, copy, ansible, reboot, check"
    with pytest.raises(ValidationError, match=everything):
        recipe({"run": "true", "packages": ["nginx"]})
    for nothing in ({"name": "nothing"}, {"reboot": False}):
        with pytest.raises(ValidationError, match=everything):
            recipe(nothing)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"packages": []}, "packages"),
        ({"run": "", "reboot": False}, "run"),
        ({"copy": {"from": "a", "to": "/b"}}, "copy"),
        ({"ansible": {"playbook": "site.yml"}}, "ansible"),
        ({"reboot": True}, "reboot"),
        ({"check": {"file": "check.sh"}}, "check"),
    ],
)
def test_a_step_knows_its_kind(step: dict[str, Any], kind: str) -> None:
    assert recipe(step).steps[0].kind == kind


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"run": {}}, "exactly one of inline, file"),
        ({"run": {"inline": "a", "file": "b"}}, "exactly one of inline, file"),
        ({"run": {"inline": "a", "timeout": "soon"}}, 'such as "90s", "10min" or "2h"'),
        ({"run": {"inline": "a", "timeout": 0}}, "greater than or equal to 1"),
        ({"run": {"inline": "a", "directory": "tmp"}}, "match pattern"),
        ({"run": {"inline": "a", "environment": {"A-B": ""}}}, "only letters, digits and _"),
        ({"run": {"inline": "a", "environment": {"A": "\0"}}}, "no NUL"),
        ({"copy": {"from": "a", "to": "/b", "variables": {"A": ""}}}, "need template = true"),
        ({"run": "a", "secrets": {"A": {}}}, "exactly one of environment, file"),
        ({"packages": [], "secrets": {"A": {"file": "a"}}}, "for run, ansible and check"),
        (
            {
                "run": {"inline": "a", "environment": {"A": ""}},
                "secrets": {"A": {"environment": "A"}},
            },
            "A is both in environment and in secrets",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(step: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        recipe(step)


@pytest.mark.parametrize(
    ("written", "seconds"), [(90, 90), ("90", 90), ("90s", 90), ("10min", 600), ("2h", 7200)]
)
def test_durations_are_written_with_units(written: str | int, seconds: int) -> None:
    script = recipe({"run": {"inline": "a", "timeout": written}}).steps[0].script
    assert script is not None
    assert script.timeout == seconds


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
        ({"run": {"inline": "one\ntwo"}}, "run one …"),
        ({"check": "nginx -t"}, "check nginx -t"),
        ({"check": {"file": "check.sh"}}, "check file check.sh"),
        ({"ansible": {"playbook": "site.yml"}}, "ansible site.yml"),
        ({"reboot": True}, "reboot"),
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


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ({"run": {"inline": "a"}}, {"interpreter": "python3"}),
        ({"run": {"inline": "a"}}, {"environment": {"A": "b"}}),
        ({"run": {"inline": "a"}}, {"directory": "/tmp"}),
        ({"run": {"inline": "a"}}, {"timeout": 5}),
        ({"run": {"inline": "a"}}, {"retries": 1}),
        ({"check": {"inline": "a"}}, {"inline": "b"}),
        ({"copy": {"from": "setup.sh", "to": "/b"}}, {"template": True}),
        (
            {"copy": {"from": "setup.sh", "to": "/b", "template": True}},
            {"variables": {"A": "b"}},
        ),
    ],
)
def test_every_option_of_a_step_changes_the_fingerprint(
    step: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "setup.sh").write_text("true")
    (kind,) = step
    changed = {kind: {**step[kind], **changes}}
    assert fingerprint(recipe(step), tmp_path) != fingerprint(recipe(changed), tmp_path)


def test_the_file_of_a_check_changes_the_fingerprint(tmp_path: Path) -> None:
    wanted = recipe({"check": {"file": "check.sh"}})
    (tmp_path / "check.sh").write_text("true")
    before = fingerprint(wanted, tmp_path)
    (tmp_path / "check.sh").write_text("false")
    assert fingerprint(wanted, tmp_path) != before


def test_a_missing_file_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        fingerprint(recipe({"packages": ["x"]}, {"copy": {"from": "no", "to": "/"}}), tmp_path)
    assert caught.value.key == "build.steps[1].copy.from"
    assert "no does not exist" in str(caught.value)


def test_what_a_playbooks_links_lead_to_changes_the_fingerprint(tmp_path: Path) -> None:
    shared, roles = tmp_path / "shared" / "web" / "tasks", tmp_path / "site" / "roles"
    shared.mkdir(parents=True)
    roles.mkdir(parents=True)
    (shared / "main.yml").write_text("- debug:")
    (tmp_path / "vars.yml").write_text("a: 1")
    (roles / "web").symlink_to(shared.parent)
    (roles / "loop").symlink_to(roles)
    (roles / "vars.yml").symlink_to(tmp_path / "vars.yml")
    (roles / "nowhere").symlink_to(tmp_path / "nowhere")
    (roles.parent / "site.yml").write_text("- hosts: all")
    recipe = Recipe.model_validate(
        {
            "source": {"debian": {}},
            "size": "2GiB",
            "steps": [{"ansible": {"playbook": "site/site.yml"}}],
        }
    )
    seen = [fingerprint(recipe, tmp_path)]
    assert fingerprint(recipe, tmp_path) == seen[0]
    (shared / "main.yml").write_text("- debug: {msg: other}")
    seen.append(fingerprint(recipe, tmp_path))
    (tmp_path / "vars.yml").write_text("a: 2")
    seen.append(fingerprint(recipe, tmp_path))
    assert seen[0] != seen[1] != seen[2]
