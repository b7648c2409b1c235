"""What a pipeline may say of an installer, and its answer files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from publisher.build import answers
from publisher.build.levels import installation
from publisher.build.steps import check_files
from publisher.errors import PipelineError
from publisher.installer import Installer
from publisher.model import Spec
from publisher.recipe import Recipe, describe, fingerprint
from publisher.vm.host import which

SHA256 = "a" * 64
NETBOOT: dict[str, Any] = {"kernel": "linux", "initrd": "initrd.gz"}
ANSWERED: dict[str, Any] = {
    **NETBOOT,
    "arguments": "url={url}/preseed.cfg",
    "files": {"preseed.cfg": "preseed.cfg"},
}


def recipe(**given: Any) -> Recipe:
    return Recipe.model_validate({"source": {"installer": given}, "size": "2GiB"})


def test_an_installer_needs_something_to_boot() -> None:
    with pytest.raises(ValidationError, match="give kernel and initrd, or iso"):
        recipe()
    with pytest.raises(ValidationError, match="belong together"):
        recipe(kernel="linux")
    with pytest.raises(ValidationError, match="arguments need kernel and initrd"):
        recipe(iso="cd.iso", arguments="quiet")
    recipe(**NETBOOT)
    recipe(iso="cd.iso")


def test_what_comes_by_url_needs_a_digest_and_what_lies_in_the_iso_none() -> None:
    url = "https://installer.example/linux"
    with pytest.raises(ValidationError, match="a URL needs a digest"):
        recipe(kernel=url, initrd="initrd.gz")
    recipe(kernel={"file": url, "sha256": SHA256}, initrd="initrd.gz")
    with pytest.raises(ValidationError, match="need no digest"):
        recipe(iso="cd.iso", kernel={"file": "linux", "sha256": SHA256}, initrd="initrd")


def test_answer_files_that_nobody_asks_for_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"url=\{url\}/preseed\.cfg into arguments"):
        recipe(**NETBOOT, files={"preseed.cfg": "preseed.cfg"}, arguments="auto=true")


def test_arguments_hold_known_values_and_no_secret() -> None:
    with pytest.raises(ValidationError, match=r"no value for \{mirror\}; known are: \{url\}"):
        recipe(**NETBOOT, arguments="mirror={mirror}")
    recipe(**NETBOOT, arguments="mirror={mirror}", variables={"mirror": "deb.debian.org"})
    secret = {"password": {"environment": "PASSWORD"}}
    with pytest.raises(ValidationError, match="must hold no secret"):
        recipe(**NETBOOT, arguments="password={password}", secrets=secret)


@pytest.mark.parametrize("name", ["url", "done", "ssh_public_key"])
def test_the_builds_own_values_cannot_be_replaced(name: str) -> None:
    with pytest.raises(ValidationError, match=f"the name {name} is taken"):
        recipe(**NETBOOT, variables={name: "x"})


def test_no_file_is_called_like_a_report() -> None:
    with pytest.raises(ValidationError, match="no file can be called done or failed"):
        recipe(**NETBOOT, arguments="{url}", files={"done": "x"})


def test_a_recipe_of_an_installer_is_the_same_after_its_way_through_a_plan() -> None:
    made = recipe(**ANSWERED, timeout="20min", memory="2GiB")
    inputs = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert Recipe.model_validate(inputs) == made
    assert describe(inputs) == "installer linux with preseed.cfg"
    assert made.boots


def test_answers_are_filled_in_and_shells_keep_their_braces() -> None:
    text = "a {url} b {{url}} c ${url} d { format } e ${{x}} f {}"
    assert answers.fill(text, {"url": "U"}) == "a U b {url} c ${url} d { format } e ${{x}} f {}"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    for name in ("linux", "initrd.gz"):
        (tmp_path / name).write_text(name)
    (tmp_path / "preseed.cfg").write_text("first\nfetch {done}\n")
    return tmp_path


def installer(**given: Any) -> Installer:
    source = recipe(**{**ANSWERED, **given}).source.installer
    assert source is not None
    return source


def test_a_placeholder_without_a_value_names_file_and_line(pipeline: Path) -> None:
    (pipeline / "preseed.cfg").write_text("first\nkey {ssh_publickey}\n")
    with pytest.raises(PipelineError, match=r"preseed\.cfg, line 2: .*\{ssh_publickey\}") as caught:
        check_files(recipe(**ANSWERED), pipeline)
    assert caught.value.key == 'build.source.installer.files."preseed.cfg"'
    assert 'did you mean "ssh_public_key"?' in caught.value.hint


def test_a_missing_answer_file_is_told_when_the_build_is_planned(pipeline: Path) -> None:
    (pipeline / "preseed.cfg").unlink()
    with pytest.raises(PipelineError, match=r"preseed\.cfg does not exist") as caught:
        fingerprint(recipe(**ANSWERED), pipeline)
    assert caught.value.key == 'build.source.installer.files."preseed.cfg"'
    (pipeline / "preseed.cfg").mkdir()
    with pytest.raises(PipelineError, match="is no file"):
        answers.used(installer(), pipeline)


def test_a_missing_secret_is_told_before_anything_runs(pipeline: Path) -> None:
    secrets = {"token": {"environment": "NO_SUCH_VARIABLE"}}
    with pytest.raises(PipelineError, match="NO_SUCH_VARIABLE is not set") as caught:
        check_files(recipe(**ANSWERED, secrets=secrets), pipeline)
    assert caught.value.key == "build.source.installer.secrets.token.environment"


def test_what_is_no_text_is_served_as_it_is(pipeline: Path) -> None:
    (pipeline / "blob").write_bytes(b"\xff{url}")
    files = {"preseed.cfg": "preseed.cfg", "blob": "blob"}
    served = answers.render(installer(files=files), pipeline, {"done": "D"})
    assert served == {"preseed.cfg": b"first\nfetch D\n", "blob": (pipeline / "blob").resolve()}


class Keys:
    """Whether the key of an installation is one that was not seen before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: set[str] = set()

    def new(self, spec: Spec, state: dict[str, str] | None = None, **given: Any) -> bool:
        level = installation(recipe(**{**ANSWERED, **given}), spec, state or {}, self._directory)
        assert level is not None
        fresh = level.key not in self._seen
        self._seen.add(level.key)
        return fresh


@pytest.mark.skipif(which("qemu-system-x86_64") is None, reason="QEMU is missing")
def test_an_installation_is_keyed_by_all_that_decides_it_and_no_more(pipeline: Path) -> None:
    keys = Keys(pipeline)
    one, other = Spec("web", "1.0"), Spec("web", "2.0")
    assert keys.new(one)
    assert not keys.new(other), "no answer file asks for the version"
    assert not keys.new(one, timeout="5min", user="operator")
    assert keys.new(one, arguments="url={url}/preseed.cfg quiet")
    assert keys.new(one, memory="3GiB")
    assert keys.new(one, {"iso": "sha256:1"}), "what a signed list says now"
    (pipeline / "linux").write_text("newer")
    assert keys.new(one)
    (pipeline / "preseed.cfg").write_text("hostname {name}-{version}")
    assert keys.new(one)
    assert keys.new(other)
