"""pipeline.toml: what is accepted, and the exact words for what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from publisher.errors import PipelineError, UsageError
from publisher.model import GIB, Audience
from publisher.pipeline import Flavour, Pipeline, load, load_options, validate
from tests.unit.pipeline_fakes import GOOD, install


@pytest.fixture(autouse=True)
def _clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


class Loader:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "pipeline.toml"

    def whole(self, text: str, *settings: str, **environ: str) -> Pipeline:
        self.path.write_text(text)
        return load(self.path, settings=settings, environ=environ)

    def __call__(self, text: str, *settings: str, **environ: str) -> Flavour:
        (only,) = self.whole(text, *settings, **environ).flavours
        return only

    def error(self, text: str, *settings: str, **environ: str) -> PipelineError:
        with pytest.raises(PipelineError) as caught:
            self(text, *settings, **environ)
        return caught.value

    def says(self, text: str, *settings: str, **environ: str) -> tuple[str, str]:
        error = self.error(text, *settings, **environ)
        return str(error), error.hint


@pytest.fixture
def loading(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def without(line: str) -> str:
    assert line in GOOD
    return GOOD.replace(line, "")


# -- what a good file means


def test_a_good_file_becomes_a_pipeline(loading: Loader) -> None:
    pipeline = loading(GOOD)
    assert pipeline.image.name == "web"
    assert pipeline.build.size == 2 * GIB
    assert list(pipeline.targets) == ["nimbus", "cirrus"]
    assert pipeline.targets["nimbus"].locations() == ("north", "south")
    assert loading.whole(GOOD).directory == loading.path.parent
    assert pipeline.release.audience == "private"
    assert pipeline.release.all_or_nothing is True
    assert pipeline.release.required == ()


def test_a_pipeline_gives_the_spec_of_every_provider(loading: Loader) -> None:
    text = GOOD.replace(
        'version = "1.2.0"', 'version = "1.2.0"\ndescription = "Web"\ntags = { team = "a" }'
    )
    spec = loading(text).spec()
    assert (spec.name, spec.version, spec.arch) == ("web", "1.2.0", "x86_64")
    assert (spec.size, spec.firmware) == (2 * GIB, "bios+uefi")
    assert (spec.description, spec.tags) == ("Web", {"team": "a"})
    assert (spec.digest, spec.run) == ("", "")


def test_a_pipeline_is_frozen(loading: Loader) -> None:
    pipeline = loading(GOOD)
    with pytest.raises(ValidationError):
        pipeline.image.name = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        loading.whole(GOOD).path = Path("/")  # type: ignore[misc]


def test_shared_images_open_to_the_accounts_of_their_cloud_only(loading: Loader) -> None:
    release = '[release]\naudience = "shared"\naccounts = { nimbus = ["1", "2"] }\n'
    pipeline = loading(GOOD + release)
    assert pipeline.audience("nimbus") == Audience("shared", ("1", "2"))
    assert pipeline.audience("cirrus") == Audience("private")


def test_public_images_open_to_everyone(loading: Loader) -> None:
    pipeline = loading(GOOD + '[release]\naudience = "public"\n')
    assert pipeline.audience("nimbus") == Audience("public")


# -- settings and the environment


def test_a_setting_goes_over_the_files_value(loading: Loader) -> None:
    pipeline = loading(GOOD, "targets.nimbus.regions=['west']", "build.size=3GiB")
    assert pipeline.targets["nimbus"].locations() == ("west",)
    assert pipeline.build.size == 3 * GIB


def test_a_setting_reaches_into_lists_and_new_tables(loading: Loader) -> None:
    pipeline = loading(
        GOOD, "targets.nimbus.regions[1]=east", "targets.nimbus.regions[2]=west", "image.tags.a=b"
    )
    assert pipeline.targets["nimbus"].locations() == ("north", "east", "west")
    assert pipeline.image.tags == {"a": "b"}


@pytest.mark.parametrize("text", ["1.10", "2024-01-31", "true", "10"])
def test_a_setting_stays_text_where_only_text_can_stand(loading: Loader, text: str) -> None:
    pipeline = loading(GOOD, f"image.version={text}", f"image.tags.build={text}")
    assert pipeline.image.version == text
    assert pipeline.image.tags == {"build": text}


def test_a_setting_is_toml_where_other_values_can_stand(loading: Loader) -> None:
    pipeline = loading(GOOD, "release.all_or_nothing=false", 'image.version="3.0"')
    assert pipeline.release.all_or_nothing is False
    assert pipeline.image.version == "3.0"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("image.version", "--set image.version: not of the form KEY=VALUE"),
        ("=1", "--set =1: not of the form KEY=VALUE"),
        ("a b=1", "--set a b=1: not of the form KEY=VALUE"),
        ("image[0]=1", "--set image[0]: image is not a list"),
        ("image.name.first=1", "--set image.name.first: image.name is not a table"),
        (
            "targets.nimbus.regions[9]=x",
            "--set targets.nimbus.regions[9]: targets.nimbus.regions has only 2 elements",
        ),
    ],
)
def test_a_malformed_setting_is_a_usage_error(loading: Loader, setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        loading(GOOD, setting)
    assert str(caught.value) == message


def test_variables_are_filled_in_from_the_environment(loading: Loader) -> None:
    text = GOOD.replace('"1.2.0"', '"1.2.${BUILD}"').replace('"south"', '"${PLACE}"')
    pipeline = loading(text, BUILD="7", PLACE="east")
    assert pipeline.image.version == "1.2.7"
    assert pipeline.targets["nimbus"].locations() == ("north", "east")


def test_an_escaped_variable_stays_as_it_is(loading: Loader) -> None:
    step = "[[build.steps]]\nrun = 'echo $${HOME} ${x:-1} $y'\n"
    pipeline = loading(GOOD + step, HOME="/secret")
    assert pipeline.build.steps[0].run == "echo ${HOME} ${x:-1} $y"


def test_a_missing_variable_names_its_place(loading: Loader) -> None:
    text = GOOD.replace('"south"', '"${PLACE}"')
    assert loading.says(text) == (
        "targets.nimbus.regions[1]: the environment variable PLACE is not set",
        "export PLACE, or write $${PLACE} to keep the text as it is",
    )


def test_a_setting_over_a_missing_variable_makes_it_needless(loading: Loader) -> None:
    text = GOOD.replace('"1.2.0"', '"${VERSION}"')
    assert loading(text, "image.version=5").image.version == "5"


def test_a_value_from_the_environment_is_not_repeated_in_an_error(loading: Loader) -> None:
    text = GOOD.replace('"web"', '"${NAME}"') + '[release]\naudience = "x${AUDIENCE}"\n'
    error = loading.error(text, NAME="hunter2/!", AUDIENCE="s3cr3t")
    assert "hunter2" not in str(error) + error.hint
    assert "s3cr3t" not in str(error) + error.hint
    assert 'not "x${AUDIENCE}"' in str(error)


def test_a_value_from_the_environment_is_not_repeated_by_a_cloud(loading: Loader) -> None:
    text = GOOD.replace('"web"', '"web-${TOKEN}"')
    with pytest.raises(PipelineError) as caught:
        validate(loading.whole(text, TOKEN="abcdefghijklmnopqrst"))
    assert str(caught.value) == (
        "targets.nimbus.name: 'web-${TOKEN}-1.2.0' is longer than 20 characters"
    )


# -- every complaint in its words


WRONG: Mapping[str, tuple[str, str, str, str]] = {
    "unknown key": (
        'version = "1.2.0"',
        'version = "1.2.0"\nvresion = "1"',
        "image.vresion: unknown key",
        'did you mean "version"?',
    ),
    "unknown key, nothing near": (
        'version = "1.2.0"',
        'version = "1.2.0"\nqq = "1"',
        "image.qq: unknown key",
        "known are: name, version, arch, description, tags",
    ),
    "unknown section": (
        "[targets.cirrus]",
        "[relaese]\n[targets.cirrus]",
        "relaese: unknown section",
        'did you mean "release"?',
    ),
    "unknown key of a provider": (
        "[targets.cirrus]",
        "region = 1\n[targets.cirrus]",
        "targets.nimbus.region: unknown key",
        'did you mean "regions"?',
    ),
    "unknown nested key": (
        "[targets.cirrus]",
        "encryption = { key = 'a', kye = 'b' }\n[targets.cirrus]",
        "targets.nimbus.encryption.kye: unknown key",
        'did you mean "key"?',
    ),
    "unknown key in a step": (
        "[targets.cirrus]",
        "[[build.steps]]\ncopy = { form = 'a', from = 'b', to = '/c' }\n[targets.cirrus]",
        "build.steps[0].copy.form: unknown key",
        'did you mean "from"?',
    ),
    "unknown provider": (
        "[targets.cirrus]",
        "[targets.cirus]",
        "targets.cirus: no provider 'cirus'",
        'did you mean "cirrus"?',
    ),
    "missing key": (
        'name = "web"\n',
        "",
        "image.name: is required",
        "Name of the image; with the version it identifies a release in every cloud.",
    ),
    "missing key of a provider": (
        'project = "demo"\n',
        "",
        "targets.cirrus.project: is required",
        "The project that owns the image.",
    ),
    "number for text": (
        '"1.2.0"',
        "1.2",
        "image.version: must be a text, not the number 1.2",
        'write "1.2" in quotes',
    ),
    "date for text": (
        '"1.2.0"',
        "2024-01-31",
        "image.version: must be a text, not the date 2024-01-31",
        'write "2024-01-31" in quotes',
    ),
    "number in a list": (
        '"south"]',
        '"south", 5]',
        "targets.nimbus.regions[2]: must be a text, not the number 5",
        'write "5" in quotes',
    ),
    "text for list": (
        '["north", "south"]',
        '"north"',
        'targets.nimbus.regions: must be a list, not "north"',
        'write ["north"]',
    ),
    "text for table": (
        "source.debian.suite",
        "source.debian",
        'build.source.debian: must be a table, not "bookworm"',
        "",
    ),
    "text for number": (
        "[targets.cirrus]",
        'workers = "many"\n[targets.cirrus]',
        'targets.nimbus.workers: must be a whole number, not "many"',
        "",
    ),
    "number out of range": (
        "[targets.cirrus]",
        "workers = 0\n[targets.cirrus]",
        "targets.nimbus.workers: must be at least 1, not the number 0",
        "",
    ),
    "number for truth": (
        "[targets.cirrus]",
        "[release]\nall_or_nothing = 7\n[targets.cirrus]",
        "release.all_or_nothing: must be true or false, not the number 7",
        "",
    ),
    "not one of the words": (
        "[targets.cirrus]",
        'boot = "ueif"\n[targets.cirrus]',
        'targets.nimbus.boot: must be "bios" or "uefi", not "ueif"',
        'did you mean "uefi"?',
    ),
    "neither of two types": (
        "[targets.cirrus]",
        "[[build.steps]]\nrun = 5\n[targets.cirrus]",
        "build.steps[0].run: must be a text or a table, not the number 5",
        'write "5" in quotes',
    ),
    "the table of two types, wrong": (
        "[targets.cirrus]",
        "[[build.steps]]\nrun = { file = 5 }\n[targets.cirrus]",
        "build.steps[0].run.file: must be a text, not the number 5",
        'write "5" in quotes',
    ),
    "two things in a step": (
        "[targets.cirrus]",
        "[[build.steps]]\nrun = 'a'\npackages = []\n[targets.cirrus]",
        "build.steps[0]: give exactly one of packages, run, copy, ansible, reboot, check",
        "",
    ),
    "a duration in other words": (
        "[targets.cirrus]",
        "[[build.steps]]\nrun = { inline = 'a', timeout = 'soon' }\n[targets.cirrus]",
        'build.steps[0].run.timeout: write a duration such as "90s", "10min" or "2h", or seconds',
        "",
    ),
    "a secret without a place": (
        "[targets.cirrus]",
        "[[build.steps]]\nrun = 'a'\nsecrets = { TOKEN = {} }\n[targets.cirrus]",
        "build.steps[0].secrets.TOKEN: give exactly one of environment, file",
        "",
    ),
    "a variable's name": (
        "[targets.cirrus]",
        "[[build.steps]]\ncheck = { file = 'a', environment = { 'A-B' = 'c' } }\n[targets.cirrus]",
        "build.steps[0].check.environment.A-B: a variable's name has only letters, digits and _",
        "",
    ),
    "a key of Ansible's": (
        "[targets.cirrus]",
        "[[build.steps]]\nansible = { playbok = 'a', playbook = 'b' }\n[targets.cirrus]",
        "build.steps[0].ansible.playbok: unknown key",
        'did you mean "playbook"?',
    ),
    "pattern": (
        "[targets.cirrus]",
        "[[build.steps]]\ncopy = { from = 'a', to = 'b' }\n[targets.cirrus]",
        'build.steps[0].copy.to: "b" is not allowed',
        "Absolute path in the guest. A directory's contents go into it.",
    ),
    "pattern of an element": (
        '"south"]',
        '"South 1"]',
        'targets.nimbus.regions[1]: "South 1" is not allowed',
        "Regions, upload first.",
    ),
    "size in other words": (
        '"2GiB"',
        '"two"',
        'build.size: write a size such as "10GiB" or "2048MiB"',
        "",
    ),
    "size that is no amount": (
        '"2GiB"',
        "true",
        'build.size: write a size such as "10GiB" or "2048MiB"',
        "",
    ),
    "size below a mebibyte": (
        '"2GiB"',
        "4096",
        "build.size: must be at least 1MiB, not the number 4096",
        "",
    ),
    "bad image name": (
        '"web"',
        '"web/1"',
        "image.name: must be 1 to 100 letters, digits and . _ + - "
        "and start and end with a letter or digit",
        "",
    ),
    "shared with nobody": (
        "[targets.cirrus]",
        '[release]\naudience = "shared"\n[targets.cirrus]',
        'release.accounts: is required when audience is "shared"',
        'write for example accounts = { aws = ["123456789012"] }',
    ),
    "accounts without sharing": (
        "[targets.cirrus]",
        '[release]\naccounts = { nimbus = ["1"] }\n[targets.cirrus]',
        'release.accounts: has no meaning when audience is "private"',
        'write audience = "shared"',
    ),
    "accounts of no target": (
        "[targets.cirrus]",
        '[release]\naudience = "shared"\naccounts = { nimbsu = ["1"] }\n[targets.cirrus]',
        "release.accounts.nimbsu: there is no target 'nimbsu'",
        'did you mean "nimbus"?',
    ),
    "required from no target": (
        "[targets.cirrus]",
        '[release]\nrequired = ["nimbus", "nimbu"]\n[targets.cirrus]',
        "release.required[1]: there is no target 'nimbu'",
        'did you mean "nimbus"?',
    ),
    "required from no region": (
        "[targets.cirrus]",
        '[release]\nrequired = ["nimbus:nord"]\n[targets.cirrus]',
        "release.required[0]: nimbus does not go to 'nord'",
        'did you mean "north"?',
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_told_where_and_what(
    loading: Loader, case: tuple[str, str, str, str]
) -> None:
    good, bad, message, hint = case
    assert good in GOOD
    assert loading.says(GOOD.replace(good, bad, 1)) == (message, hint)


def test_a_missing_section_is_named(loading: Loader) -> None:
    text = without('[build]\nsize = "2GiB"\nsource.debian.suite = "bookworm"\n')
    assert loading.says(text) == ("build: the section [build] is missing", "")


def test_at_least_one_target_is_needed(loading: Loader) -> None:
    text = GOOD[: GOOD.index("[targets.nimbus]")]
    assert loading.says(text) == (
        "targets: give at least one target",
        "[targets.cirrus], [targets.nimbus]",
    )


def test_all_problems_are_reported_at_once(loading: Loader) -> None:
    text = GOOD.replace('name = "web"', "nmae = 5").replace('"demo"', "${X}")
    text = text.replace("${X}", "'${X}'").replace("[targets.nimbus]", "[targets.nimbsu]")
    assert str(loading.error(text)) == (
        "4 problems in pipeline.toml:\n"
        "  targets.cirrus.project: the environment variable X is not set "
        "(export X, or write $${X} to keep the text as it is)\n"
        "  image.name: is required "
        "(Name of the image; with the version it identifies a release in every cloud.)\n"
        '  image.nmae: unknown key (did you mean "name"?)\n'
        "  targets.nimbsu: no provider 'nimbsu' (did you mean \"nimbus\"?)"
    )


def test_a_syntax_error_has_line_and_column(loading: Loader) -> None:
    message, _ = loading.says('[image]\nname "web"\n')
    assert message == (
        f"{loading.path}, line 2, column 6: TOML: expected '=' after a key in a key/value pair"
    )


def test_a_syntax_error_at_the_end_has_line_and_column(loading: Loader) -> None:
    message, _ = loading.says('[image]\nname = "web')
    assert message == f"{loading.path}, line 2, column 12: TOML: unterminated string"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load(tmp_path / "no.toml", environ={})
    assert str(caught.value) == f"{tmp_path / 'no.toml'} does not exist"
    assert caught.value.hint == "give the path of a pipeline file"


def test_a_directory_is_no_pipeline_file(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load(tmp_path, environ={})
    assert str(caught.value) == f"{tmp_path} is a directory"
    assert caught.value.hint == f"did you mean {tmp_path / 'pipeline.toml'}?"


def test_a_binary_file_is_no_pipeline_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineError) as caught:
        load(tmp_path / "x", environ={})
    assert str(caught.value) == f"{tmp_path / 'x'} is not UTF-8 text (byte 0)"


# -- the clouds' rules, offline


def refused(pipeline: Pipeline, *only: str) -> tuple[str, str]:
    with pytest.raises(PipelineError) as caught:
        validate(pipeline, only)
    return str(caught.value), caught.value.hint


def test_a_good_pipeline_is_valid_in_every_cloud(loading: Loader) -> None:
    validate(loading.whole(GOOD))


def test_a_name_that_one_cloud_refuses_is_blamed_on_that_target(loading: Loader) -> None:
    pipeline = loading.whole(GOOD, "image.name=a-name-that-is-long")
    assert refused(pipeline) == (
        "targets.nimbus.name: 'a-name-that-is-long-1.2.0' is longer than 20 characters",
        "choose a shorter name",
    )
    validate(pipeline, ["cirrus"])


def test_an_unknown_field_in_a_name_template_is_refused(loading: Loader) -> None:
    assert refused(loading.whole(GOOD, "targets.cirrus.name={nmae}")) == (
        "targets.cirrus.name: cannot fill in the template '{nmae}': 'nmae'",
        "use only {name}, {version} and {arch}",
    )


def test_a_size_too_small_for_a_cloud_is_refused(loading: Loader) -> None:
    assert refused(loading.whole(GOOD, "build.size=512MiB")) == (
        "build.size: size too small: Nimbus takes disks from 1GiB",
        'write "1GiB" or more',
    )


def test_a_size_too_small_for_debian_is_refused_before_anything_is_installed(
    loading: Loader,
) -> None:
    pipeline = loading.whole(GOOD, "build.size=512MiB")
    assert refused(pipeline, "cirrus") == (
        "build.size: size too small: Debian takes at least 800MiB",
        'write "2GiB" or more',
    )
    validate(loading.whole(GOOD, "build.size=800MiB"), ["cirrus"])


def test_a_size_of_no_whole_gib_is_refused(loading: Loader) -> None:
    assert refused(loading.whole(GOOD, "build.size=2500MiB")) == (
        "build.size: not whole GiB: Nimbus takes multiples of 1GiB",
        'write "3GiB"',
    )


def test_a_size_too_large_for_a_cloud_is_refused(loading: Loader) -> None:
    assert refused(loading.whole(GOOD, "build.size=65GiB")) == (
        "build.size: size too large: Nimbus takes disks up to 64GiB",
        'write "64GiB" or less',
    )


def test_the_rules_of_all_clouds_are_reported_at_once(loading: Loader) -> None:
    pipeline = loading.whole(GOOD, "targets.cirrus.name={x}", "build.size=1MiB")
    message, _ = refused(pipeline)
    assert message.startswith("2 problems in pipeline.toml:\n  build.size: size too small")
    assert "  targets.cirrus.name: cannot fill in the template" in message


# -- options for other commands


def test_defaults_stand_in_for_missing_options_and_variables(loading: Loader) -> None:
    def defaults(kind: object) -> Mapping[str, object]:
        return kind.sandbox_options() if hasattr(kind, "sandbox_options") else {}

    for project in ("", 'project = "${PROJECT}"\n', 'project = "${P}"\nname = "${NAME}"\n'):
        loading.path.write_text(GOOD.replace('project = "demo"\n', project))
        pipeline = load(loading.path, environ={}, defaults=defaults)
        options = pipeline.flavours[0].targets["cirrus"].model_dump()
        assert options == {"project": "sandbox-project", "name": "{name}-{version}"}
    assert loading(GOOD).targets["cirrus"].model_dump()["project"] == "demo"


def test_options_alone_may_be_incomplete_but_not_wrong(loading: Loader) -> None:
    loading.path.write_text("[targets.cirrus]\nname = 'x'\n")
    found = load_options(loading.path, settings=["targets.nimbus.workers=3"], environ={})
    assert found == {"cirrus": {"name": "x"}, "nimbus": {"workers": 3}}
    with pytest.raises(PipelineError, match=r"^targets.cirrus.projekt: unknown key$"):
        load_options(None, settings=["targets.cirrus.projekt=x"], environ={})
