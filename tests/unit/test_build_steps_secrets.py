"""Secrets of a step: the script gets them, nothing else ever shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.build import steps
from publisher.build.secrets import Redactor
from publisher.errors import BootError, PipelineError
from publisher.recipe import Recipe, fingerprint
from tests.unit.local_guest import LocalGuest, step

TOKEN = "hunter2'$(id)"
CERT = "-----BEGIN-----\nAAAA-secret-line\n}\nBBBB-secret-line\n-----END-----\n"
SECRETS = {"TOKEN": {"environment": "MY_TOKEN"}, "CERT": {"file": "cert.pem"}}


def recipe(given: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": [given]})


@pytest.fixture(autouse=True)
def _values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    (tmp_path / "cert.pem").write_text(CERT)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalGuest:
    return LocalGuest(tmp_path, monkeypatch, "tmpfs")


def test_the_script_sees_them_and_the_output_does_not(guest: LocalGuest, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    text = (
        f'printf %s "$TOKEN$CERT" > {seen}; cat /proc/$$/cmdline; echo; '
        'echo "token=$TOKEN."; echo "$CERT"; exit 4'
    )
    given = step(run=text, secrets=SECRETS)
    said: list[str] = []
    done = steps.run(given, tmp_path, guest, said.append)
    assert seen.read_text() == TOKEN + CERT.rstrip("\n")
    assert done is not None
    assert "token=***." in said
    error = steps.failure(0, given, done)
    for shown in ("\n".join(said), error.message, repr(done), "\n".join(guest.commands)):
        assert "hunter2" not in shown
        assert "secret-line" not in shown
    assert "  }" in error.message
    assert guest.left() == []


def test_the_evidence_of_a_check_hides_them(guest: LocalGuest, tmp_path: Path) -> None:
    done = steps.run(step(check="echo $TOKEN", secrets=SECRETS), tmp_path, guest, lambda _: None)
    assert done is not None
    assert done.evidence is not None
    assert done.evidence.lines == ("***",)


def test_the_next_step_does_not_see_them(guest: LocalGuest, tmp_path: Path) -> None:
    steps.run(step(run="true", secrets=SECRETS), tmp_path, guest, lambda _: None)
    said: list[str] = []
    steps.run(step(run="echo ${TOKEN-none}"), tmp_path, guest, said.append)
    assert said == ["none"]


def test_an_error_under_way_hides_them(
    guest: LocalGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object, **options: object) -> None:
        raise BootError(f"it said {TOKEN}", phase="ready", console=TOKEN, hint=TOKEN)

    monkeypatch.setattr(guest, "command", die)
    with pytest.raises(BootError) as caught:
        steps.run(step(run="true", secrets=SECRETS), tmp_path, guest, lambda _: None)
    error = caught.value
    assert str(error) == "it said ***"
    assert (error.console, error.hint, error.args) == ("***", "***", ("it said ***",))


def test_values_are_no_part_of_the_fingerprint_but_references_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprint(recipe({"run": "true", "secrets": SECRETS}), tmp_path)
    assert "hunter2" not in json.dumps(first)
    monkeypatch.setenv("MY_TOKEN", "another one")
    (tmp_path / "cert.pem").write_text("another one")
    assert fingerprint(recipe({"run": "true", "secrets": SECRETS}), tmp_path) == first
    other = {**SECRETS, "TOKEN": {"environment": "OTHER"}}
    assert fingerprint(recipe({"run": "true", "secrets": other}), tmp_path) != first


@pytest.mark.parametrize(
    ("secret", "value", "key", "says"),
    [
        ({"environment": "NONE"}, "", ".environment", "NONE is not set"),
        ({"file": "none.pem"}, "", ".file", "none.pem does not exist"),
        ({"file": "short"}, "abc\n", "", "at least 4 characters"),
        ({"file": "short"}, "abcd\0", "", "NUL"),
        ({"file": "short"}, b"\xff\xfe\xfd\xfc", ".file", "can't be read as text"),
    ],
)
def test_a_secret_that_is_not_usable_is_found_before_the_build(
    secret: dict[str, str], value: str | bytes, key: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "short").write_bytes(value.encode() if isinstance(value, str) else value)
    with pytest.raises(PipelineError, match=says) as caught:
        steps.check_files(recipe({"run": "true", "secrets": {"TOKEN": secret}}), tmp_path)
    assert caught.value.key == f"build.steps[0].secrets.TOKEN{key}"
    assert "abc" not in str(caught.value)


def test_of_two_values_the_longer_one_is_hidden_whole() -> None:
    assert Redactor({"A": "word", "B": "password1"})("password1 word") == "*** ***"


def test_a_traced_command_hides_them_too(guest: LocalGuest, tmp_path: Path) -> None:
    for shell in ("sh", "bash"):
        said: list[str] = []
        table = {"inline": 'true "$TOKEN"', "interpreter": f"{shell} -x"}
        steps.run(step(run=table, secrets=SECRETS), tmp_path, guest, said.append)
        assert len(said) == 1
        assert "hunter2" not in said[0]
    assert Redactor({"A": 'pa"ss\\é'})(json.dumps(['pa"ss\\é'])) == '["***"]'
