"""The verdict of a rehearsal: what was claimed of the image, and what showed it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from publisher.model import Noun


class Status(enum.StrEnum):
    """LINT is what lint alone can tell; not that it ran, or what it found."""

    PROVED = "proved by boot"
    FAILED = "failed"
    LINT = "by lint only"
    UNPROVABLE = "not provable here"
    UNREACHED = "not reached"

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        # in records of earlier versions
        return cls.LINT if value == "proved by lint only" else None


@dataclass(frozen=True, slots=True)
class Claim(Noun):
    """One line of a verdict. `evidence` is what was seen and where; `cause` and
    `fix` explain a failure, as far as they are known."""

    id: str
    title: str
    status: Status
    evidence: str = ""
    cause: str = ""
    fix: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Claim:
        names = {f.name for f in fields(cls)}
        given = {k: v for k, v in data.items() if k in names}
        return cls(**{**given, "status": Status(given["status"])})


@dataclass(frozen=True, slots=True)
class Rehearsal(Noun):
    """A boot of the disk as on one kind of machine of one cloud.

    `cloud` is the provider's name, `machine` the title of its Look; `phases` are
    the seconds of the first boot until each phase, `boots` the seconds of each
    boot, `consoles` what each printed, as far as it was kept.
    """

    cloud: str
    machine: str
    claims: tuple[Claim, ...]
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    boots: tuple[float, ...] = ()
    consoles: tuple[Path, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[Claim, ...]:
        return tuple(claim for claim in self.claims if claim.status is Status.FAILED)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rehearsal:
        return cls(
            cloud=data["cloud"],
            machine=data["machine"],
            claims=tuple(Claim.from_json(claim) for claim in data["claims"]),
            seconds=data["seconds"],
            phases=dict(data.get("phases", {})),
            boots=tuple(data.get("boots", ())),
            consoles=tuple(Path(path) for path in data.get("consoles", ())),
        )
