"""pipeline.toml ▶ Pipeline: strict, with the key path in every complaint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from publisher import provider, variants
from publisher.attesting import Attest
from publisher.complaints import complaints, expected_at
from publisher.errors import PipelineError
from publisher.flavours import (
    Flavour,
    ImageSection,
    Pipeline,
    Proofs,
    ReleaseSection,
    plain_name,
)
from publisher.linting import Lint
from publisher.provider import Options, Provider
from publisher.recipe import Recipe, bootable, local_file
from publisher.rehearsal import Rehearse
from publisher.rules import validate
from publisher.secret_gate import SecretGate
from publisher.settings import (
    Expansion,
    KeyPath,
    Problem,
    Setting,
    complain,
    override,
    parse_toml,
    read_file,
    read_toml,
    show_key,
    suggest,
)
from publisher.variants import Merged

__all__ = ["Flavour", "Pipeline", "load", "load_options", "load_rehearse", "validate"]

PROOFS: Mapping[str, type[BaseModel]] = {
    "lint": Lint,
    "secrets": SecretGate,
    "rehearse": Rehearse,
}
SECTIONS = ("image", "build", "targets", *PROOFS, "release")
ATTEST = "attest"
"""The section that no variant has: a release is signed as a whole."""
_M = TypeVar("_M", bound=BaseModel)
_VARIANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


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
    data = read_file(path)
    reading = _Reading(parse_toml(data, path), settings, environ, defaults)
    reading.refuse_unknown_sections()
    flavours = reading.flavours()
    attest = reading.attest(path.absolute().parent)
    reading.finish(path)
    return Pipeline(
        reading.data["image"]["name"],
        flavours[0].image.version,
        tuple(flavours),
        path.absolute(),
        reading.expansion.redact,
        attest=attest,
        digest=hashlib.sha256(data).hexdigest(),
    )


def load_options(
    path: Path | None,
    *,
    settings: Sequence[str] = (),
    environ: Mapping[str, str],
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """The [targets.*] sections alone, as data, for a command that completes them
    itself: options may be missing, but none may be unknown or wrong. Without a file
    those that are `known` hold, as far as no setting says otherwise."""
    content = {"targets": deepcopy(dict(known or {}))} if path is None else read_toml(path)
    reading = _Reading(content, settings, environ, _nothing)
    reading.refuse_unknown_sections()
    reading.targets(Merged(reading.data), partial=True)
    reading.finish(path or Path("the settings"))
    return {name: dict(section) for name, section in reading.data.get("targets", {}).items()}


def load_rehearse(*, settings: Sequence[str], environ: Mapping[str, str]) -> Rehearse:
    """The section [rehearse] of a command without a file: defaults and `settings`."""
    reading = _Reading({}, settings, environ, _nothing)
    made = reading.section(Merged(reading.data), "rehearse", Rehearse, required=False)
    reading.finish(Path("the settings"))
    return made or Rehearse()


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
        if defaults is _nothing:
            return
        common = self._fill_targets(data.get("targets"), defaults, ())
        for variant in _tables(data.get(variants.SECTION)).values():
            self._fill_targets(variant.get("targets"), defaults, common)

    def _fill_targets(
        self, targets: Any, defaults: Defaults, common: Collection[str]
    ) -> Collection[str]:
        """Complete sections, but add nothing to what goes over a section in `common`."""
        for name, section in _tables(targets).items():
            if name not in provider.names():
                continue
            kind = provider.load(name)
            for key in [key for key, value in section.items() if self.expansion.lacks(value)]:
                field = kind.options.model_fields.get(key)
                if field is not None and not field.is_required():
                    del section[key]
            for key, value in defaults(kind).items():
                absent = key not in section and name not in common
                if absent or self.expansion.lacks(section.get(key)):
                    section[key] = value
        return _tables(targets).keys()

    def refuse_unknown_sections(self) -> None:
        for name in self.data:
            known = (*SECTIONS, ATTEST, variants.SECTION)
            if name not in known:
                hint = suggest(name, known)
                self.problems.append(Problem(show_key([name]), "unknown section", hint))
        given = self.data.get(variants.SECTION, {})
        if not isinstance(given, dict):
            self.problems.append(Problem(variants.SECTION, "must be tables", "[variants.NAME]"))
            return
        for variant, content in given.items():
            key = (variants.SECTION, variant)
            if not _VARIANT.fullmatch(variant):
                self.problems.append(
                    Problem(
                        show_key(key),
                        "is no name for a variant",
                        "1 to 32 lower-case letters, digits and dashes between them",
                    )
                )
            if not isinstance(content, dict):
                self.problems.append(Problem(show_key(key), "must be a table"))
                continue
            for name in content:
                if name not in SECTIONS:
                    message, hint = "unknown section", suggest(name, SECTIONS)
                    self.problems.append(Problem(show_key((*key, name)), message, hint))

    # -- flavours

    def flavours(self) -> list[Flavour]:
        """One for each variant and architecture."""
        given = _tables(self.data.get(variants.SECTION))
        base = {name: value for name, value in self.data.items() if name != variants.SECTION}
        if not given:
            return self._flavours_of("", Merged(base))
        self._check_release(base, given)
        found = []
        for name, variant in given.items():
            merged = variants.merge(base, variant, name)
            self.problems += merged.problems
            found += self._flavours_of(name, merged)
        self._refuse_same_names(found)
        return found

    def _flavours_of(self, variant: str, merged: Merged) -> list[Flavour]:
        image = self.section(merged, "image", ImageSection)
        build = self.section(merged, "build", Recipe)
        targets = self.targets(merged)
        release = self.section(merged, "release", ReleaseSection, required=False)
        proofs = self._proofs(merged, targets or {})
        if targets is not None and release is not None:
            self.problems += _release_problems(release, targets, merged)
        if image is None or build is None or targets is None or release is None or proofs is None:
            return []
        own_name = ("image", "name") in merged.origins
        flavours = []
        for arch in image.archs:
            try:
                bootable(build.firmware, arch)
            except PipelineError as error:
                key = show_key(merged.origin(("build", "firmware")))
                self.problems.append(Problem(key, error.message, error.hint))
                continue
            label = "-".join(filter(None, (variant, arch if len(image.archs) > 1 else "")))
            told = label.removeprefix(variant).strip("-") if own_name else label
            name = "-".join(filter(None, (image.name, told)))
            flavours.append(
                Flavour(
                    variant,
                    arch,
                    label,
                    name,
                    image,
                    build,
                    targets,
                    release,
                    proofs,
                    merged.origins,
                )
            )
        return flavours

    def _proofs(self, merged: Merged, targets: Mapping[str, Options]) -> Proofs | None:
        lint = self.section(merged, "lint", Lint, required=False)
        secrets = self.section(merged, "secrets", SecretGate, required=False)
        rehearse = self.section(merged, "rehearse", Rehearse, required=False)
        if lint is None or secrets is None or rehearse is None:
            return None
        for number, check in enumerate(rehearse.checks):
            for index, name in enumerate(check.on):
                if name not in targets:
                    key = show_key(merged.origin(("rehearse", "checks", number, "on", index)))
                    hint = suggest(name, list(targets))
                    self.problems.append(Problem(key, f"there is no target {name!r}", hint))
        return Proofs(lint, secrets, rehearse)

    def _check_release(self, base: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """The name and the version are those of the release: no variant has others."""
        for variant, content in given.items():
            if "version" in _table(content.get("image")):
                key = show_key((variants.SECTION, variant, "image", "version"))
                message = "all images of a release have one version"
                self.problems.append(Problem(key, message, "write it into [image]"))
        try:
            plain_name(str(_table(base.get("image")).get("name", "")))
        except ValueError as error:
            self.problems.append(Problem("image.name", f"the release's name {error}"))

    def _refuse_same_names(self, found: Sequence[Flavour]) -> None:
        for number, flavour in enumerate(found):
            for other in found[:number]:
                if flavour.name == other.name or flavour.label == other.label:
                    self.problems.append(
                        Problem(
                            flavour.key("image.name"),
                            f"{other.label} and {flavour.label} are both named {flavour.name!r}",
                            "give one of them another name",
                        )
                    )

    # -- sections

    def attest(self, directory: Path) -> Attest | None:
        if ATTEST not in self.data:
            return None
        made = self.section(Merged(self.data), ATTEST, Attest)
        if made is None or made.is_remote:
            return made
        try:
            path = local_file(directory, made.key, f"{ATTEST}.key")
        except PipelineError as error:
            self.problems.append(Problem(error.key, error.message, error.hint))
            return None
        return made.model_copy(update={"key": str(path)})

    def section(
        self, merged: Merged, name: str, model: type[_M], *, required: bool = True
    ) -> _M | None:
        if name not in merged.data and required:
            self.problems.append(Problem(name, f"the section [{name}] is missing"))
            return None
        return self._validate((name,), model, merged.data.get(name, {}), merged)

    def targets(self, merged: Merged, *, partial: bool = False) -> dict[str, Options] | None:
        """The options of every target. `partial` lets required ones be missing."""
        sections = merged.data.get("targets", {})
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
                shown = show_key(merged.origin(key))
                self.problems.append(Problem(shown, f"no provider {name!r}", hint))
                continue
            kind = provider.load(name).options
            options = self._validate(key, kind, section, merged, partial=partial)
            if options is not None:
                found[name] = options
        return found if len(found) == len(sections) else None

    def _validate(
        self,
        prefix: KeyPath,
        model: type[_M],
        section: Any,
        merged: Merged,
        *,
        partial: bool = False,
    ) -> _M | None:
        try:
            return model.model_validate(section)
        except ValidationError as error:
            missing = {show_key(path) for path in self.expansion.missing}
            found = complaints(error, model, section, prefix, self.expansion, merged.origin)
            self.problems += [
                problem
                for problem in found
                if problem.key not in missing and not (partial and problem.message == "is required")
            ]
            return None

    def finish(self, path: Path) -> None:
        if self.problems:
            raise complain(list(dict.fromkeys(self.problems)), path.name)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    """Those of a table's values that are tables."""
    return {name: item for name, item in _table(value).items() if isinstance(item, dict)}


