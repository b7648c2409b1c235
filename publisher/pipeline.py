"""pipeline.toml ▶ Pipeline: strict, frozen, with the key path in every complaint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from publisher import provider
from publisher.complaints import complaints, expected_at
from publisher.errors import PipelineError
from publisher.model import GIB, MIB, Arch, Audience, Severity, Spec
from publisher.provider import Options, Provider
from publisher.recipe import Recipe, Section
from publisher.settings import (
    Expansion,
    KeyPath,
    Problem,
    Setting,
    complain,
    override,
    read_toml,
    show_key,
    suggest,
)
from publisher.sources import DEBIAN_LEAST

SECTIONS = ("image", "build", "targets", "release")
_M = TypeVar("_M", bound=BaseModel)


def plain_name(value: str) -> str:
    """The value, if it may be the name or version of an image (and of a directory).

    Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,98}[A-Za-z0-9])?", value):
        raise ValueError(
            "must be 1 to 100 letters, digits and . _ + - and start and end with a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(plain_name), Field(min_length=1, max_length=100)]


class ImageSection(Section):
    """What the image is called everywhere."""

    name: Name = Field(
        description="Name of the image; with the version it identifies a release in every cloud."
    )
    version: Name = Field(description='Version of the image, such as "1.2.0".')
    arch: Arch = Field("x86_64", description="Processor architecture.")
    description: str = Field("", description="One line for the users of the image.")
    tags: Mapping[str, str] = Field(
        {}, description="Tags (labels) on every resource that is made in a cloud."
    )


class ReleaseSection(Section):
    """Who may use the images, and what must be ready before anyone can."""

    audience: Literal["private", "shared", "public"] = Field(
        "private",
        description="private: this account only; shared: the listed accounts; public: everyone.",
    )
    accounts: Mapping[str, tuple[str, ...]] = Field(
        {},
        description="For audience shared, by target: AWS account ids, Google Cloud principals "
        "such as user:name@example.com, Azure subscription ids. A target without accounts "
        "stays private.",
    )
    required: tuple[str, ...] = Field(
        (),
        description='What must be verified before anything is released: "aws" or '
        '"aws:us-east-1"; without it, everything.',
    )
    all_or_nothing: bool = Field(
        True,
        description="Release nothing unless everything required is ready, and close again what "
        "was opened when opening fails halfway.",
    )


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A valid pipeline file. `targets` are the options of each provider, in the
    file's order; paths in the recipe are relative to `directory`."""

    image: ImageSection
    build: Recipe
    targets: Mapping[str, Options]
    release: ReleaseSection
    path: Path
    redact: Callable[[str], str] = field(default=str, compare=False, repr=False)
    """Writes values that came from ${NAME} as ${NAME} again."""

    @property
    def directory(self) -> Path:
        return self.path.parent

    def spec(self) -> Spec:
        """What every provider is asked to publish; the digest is not known yet."""
        return Spec(
            name=self.image.name,
            version=self.image.version,
            arch=self.image.arch,
            firmware=self.build.firmware,
            size=self.build.size,
            description=self.image.description,
            tags=dict(self.image.tags),
        )

    def audience(self, name: str) -> Audience:
        """Who may use the images of one target."""
        if self.release.audience != "shared":
            return Audience(self.release.audience)
        accounts = self.release.accounts.get(name, ())
        return Audience("shared", accounts) if accounts else Audience("private")


Defaults = Callable[[type[Provider]], Mapping[str, object]]


def _nothing(_: type[Provider]) -> Mapping[str, object]:
    return {}


def load(
    path: Path,
    *,
    settings: Sequence[str] = (),
    environ: Mapping[str, str],
    defaults: Defaults = _nothing,
) -> Pipeline:
    """Read and check a pipeline file.

    `settings` are "key.path=value" texts that go over the file's values. With
    `defaults`, target options that take a variable that is not set count as
    left out, and `defaults` gives values for what is left out. Raises
    PipelineError with everything that is wrong, UsageError for a malformed
    setting.
    """
    reading = _Reading(read_toml(path), settings, environ, defaults)
    reading.refuse_unknown_sections()
    image = reading.section("image", ImageSection)
    build = reading.section("build", Recipe)
    targets = reading.targets()
    release = reading.section("release", ReleaseSection, required=False)
    if targets is not None and release is not None:
        reading.problems += _release_problems(release, targets)
    reading.finish(path)
    assert image is not None
    assert build is not None
    assert targets is not None
    assert release is not None
    return Pipeline(image, build, targets, release, path.absolute(), reading.expansion.redact)


def load_options(
    path: Path | None, *, settings: Sequence[str] = (), environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The [targets.*] sections alone, as data, for a command that completes them
    itself: options may be missing, but none may be unknown or wrong."""
    content = read_toml(path) if path is not None else {}
    reading = _Reading(content, settings, environ, _nothing)
    reading.refuse_unknown_sections()
    reading.targets(partial=True)
    reading.finish(path or Path("the settings"))
    return {name: dict(section) for name, section in reading.data.get("targets", {}).items()}


class _Reading:
    """One file on its way from text to sections, with all its problems."""

    def __init__(
        self,
        data: dict[str, Any],
        settings: Sequence[str],
        environ: Mapping[str, str],
        defaults: Defaults,
    ) -> None:
        self.problems: list[Problem] = []
        self.expansion = Expansion(environ)
        override(data, [Setting.parse(text) for text in settings], _wants_text)
        self._add_defaults(data, defaults)
        self.data: dict[str, Any] = self.expansion.fill(data)
        self.problems += self.expansion.missing.values()

    def _add_defaults(self, data: dict[str, Any], defaults: Defaults) -> None:
        targets = data.get("targets")
        if defaults is _nothing or not isinstance(targets, dict):
            return
        for name, section in targets.items():
            if not isinstance(section, dict) or name not in provider.names():
                continue
            kind = provider.load(name)
            for key in [key for key, value in section.items() if self.expansion.lacks(value)]:
                field = kind.options.model_fields.get(key)
                if field is not None and not field.is_required():
                    del section[key]
            for key, value in defaults(kind).items():
                if key not in section or self.expansion.lacks(section[key]):
                    section[key] = value

    def refuse_unknown_sections(self) -> None:
        for name in self.data:
            if name not in SECTIONS:
                hint = suggest(name, SECTIONS)
                self.problems.append(Problem(show_key([name]), "unknown section", hint))

    def section(self, name: str, model: type[_M], *, required: bool = True) -> _M | None:
        if name not in self.data and required:
            self.problems.append(Problem(name, f"the section [{name}] is missing"))
            return None
        return self._validate((name,), model, self.data.get(name, {}))

    def targets(self, *, partial: bool = False) -> dict[str, Options] | None:
        """The options of every target. `partial` lets required ones be missing."""
        sections = self.data.get("targets", {})
        known = provider.names()
        if not isinstance(sections, dict) or not (sections or partial):
            listed = ", ".join(f"[targets.{name}]" for name in known) or "none installed"
            self.problems.append(Problem("targets", "give at least one target", listed))
            return None
        found: dict[str, Options] = {}
        for name, section in sections.items():
            key = ("targets", name)
            if name not in known:
                hint = suggest(name, known) or "no provider is installed"
                self.problems.append(Problem(show_key(key), f"no provider {name!r}", hint))
                continue
            options = self._validate(key, provider.load(name).options, section, partial=partial)
            if options is not None:
                found[name] = options
        return found if len(found) == len(sections) else None

    def _validate(
        self, prefix: KeyPath, model: type[_M], section: Any, *, partial: bool = False
    ) -> _M | None:
        try:
            return model.model_validate(section)
        except ValidationError as error:
            missing = {show_key(path) for path in self.expansion.missing}
            self.problems += [
                problem
                for problem in complaints(error, model, section, prefix, self.expansion)
                if problem.key not in missing and not (partial and problem.message == "is required")
            ]
            return None

    def finish(self, path: Path) -> None:
        if self.problems:
            raise complain(self.problems, path.name)


def _wants_text(path: KeyPath) -> bool:
    """Whether only a text can stand at a key path of the file."""
    sections: dict[str | int, Any] = {
        "image": ImageSection,
        "build": Recipe,
        "release": ReleaseSection,
    }
    if path[0] == "targets" and len(path) > 1 and path[1] in provider.names():
        kinds = expected_at(provider.load(str(path[1])).options, path[2:])
    else:
        kinds = expected_at(sections.get(path[0]), path[1:])
    return str in kinds and not {int, float, bool} & {k for k in kinds if isinstance(k, type)}


def _release_problems(release: ReleaseSection, targets: Mapping[str, Options]) -> list[Problem]:
    problems: list[Problem] = []
    known = list(targets)
    for name in release.accounts:
        if name not in targets:
            key = show_key(["release", "accounts", name])
            problems.append(Problem(key, f"there is no target {name!r}", suggest(name, known)))
    if release.audience == "shared" and not any(release.accounts.values()):
        problems.append(
            Problem(
                "release.accounts",
                'is required when audience is "shared"',
                'write for example accounts = { aws = ["123456789012"] }',
            )
        )
    if release.audience != "shared" and release.accounts:
        problems.append(
            Problem(
                "release.accounts",
                f'has no meaning when audience is "{release.audience}"',
                'write audience = "shared"',
            )
        )
    for index, place in enumerate(release.required):
        name, _, region = place.partition(":")
        key = f"release.required[{index}]"
        if name not in targets:
            problems.append(Problem(key, f"there is no target {name!r}", suggest(name, known)))
        elif region and region not in targets[name].locations():
            regions = targets[name].locations()
            problems.append(
                Problem(key, f"{name} does not go to {region!r}", suggest(region, regions))
            )
    return problems


def validate(pipeline: Pipeline, only: Sequence[str] = ()) -> None:
    """Ask every target offline and at once whether its cloud would take this.

    `only` narrows it to some targets. Raises PipelineError with everything
    that a cloud's rules refuse.
    """
    problems: list[Problem] = []
    spec = pipeline.spec()
    for name, options in pipeline.targets.items():
        if only and name not in only:
            continue
        kind = provider.load(name)
        wrong_size = _size_problems(spec.size, kind.traits)
        problems += wrong_size
        try:
            options.fill(spec)
            findings = kind(options).validate(replace(spec, size=0) if wrong_size else spec)
        except PipelineError as error:
            key = f"targets.{name}.{error.key or 'name'}"
            problems.append(Problem(key, error.message, error.hint))
            continue
        problems += [
            Problem(
                f"targets.{name}.{finding.key}" if finding.key else f"targets.{name}",
                pipeline.redact(finding.evidence),
                finding.fix,
            )
            for finding in findings
            if finding.severity is Severity.ERROR
        ]
    debian = pipeline.build.source.debian
    if debian and spec.size < DEBIAN_LEAST and not any(p.key == "build.size" for p in problems):
        message = f"size too small: Debian takes at least {show_size(DEBIAN_LEAST)}"
        problems.append(Problem("build.size", message, 'write "2GiB" or more'))
    if problems:
        raise complain(list(dict.fromkeys(problems)), pipeline.path.name)


def _size_problems(size: int, traits: provider.Traits) -> list[Problem]:
    title, multiple, largest = traits.title, traits.size_multiple, traits.size_max
    if size < multiple:
        message = f"size too small: {title} takes disks from {show_size(multiple)}"
        return [Problem("build.size", message, f'write "{show_size(multiple)}" or more')]
    if size > largest:
        message = f"size too large: {title} takes disks up to {show_size(largest)}"
        return [Problem("build.size", message, f'write "{show_size(largest)}" or less')]
    if size % multiple:
        unit = "GiB" if multiple == GIB else show_size(multiple)
        message = f"not whole {unit}: {title} takes multiples of {show_size(multiple)}"
        above = (size // multiple + 1) * multiple
        return [Problem("build.size", message, f'write "{show_size(above)}"')]
    return []


def show_size(size: int) -> str:
    """A size as it is written in a pipeline file."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}"
