"""The JSON Schema of a pipeline file: what an editor completes and refuses."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from publisher.schema import schema
from tests.unit.pipeline_fakes import GOOD, install

pytestmark = pytest.mark.skipif(not find_spec("jsonschema"), reason="jsonschema is missing")


@pytest.fixture(autouse=True)
def _clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def errors(text: str) -> list[str]:
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema())
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            yield f"{path}.{name}", value
        for key, value in node.items():
            yield from properties(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from properties(value, path)


def test_the_schema_is_one_of_the_2020_12_dialect() -> None:
    import jsonschema

    made = schema()
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["title"] == "cloud-image-publisher pipeline"
    jsonschema.Draft202012Validator.check_schema(made)


def test_a_good_file_fits_the_schema() -> None:
    assert errors(GOOD) == []


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ('name = "web"', 'nmae = "web"', "('nmae' was unexpected)"),
        ('name = "web"\n', "", "'name' is a required property"),
        ('project = "demo"\n', "", "'project' is a required property"),
        ('["north", "south"]', '"north"', "'north' is not of type 'array'"),
        ('"1.2.0"', '"1.2.0"\narch = "arm"', "'arm' is not valid under any of the given schemas"),
    ],
)
def test_a_wrong_file_does_not_fit_the_schema(good: str, bad: str, message: str) -> None:
    assert any(message in error for error in errors(GOOD.replace(good, bad)))


def test_a_file_without_targets_does_not_fit_the_schema() -> None:
    assert errors(GOOD[: GOOD.index("[targets.nimbus]")] + "[targets]\n")


def test_the_options_of_every_installed_provider_are_in_the_schema() -> None:
    targets = schema()["$defs"]["Targets"]["properties"]
    assert list(targets) == ["cirrus", "nimbus"]
    assert targets["cirrus"]["description"] == "Publish to Cirrus."


def test_every_option_has_a_description() -> None:
    without = [path for path, value in properties(schema()) if not value.get("description")]
    assert without == []


def test_no_option_is_null_because_toml_has_none() -> None:
    assert '"null"' not in str(schema()).replace("'", '"')
