"""[variants.NAME] and lists of architectures: which images a file stands for, and what is
said about a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from publisher.errors import PipelineError, UsageError
from publisher.model import GIB, Audience
from publisher.pipeline import Flavour, Pipeline, load, validate
from publisher.plan import plan
from tests.unit.pipeline_fakes import GOOD, NimbusOptions, install


@pytest.fixture(autouse=True)
def _clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


BASE = (
    GOOD
    + """
[[build.steps]]
run = "one"

[[build.steps]]
run = "two"
"""
)
THREE = """
[variants.dev]
image.description = "for developers"
image.tags = { debug = "yes" }
build.extra_steps = [{ packages = ["gdb"] }, { run = "passwd -d root" }]
targets.cirrus = false
targets.nimbus.regions = ["north"]

[variants.test]

[variants.prod]
image.arch = ["x86_64", "aarch64"]
build.size = "4GiB"
build.steps = [{ run = "harden" }]
"""


class Loader:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "pipeline.toml"

    def __call__(self, text: str, *settings: str, **environ: str) -> Pipeline:
        self.path.write_text(text)
        return load(self.path, settings=settings, environ=environ)

    def named(self, text: str, *settings: str) -> dict[str, Flavour]:
        return {flavour.label: flavour for flavour in self(text, *settings).flavours}

    def says(self, text: str, *settings: str, **environ: str) -> str:
        with pytest.raises(PipelineError) as caught:
            validate(self(text, *settings, **environ))
        hint = f" ({caught.value.hint})" if caught.value.hint else ""
        return f"{caught.value}{hint}"


@pytest.fixture
def loading(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def scripts(flavour: Flavour) -> list[object]:
    return [step.run or step.packages for step in flavour.build.steps]


# -- which images there are


def test_a_file_without_variants_is_one_image_with_no_label(loading: Loader) -> None:
    (only,) = loading(GOOD).flavours
    assert (only.label, only.variant, only.name) == ("", "", "web")


def test_each_variant_and_architecture_is_an_image_of_its_own(loading: Loader) -> None:
    pipeline = loading(BASE + THREE)
    assert (pipeline.name, pipeline.version) == ("web", "1.2.0")
    assert [(f.label, f.name, f.variant, f.arch) for f in pipeline.flavours] == [
        ("dev", "web-dev", "dev", "x86_64"),
        ("test", "web-test", "test", "x86_64"),
        ("prod-x86_64", "web-prod-x86_64", "prod", "x86_64"),
        ("prod-aarch64", "web-prod-aarch64", "prod", "aarch64"),
    ]


def test_a_list_of_architectures_needs_no_variant(loading: Loader) -> None:
    pipeline = loading(GOOD, 'image.arch=["x86_64", "aarch64"]')
    assert [f.name for f in pipeline.flavours] == ["web-x86_64", "web-aarch64"]
    assert [f.spec().firmware for f in pipeline.flavours] == ["bios+uefi", "uefi"]
    assert [f.name for f in loading(GOOD, 'image.arch=["aarch64"]').flavours] == ["web"]


def test_tables_are_merged_and_lists_are_replaced(loading: Loader) -> None:
    found = loading.named(BASE.replace('"1.2.0"', '"1.2.0"\ntags = { team = "a" }') + THREE)
    dev, prod = found["dev"], found["prod-aarch64"]
    assert dev.spec().tags == {"team": "a", "debug": "yes"}
    assert dev.spec().description == "for developers"
    assert dev.targets["nimbus"].locations() == ("north",)
    assert prod.targets["nimbus"].locations() == ("north", "south")
    assert (dev.build.size, prod.build.size) == (2 * GIB, 4 * GIB)
    assert scripts(found["test"]) == ["one", "two"]
    assert scripts(prod) == ["harden"]


def test_extra_steps_come_after_the_others(loading: Loader) -> None:
    assert scripts(loading.named(BASE + THREE)["dev"]) == [
        "one",
        "two",
        ("gdb",),
        "passwd -d root",
    ]
    both = '[variants.dev.build]\nsteps = [{ run = "a" }]\nextra_steps = [{ run = "b" }]\n'
    assert scripts(loading.named(BASE + both)["dev"]) == ["a", "b"]


def test_a_target_set_to_false_is_left_out_with_all_that_the_release_says_of_it(
    loading: Loader,
) -> None:
    release = (
        '[release]\naudience = "shared"\nrequired = ["nimbus", "cirrus"]\n'
        'accounts = { nimbus = ["1"], cirrus = ["2"] }\n'
    )
    found = loading.named(BASE + release + THREE)
    assert list(found["dev"].targets) == ["nimbus"]
    assert found["dev"].release.required == ("nimbus",)
    assert found["dev"].release.accounts == {"nimbus": ("1",)}
    assert found["test"].release.accounts == {"nimbus": ("1",), "cirrus": ("2",)}


def test_a_private_variant_does_not_take_over_the_accounts(loading: Loader) -> None:
    release = '[release]\naudience = "shared"\naccounts = { nimbus = ["1"] }\n'
    variants = '[variants.dev.release]\naudience = "private"\n[variants.prod]\n'
    found = loading.named(BASE + release + variants)
    assert found["dev"].audience("nimbus") == Audience("private")
    assert found["prod"].audience("nimbus") == Audience("shared", ("1",))


def test_another_kind_of_source_replaces_the_whole_source(loading: Loader) -> None:
    variants = (
        '[variants.disk.build.source.disk]\nfile = "a.qcow2"\n'
        '[variants.newer.build.source.debian]\nsuite = "trixie"\n'
    )
    mirror = BASE.replace(
        'source.debian.suite = "bookworm"',
        'source.debian.suite = "bookworm"\nsource.debian.components = ["main", "contrib"]',
    )
    found = loading.named(mirror + variants)
    assert found["disk"].build.source.debian is None
    newer = found["newer"].build.source.debian
    assert newer is not None
    assert (newer.suite, newer.components) == ("trixie", ("main", "contrib"))


def test_a_variant_may_have_a_name_of_its_own(loading: Loader) -> None:
    variants = '[variants.lab.image]\nname = "web-lab-only"\narch = ["x86_64", "aarch64"]\n'
    assert [f.name for f in loading(GOOD + variants).flavours] == [
        "web-lab-only-x86_64",
        "web-lab-only-aarch64",
    ]


def test_the_base_may_be_incomplete_where_each_variant_completes_it(loading: Loader) -> None:
    text = GOOD.replace('size = "2GiB"\n', "")
    small, large = "[variants.s.build]\nsize = '2GiB'\n", "[variants.l.build]\nsize = '9GiB'\n"
    assert [f.build.size // GIB for f in loading(text + small + large).flavours] == [2, 9]
    assert loading.says(text + small + "[variants.l]\n").startswith("build.size: is required")


def test_a_setting_goes_over_a_variant(loading: Loader) -> None:
    found = loading.named(
        BASE + THREE,
        "variants.dev.build.size=5GiB",
        "variants.dev.image.tags.build=1.10",
        "variants.dev.build.extra_steps[1].run=true",
        "variants.new.image.description=x",
    )
    assert found["dev"].build.size == 5 * GIB
    assert found["dev"].spec().tags["build"] == "1.10"
    assert scripts(found["dev"])[-1] == "true"
    assert found["new"].spec().description == "x"


def test_a_template_with_the_architecture_does_not_name_it_twice(loading: Loader) -> None:
    pipeline = loading(
        GOOD, 'image.arch=["x86_64", "aarch64"]', "targets.cirrus.name={name}-{version}-{arch}"
    )
    names = [f.targets["cirrus"].fill(f.spec()) for f in pipeline.flavours]
    assert names == ["web-1.2.0-x86_64", "web-1.2.0-aarch64"]
    names = [f.targets["nimbus"].fill(f.spec()) for f in pipeline.flavours]
    assert names == ["web-x86_64-1.2.0", "web-aarch64-1.2.0"]


def test_defaults_of_a_stand_in_do_not_go_over_what_the_file_says(loading: Loader) -> None:
    def defaults(kind: object) -> Mapping[str, object]:
        return kind.sandbox_options() if hasattr(kind, "sandbox_options") else {}

    loading.path.write_text(
        GOOD + '[variants.a.targets.cirrus]\nname = "x-{name}"\n'
        '[variants.b.targets.cirrus]\nproject = "${UNSET}"\n'
    )
    a, b = load(loading.path, environ={}, defaults=defaults).flavours
    assert a.targets["cirrus"].model_dump()["project"] == "demo"
    assert b.targets["cirrus"].model_dump()["project"] == "sandbox-project"


# -- what is wrong, and where


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        (
            '[variants.dev.imgae]\nname = "x"\n',
            'variants.dev.imgae: unknown section (did you mean "image"?)',
        ),
        (
            '[variants.dev.build]\nsteps = [{ run = "a" }, { run = "b" }, { run = 3 }]\n',
            "variants.dev.build.steps[2].run: must be a text or a table, not the number 3 "
            '(write "3" in quotes)',
        ),
        (
            '[variants.dev.build]\nextra_steps = [{ pakages = ["gdb"] }]\n',
            'variants.dev.build.extra_steps[0].pakages: unknown key (did you mean "packages"?)',
        ),
        (
            '[variants.dev.build]\nextra_step = [{ packages = ["gdb"] }]\n',
            'variants.dev.build.extra_step: unknown key (did you mean "extra_steps"?)',
        ),
        (
            '[variants.dev.build]\nextra_steps = "gdb"\n',
            "variants.dev.build.extra_steps: must be a list of tables",
        ),
        (
            "[variants.dev.targets.nimbus]\nworkers = 100\n",
            "variants.dev.targets.nimbus.workers: must be at most 64, not the number 100",
        ),
        (
            "[variants.dev.targets]\ncirus = false\n",
            "variants.dev.targets.cirus: there is no target 'cirus' to leave out "
            '(did you mean "cirrus"?)',
        ),
        (
            "[variants.dev.targets.cumulus]\nx = 1\n",
            "variants.dev.targets.cumulus: no provider 'cumulus' (known are: cirrus, nimbus)",
        ),
        (
            '[variants.dev.release]\nrequired = ["nimbus:east"]\n',
            "variants.dev.release.required[0]: nimbus does not go to 'east' "
            "(known are: north, south)",
        ),
        (
            '[variants.dev.image]\nversion = "2"\n',
            "variants.dev.image.version: all images of a release have one version "
            "(write it into [image])",
        ),
        (
            '[variants.dev.image]\narch = "arm64"\n',
            'variants.dev.image.arch: must be "x86_64" or "aarch64", not "arm64" '
            '(did you mean "aarch64"?)',
        ),
        (
            '[variants.Dev]\nimage.description = "x"\n',
            "variants.Dev: is no name for a variant (1 to 32 lower-case letters, digits and "
            "dashes between them)",
        ),
        (
            '[variants.dev]\n[variants.b.image]\nname = "web-dev"\n',
            "variants.b.image.name: dev and b are both named 'web-dev' (give one of them "
            "another name)",
        ),
        (
            "[variants.dev.build]\nsize = '2500MiB'\n",
            'variants.dev.build.size: not whole GiB: Nimbus takes multiples of 1GiB (write "3GiB")',
        ),
        (
            '[variants.dev.targets.nimbus]\nname = "a-name-that-is-too-long-for-it"\n',
            "variants.dev.targets.nimbus.name: 'a-name-that-is-too-long-for-it' is longer than "
            "20 characters (choose a shorter name)",
        ),
        (
            '[variants.dev.targets.cirrus]\nname = "same"\n'
            '[variants.b.targets.cirrus]\nname = "same"\n',
            "variants.b.targets.cirrus.name: dev and b would both be 'global/same' (write {name} "
            "into it, which differs between them, or give one of them another)",
        ),
        (
            '[variants.dev.image]\narch = ["aarch64"]\n[variants.dev.build]\nfirmware = "bios"\n',
            'variants.dev.build.firmware: aarch64 has no BIOS (write firmware = "uefi")',
        ),
        ("[variants]\ndev = 3\n", "variants.dev: must be a table"),
    ],
)
def test_a_complaint_names_the_key_of_the_variant(
    loading: Loader, variants: str, said: str
) -> None:
    assert loading.says(GOOD + variants) == said


def test_a_complaint_about_the_base_is_made_once(loading: Loader) -> None:
    text = GOOD.replace('size = "2GiB"', 'size = "2GB"') + THREE
    assert loading.says(text) == 'build.size: write a size such as "10GiB" or "2048MiB"'


def test_a_name_that_all_variants_share_is_refused_where_it_is_written(loading: Loader) -> None:
    text = GOOD.replace('project = "demo"', 'project = "demo"\nname = "web"')
    assert loading.says(text + "[variants.a]\n[variants.b]\n").startswith(
        "targets.cirrus.name: a and b would both be 'global/web'"
    )


def test_images_that_a_cloud_opens_together_have_one_audience(
    loading: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NimbusOptions, "opened_as", lambda options: options.regions[0])
    private = '[variants.dev.release]\naudience = "private"\n'
    text = GOOD + '[release]\naudience = "public"\n' + private + "[variants.prod]\n"
    assert loading.says(text) == (
        "targets.nimbus: nimbus opens north as a whole: dev would be private and prod public "
        "(give each audience a place of its own, or leave the target out of one: "
        "targets.nimbus = false)"
    )
    validate(loading(text, "variants.dev.targets.nimbus.regions=['south']"))
    validate(loading(text, "variants.dev.targets.nimbus=false"))
    validate(loading(text), ["cirrus"])


def test_the_same_name_in_different_regions_is_no_conflict(loading: Loader) -> None:
    text = "".join(
        f'[variants.{name}.targets.nimbus]\nname = "web"\nregions = ["{name}"]\n'
        for name in ("east", "west")
    )
    validate(loading(GOOD + text))


def test_a_value_from_the_environment_is_not_repeated(loading: Loader) -> None:
    text = '[variants.dev.targets.nimbus]\nboot = "${TOKEN}"\n'
    said = loading.says(GOOD + text, TOKEN="hunter2")
    assert said == ('variants.dev.targets.nimbus.boot: must be "bios" or "uefi", not "${TOKEN}"')


def test_a_missing_file_of_an_extra_step_is_blamed_on_it(loading: Loader) -> None:
    text = '[variants.dev.build]\nextra_steps = [{ run = { file = "nowhere.sh" } }]\n'
    with pytest.raises(PipelineError) as caught:
        plan(loading(BASE + text))
    assert caught.value.key == "variants.dev.build.extra_steps[0].run.file"


# -- choosing some


def test_a_choice_keeps_the_names_that_the_file_gives(loading: Loader) -> None:
    whole = loading(BASE + THREE)
    chosen = whole.choose(["prod"], ["aarch64"])
    assert [flavour.name for flavour in chosen.flavours] == ["web-prod-aarch64"]
    assert chosen.left_out == ("dev", "test", "prod-x86_64")
    assert len(whole.choose(["dev", "test"], []).flavours) == 2
    assert whole.choose([], []).flavours == whole.flavours


@pytest.mark.parametrize(
    ("variants", "archs", "said", "hint"),
    [
        (["prd"], [], "there is no variant 'prd'", 'did you mean "prod"?'),
        ([], ["arm64"], "no image is for 'arm64'", 'did you mean "aarch64"?'),
        (["dev"], ["aarch64"], "nothing is left", "it has dev, test, prod-x86_64, prod-aarch64"),
    ],
)
def test_an_unknown_choice_is_refused(
    loading: Loader, variants: list[str], archs: list[str], said: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        loading(BASE + THREE).choose(variants, archs)
    assert caught.value.hint == hint


def test_a_variant_of_a_file_without_any_is_refused(loading: Loader) -> None:
    with pytest.raises(UsageError, match="there is no variant 'dev'") as caught:
        loading(GOOD).choose(["dev"], [])
    assert caught.value.hint == "the file has no [variants.NAME]"
