"""Two small clouds, as plugins would bring them, for the tests of the file and the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from publisher import provider
from publisher.errors import CredentialsError, UsageError
from publisher.model import GIB, MIB, Finding, Severity, Spec
from publisher.provider import Options, Traits
from publisher.task import Task

if TYPE_CHECKING:
    import pytest


class Encryption(BaseModel):
    """How the image is encrypted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(description="Id of the key.")


class NimbusOptions(Options):
    """Publish to Nimbus."""

    regions: tuple[Annotated[str, Field(pattern="^[a-z]+$")], ...] = Field(
        ("north",), description="Regions, upload first."
    )
    encryption: Encryption | None = Field(None, description="Encrypt the image.")
    workers: int = Field(8, description="Parallel requests.", ge=1, le=64)
    boot: Literal["bios", "uefi"] = Field("uefi", description="How it boots.")

    def locations(self) -> tuple[str, ...]:
        return self.regions


class Nimbus:
    name: ClassVar[str] = "nimbus"
    traits: ClassVar[Traits] = Traits("Nimbus", "nimbus", "REGION/ID", GIB, 64 * GIB, True)
    options: ClassVar[type[Options]] = NimbusOptions

    def __init__(self, options: Options) -> None:
        self._options = options

    def validate(self, spec: Spec) -> Sequence[Finding]:
        name = self._options.fill(spec)
        if len(name) <= 20:
            return []
        return [
            Finding(
                "name-length",
                Severity.ERROR,
                f"{name!r} is longer than 20 characters",
                "choose a shorter name",
                "name",
            )
        ]

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        raise CredentialsError("no credentials found", provider="nimbus", hint="log in")


class CirrusOptions(Options):
    """Publish to Cirrus."""

    project: str = Field(description="The project that owns the image.")

    def locations(self) -> tuple[str, ...]:
        return ("global",)


class Cirrus:
    name: ClassVar[str] = "cirrus"
    traits: ClassVar[Traits] = Traits("Cirrus", "cirrus", "PROJECT/NAME", MIB, 1024 * GIB, False)
    options: ClassVar[type[Options]] = CirrusOptions

    def __init__(self, options: Options) -> None:
        self._options = options

    def validate(self, spec: Spec) -> Sequence[Finding]:
        return []

    def check(self, spec: Spec, regions: Sequence[str], task: Task) -> Sequence[Finding]:
        return []

    @classmethod
    def sandbox(cls, state: Path, port: int = 0) -> Any:
        raise NotImplementedError

    @classmethod
    def sandbox_options(cls) -> Mapping[str, object]:
        return {"project": "sandbox-project"}


CLOUDS: dict[str, Any] = {"cirrus": Cirrus, "nimbus": Nimbus}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the two clouds the only installed providers."""

    def load(name: str) -> Any:
        if name not in CLOUDS:
            raise UsageError(f"there is no provider {name!r}")
        return CLOUDS[name]

    monkeypatch.setattr(provider, "names", lambda: sorted(CLOUDS))
    monkeypatch.setattr(provider, "load", load)


GOOD = """\
[image]
name = "web"
version = "1.2.0"

[build]
size = "2GiB"
source.debian.suite = "bookworm"

[targets.nimbus]
regions = ["north", "south"]

[targets.cirrus]
project = "demo"
"""
