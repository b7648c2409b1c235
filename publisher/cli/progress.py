"""What is known of a run while it goes on: the lanes, their steps, how fast they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from publisher import events
from publisher.cli.text import clean
from publisher.errors import Cancelled

WINDOW = 10.0
"""Seconds over which a rate is measured."""


class Rate:
    """Bytes (or items) a second over the last seconds, by differences: what an
    earlier run had done already does not count as speed."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, done))
        while now - self._samples[0][0] > WINDOW and len(self._samples) > 2:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        if len(self._samples) < 2:
            return 0.0
        (start, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(now - start, 0.001)


@dataclass(slots=True)
class StepState:
    """One step that runs now."""

    id: str
    started: float
    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    line: str = ""
    trouble: str = ""
    rate: Rate = field(default_factory=Rate)

    def remaining(self, now: float) -> float | None:
        """Seconds until `total`, or None when that cannot be said."""
        speed = self.rate.per_second(now)
        return (self.total - self.done) / speed if self.total and speed > 0 else None


@dataclass(slots=True)
class Lane:
    """One cloud, the build, or the release."""

    name: str
    steps: list[str] = field(default_factory=list)
    running: dict[str, StepState] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    reused: set[str] = field(default_factory=set)
    failed: str = ""
    seconds: float = 0.0

    def label(self, step: str) -> str:
        """A step's id without the lane's name."""
        return step.removeprefix(f"{self.name}.")


class Board:
    """The state of a run, made from its events. Not thread-safe: renderers lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started = clock()
        self.title = ""
        self.lanes: dict[str, Lane] = {}

    def elapsed(self) -> float:
        return self._clock() - self.started

    def lane(self, name: str) -> Lane:
        return self.lanes.setdefault(name, Lane(name))

    def apply(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self.title = event.title
                for step, name in event.steps:
                    self.lane(name).steps.append(step)
            case events.StepReused():
                lane = self.lane(event.lane)
                lane.running.pop(event.step, None)
                lane.ended.add(event.step)
                lane.reused.add(event.step)
            case events.StepFinished() | events.StepFailed():
                lane = self.lane(event.lane)
                lane.running.pop(event.step, None)
                lane.ended.add(event.step)
                lane.seconds += event.seconds
                if isinstance(event, events.StepFailed):
                    lane.failed = event.step
            case events.StepStarted():
                self.lane(event.lane).running.pop(event.step, None)
                self.state(event.step, event.lane)
            case events.StepPhase():
                state = self.state(event.step, event.lane)
                state.phase, state.trouble, state.line = clean(event.phase), "", ""
                if state.done >= state.total:
                    state.done = state.total = 0
            case events.StepProgress():
                state = self.state(event.step, event.lane)
                if state.total != event.total:
                    state.rate = Rate()
                state.done, state.total, state.unit = event.done, event.total, event.unit
                state.rate.add(self._clock(), event.done)
                state.trouble = ""
            case events.StepOutput():
                self.state(event.step, event.lane).line = clean(event.line)
            case events.StepRetry():
                state = self.state(event.step, event.lane)
                state.trouble = retry_text(event)
            case _:
                pass

    def state(self, step: str, lane: str) -> StepState:
        running = self.lane(lane).running
        if step not in running:
            running[step] = StepState(step, self._clock())
        return running[step]


def was_cancelled(event: events.StepFailed) -> bool:
    """Whether a step ended because the run was cancelled, and not by itself."""
    return event.error == str(Cancelled())


def retry_text(event: events.StepRetry) -> str:
    """A retry in one line."""
    return f"↻ attempt {event.attempt} failed, next in {event.delay:.1f} s: {clean(event.error)}"


def result_lines(title: str, event: events.RunFinished, duration: str) -> list[str]:
    """The final block: what happened, every image reference on a line of its own
    (behind the image's name where there are several), and where the manifest is."""
    headline = f"up to date, checked in {duration}" if event.reused else f"published in {duration}"
    several = len({image.name for image in event.images}) > 1
    told = (f"{i.name} {i.reference}" if several else i.reference for i in event.images)
    lines = [f"{title}: {headline}", *dict.fromkeys(told)]
    return [*lines, f"manifest: {event.manifest}"] if event.manifest else lines