def _wants_text(path: KeyPath) -> bool:
    """Whether only a text can stand at a key path of the file."""
    if path[0] == variants.SECTION:
        return len(path) > 2 and _wants_text(variants.plain_path(path[2:]))
    sections: dict[str | int, Any] = {
        "image": ImageSection,
        "build": Recipe,
        "release": ReleaseSection,
    }
    sections.update(PROOFS)
    sections[ATTEST] = Attest
    if path[0] == "targets" and len(path) > 1 and path[1] in provider.names():
        kinds = expected_at(provider.load(str(path[1])).options, path[2:])
    else:
        kinds = expected_at(sections.get(path[0]), path[1:])
    return str in kinds and not {int, float, bool} & {k for k in kinds if isinstance(k, type)}


def _release_problems(
    release: ReleaseSection, targets: Mapping[str, Options], merged: Merged
) -> list[Problem]:
    """What does not fit together, although each part is right by itself."""
    problems: list[Problem] = []
    known = list(targets)

    def wrong(path: KeyPath, message: str, hint: str) -> None:
        problems.append(Problem(show_key(merged.origin(path)), message, hint))

    for name in release.accounts:
        if name not in targets:
            path = ("release", "accounts", name)
            wrong(path, f"there is no target {name!r}", suggest(name, known))
    if release.audience == "shared" and not any(release.accounts.values()):
        wrong(
            ("release", "accounts"),
            'is required when audience is "shared"',
            'write for example accounts = { aws = ["123456789012"] }',
        )
    if release.audience != "shared" and release.accounts:
        wrong(
            ("release", "accounts"),
            f'has no meaning when audience is "{release.audience}"',
            'write audience = "shared"',
        )
    for index, place in enumerate(release.required):
        name, _, region = place.partition(":")
        key = ("release", "required", index)
        if name not in targets:
            wrong(key, f"there is no target {name!r}", suggest(name, known))
        elif region and region not in (regions := targets[name].locations()):
            wrong(key, f"{name} does not go to {region!r}", suggest(region, regions))
    return problems
