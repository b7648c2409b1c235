"""Typed progress events. Running code emits them; the CLI's renderers subscribe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from publisher.model import Finding, Image, Noun

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class RunStarted(Noun):
    """`steps` are (step id, lane) in the order of the plan."""

    run: str
    title: str
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StepStarted(Noun):
    step: str
    lane: str


@dataclass(frozen=True, slots=True)
class StepReused(Noun):
    """An earlier outcome still holds; `reason` says which and why."""

    step: str
    lane: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepPhase(Noun):
    """What a step is doing now, such as "waiting for snapshot snap-1"."""

    step: str
    lane: str
    phase: str


@dataclass(frozen=True, slots=True)
class StepProgress(Noun):
    """`done` of `total` bytes (or items); `total` 0 means unknown."""

    step: str
    lane: str
    done: int
    total: int
    unit: Literal["bytes", "items"] = "bytes"


@dataclass(frozen=True, slots=True)
class StepOutput(Noun):
    """A line that a tool or the guest printed."""

    step: str
    lane: str
    line: str


@dataclass(frozen=True, slots=True)
class StepRetry(Noun):
    """A transient failure that will be tried again after `delay` seconds."""

    step: str
    lane: str
    error: str
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class StepFinding(Noun):
    step: str
    lane: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class StepFinished(Noun):
    step: str
    lane: str
    seconds: float
    summary: str = ""


@dataclass(frozen=True, slots=True)
class DiskBuilt(Noun):
    """A sealed disk is in the store; `data` are its bytes outside holes, `by_hand`
    the build steps before which its machine was open to changes by hand."""

    step: str
    lane: str
    path: str
    sha256: str
    size: int
    data: int
    by_hand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepFailed(Noun):
    step: str
    lane: str
    seconds: float
    error: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Note(Noun):
    """A message that belongs to no step."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class RunFinished(Noun):
    run: str
    seconds: float
    images: tuple[Image, ...]
    manifest: str = ""
    reused: bool = False
    """True when nothing had to be done."""


Event: TypeAlias = (
    RunStarted
    | StepStarted
    | StepReused
    | StepPhase
    | StepProgress
    | StepOutput
    | StepRetry
    | StepFinding
    | StepFinished
    | DiskBuilt
    | StepFailed
    | Note
    | RunFinished
)
Sink: TypeAlias = Callable[[Event], None]


def discard(event: Event) -> None:
    """A sink that keeps nothing."""


def event_to_json(event: Event) -> dict[str, Any]:
    """{"event": "StepStarted", …fields}."""
    return {"event": type(event).__name__, **event.to_json()}
