"""What a pipeline file says, valid and frozen: a release, and its images, one a flavour."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from publisher import variants
from publisher.attesting import Attest
from publisher.errors import UsageError
from publisher.linting import Lint
from publisher.model import Arch, Audience, Spec
from publisher.provider import Options
from publisher.recipe import Recipe, bootable
from publisher.rehearsal import Rehearse
from publisher.secret_gate import SecretGate
from publisher.section import Section
from publisher.settings import KeyPath, parse_key, show_key, suggest


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
    arch: Arch | Annotated[tuple[Arch, ...], Field(min_length=1)] = Field(
        "x86_64", description="Processor architecture, or a list of them: one image each."
    )
    description: str = Field("", description="One line for the users of the image.")
    tags: Mapping[str, str] = Field(
        {}, description="Tags (labels) on every resource that is made in a cloud."
    )

    @property
    def archs(self) -> tuple[Arch, ...]:
        return tuple(dict.fromkeys((self.arch,) if isinstance(self.arch, str) else self.arch))


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
class Proofs:
    """What is to be shown of a disk before a byte of it is uploaded."""

    lint: Lint = field(default_factory=Lint)
    secrets: SecretGate = field(default_factory=SecretGate)
    rehearse: Rehearse = field(default_factory=Rehearse)


@dataclass(frozen=True, slots=True)
class Flavour:
    """One image of a pipeline: a variant for an architecture. `targets` are the
    options of each provider, in the file's order.

    `name` is what the image is called; `label` tells it from the pipeline's other
    ones, such as "prod-aarch64", and is empty where the file can't have others.
    """

    variant: str
    arch: Arch
    label: str
    name: str
    image: ImageSection
    build: Recipe
    targets: Mapping[str, Options]
    release: ReleaseSection
    proofs: Proofs = field(default_factory=Proofs)
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict, compare=False, repr=False)

    def key(self, text: str) -> str:
        """Where in the file stands what has this key path in a file without variants."""
        path = parse_key(text)
        return show_key(variants.origin(self.origins, path)) if path else text

    def spec(self) -> Spec:
        """What every provider is asked to publish; the digest is not known yet."""
        return Spec(
            name=self.name,
            version=self.image.version,
            arch=self.arch,
            firmware=bootable(self.build.firmware, self.arch),
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


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A valid pipeline file: one release with an image for each flavour. Paths in
    recipes are relative to `directory`."""

    name: str
    version: str
    flavours: tuple[Flavour, ...]
    path: Path
    redact: Callable[[str], str] = field(default=str, compare=False, repr=False)
    """Writes values that came from ${NAME} as ${NAME} again."""
    left_out: tuple[str, ...] = ()
    """The labels of the file's other flavours, after `choose`."""
    attest: Attest | None = None
    digest: str = field(default="", compare=False)
    """The file's sha256."""

    @property
    def directory(self) -> Path:
        return self.path.parent

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of all targets, in the file's order."""
        return tuple(dict.fromkeys(name for flavour in self.flavours for name in flavour.targets))

    @property
    def archs(self) -> tuple[Arch, ...]:
        return tuple(dict.fromkeys(flavour.arch for flavour in self.flavours))

    def choose(self, chosen: Sequence[str], archs: Sequence[str]) -> Pipeline:
        """The pipeline with only these variants and architectures; none means all.

        Raises UsageError for unknown ones and where nothing is left."""
        known = [name for name in dict.fromkeys(f.variant for f in self.flavours) if name]
        for name in chosen:
            if name not in known:
                hint = suggest(name, known) or "the file has no [variants.NAME]"
                raise UsageError(f"there is no variant {name!r}", key="--variant", hint=hint)
        for name in archs:
            if name not in self.archs:
                hint = suggest(name, self.archs)
                raise UsageError(f"no image is for {name!r}", key="--arch", hint=hint)
        kept = tuple(
            flavour
            for flavour in self.flavours
            if (not chosen or flavour.variant in chosen) and (not archs or flavour.arch in archs)
        )
        if not kept:
            labels = ", ".join(flavour.label for flavour in self.flavours)
            raise UsageError("nothing is left of the pipeline", hint=f"it has {labels}")
        others = tuple(f.label for f in self.flavours if f not in kept)
        return replace(self, flavours=kept, left_out=others)
