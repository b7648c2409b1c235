"""README.md shows what the program says, and its samples and links are good."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher import errors
from publisher.cli.failure import BUG
from publisher.pipeline import load, validate
from tests.unit.test_pipelines import ENVIRONMENT, PIPELINES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SAMPLES = re.findall(r"^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def exit_codes(kind: type[errors.PublishError]) -> Iterator[int]:
    yield kind.exit_code
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from exit_codes(below)


def test_its_help_texts_and_files_are_the_real_ones() -> None:
    render = runpy.run_path(str(ROOT / "tools/readme.py"))["render"]
    assert render(README) == README, "run `make readme`"


@pytest.mark.parametrize("sample", SAMPLES)
def test_each_pipeline_in_it_is_valid(sample: str, tmp_path: Path) -> None:
    (tmp_path / "files").symlink_to(PIPELINES / "files")
    path = tmp_path / "pipeline.toml"
    path.write_text(sample)
    validate(load(path, environ=ENVIRONMENT))


def test_each_link_into_the_repository_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_it_lists_every_exit_code() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed - {0} == {*exit_codes(errors.PublishError), BUG}


def test_each_make_target_in_it_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documents = README + (ROOT / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"\bmake ([a-z]+)\b(?=[`\s])", documents):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
