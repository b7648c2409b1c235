"""What rehearse does: open the disks, boot them as each cloud, show the verdicts."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.cells import cell_len

from publisher import events
from publisher.cli.built_subjects import Built, is_pipeline
from publisher.cli.jsonl import write_line
from publisher.cli.screen import screen
from publisher.cli.signals import cancelling
from publisher.cli.subjects import Single, Subject, Wanted
from publisher.cli.tables import short, write
from publisher.cli.text import show_seconds
from publisher.errors import ProofError, PublishError
from publisher.memory import Memory
from publisher.proof.guest import Guest
from publisher.proof.rehearse import Rehearsal, Status, rehearse
from publisher.task import Cancellation, Task
from publisher.vm.vanishing import vanishing

STEP = "rehearse"
_TITLE_MOST = 64
_MARKS = {
    Status.PROVED: ("✓", "green"),
    Status.FAILED: ("✗", "bold red"),
    Status.LINT: ("·", ""),
    Status.UNPROVABLE: ("?", "yellow"),
    Status.UNREACHED: ("–", ""),
}


def run(wanted: Wanted, *, keep: bool, state: Path, json: bool, plain: bool) -> None:
    source = Built(wanted, state) if is_pipeline(wanted) else Single(wanted, state)
    done: list[tuple[Subject, Rehearsal]] = []
    with (
        cancelling() as cancellation,
        screen(json=json, plain=plain) as sink,
        vanishing(state / "scratch", "rehearse-") as scratch,
    ):
        sink(events.RunStarted(scratch.name, source.title, source.lanes))
        task = Task(STEP, Memory(scratch / "memory"), sink=sink, cancellation=cancellation)
        for subject in source.open(scratch, task, sink):
            with _telling(subject, sink) as (begin, end):
                verdicts = rehearse(
                    subject.disk,
                    subject.guests,
                    subject.spec,
                    subject.settings,
                    task,
                    scratch=scratch,
                    logs=state / "rehearsals",
                    keep=keep,
                    task_of=partial(begin, task),
                    on_end=end,
                )
            source.remember(subject, verdicts)
            done += [(subject, verdict) for verdict in verdicts]
    if json:
        found = [{**verdict.to_json(), "image": subject.spec.name} for subject, verdict in done]
        write_line(sys.stdout, {"event": "Rehearsed", "rehearsals": found})
    else:
        for subject, verdict in done:
            show(verdict, subject.spec.name if subject.label else "")
    _judge(done)


@contextlib.contextmanager
def _telling(
    subject: Subject, sink: events.Sink
) -> Iterator[tuple[Callable[[Task, Guest, Cancellation], Task], Callable[[Rehearsal], None]]]:
    """Each cloud has a lane of its own on the screen: what begins it, what ends it."""
    started: dict[str, float] = {}

    def begin(task: Task, guest: Guest, stop: Cancellation) -> Task:
        name = subject.lane(guest.name)
        started[name] = time.monotonic()
        sink(events.StepStarted(name, name))
        return Task(name, task.memory, sink=sink, cancellation=stop)

    def end(done: Rehearsal) -> None:
        name = subject.lane(done.cloud)
        seconds = time.monotonic() - started.pop(name)
        if done.passed:
            proved = sum(claim.status is Status.PROVED for claim in done.claims)
            text = f"{done.machine}: {proved} of {proved} proved"
            sink(events.StepFinished(name, name, seconds, text))
            return
        first = done.failures[0]
        text = f"{first.title}: {first.cause or first.evidence}"
        sink(events.StepFailed(name, name, seconds, f"not so: {text}", first.fix))

    try:
        yield begin, end
    except PublishError as error:
        for name, at in list(started.items()):
            seconds = time.monotonic() - at
            sink(events.StepFailed(name, name, seconds, str(error), error.hint))
        raise


def show(rehearsal: Rehearsal, image: str = "") -> None:
    """A verdict, a line a claim; `image` is told where there are several."""
    boots = ", ".join(show_seconds(seconds) for seconds in rehearsal.boots)
    took = f"{show_seconds(rehearsal.seconds)}, boots of {boots}"
    write()
    title = f"{image} as {rehearsal.cloud}" if image else rehearsal.cloud
    write(f"{title}: {rehearsal.machine} ({took})", "bold")
    titles = [short(claim.title, _TITLE_MOST) for claim in rehearsal.claims]
    width = max(map(cell_len, titles))
    for title, claim in zip(titles, rehearsal.claims, strict=True):
        mark, style = _MARKS[claim.status]
        evidence = claim.evidence or claim.status.value
        if claim.status in (Status.LINT, Status.UNPROVABLE):
            evidence = f"{claim.status.value}: {evidence}"
        if claim.status is Status.FAILED:
            title = claim.title  # whole, beyond its column
        write(f"{mark} {title}{' ' * (width - cell_len(title))}  {evidence}", style)
        if claim.cause:
            write(f"  cause: {claim.cause}")
        if claim.fix:
            write(f"  fix: {claim.fix}")
    for path in rehearsal.consoles:
        write(f"  console: {path}")


def _judge(done: Sequence[tuple[Subject, Rehearsal]]) -> None:
    failed = [subject.lane(verdict.cloud) for subject, verdict in done if not verdict.passed]
    if failed:
        raise ProofError(
            f"{len(failed)} of {len(done)} rehearsals failed: {', '.join(failed)}",
            hint="see the lines with ✗, their causes, and the console logs",
        )
