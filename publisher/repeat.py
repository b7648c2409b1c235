"""Is a build repeatable? Built a second time with nothing of the first one, and compared."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from publisher import events, run
from publisher.disks.store import Store
from publisher.errors import ProofError
from publisher.model import Disk, Finding, Severity
from publisher.plan import Plan
from publisher.proof.compare import Difference, compare
from publisher.task import Cancellation

RULE = "build.repeatable"
SHOWN = 20
"""Differences in the error's text; all of them are findings."""


def verify(
    plan: Plan,
    made: Sequence[events.DiskBuilt],
    *,
    state: Path,
    sink: events.Sink,
    cancellation: Cancellation,
    builds: int = 1,
) -> None:
    """Build `plan` (plan.builds) again and compare with what it `made`: without its
    checkpoints, installations and disks; only downloads are shared, whose digests
    the build checks. Raises ProofError that says what differs, and what the build does.
    """
    changed = [disk for disk in made if disk.by_hand]
    if changed:
        raise ProofError(
            f"the machine of {changed[0].step} was open to changes by hand",
            hint="change the pipeline, and build without a retry on a changed machine",
        )
    found: list[Difference] = []
    with _scratch(state) as scratch:
        again = run.build(
            plan, state=scratch, sink=_second(sink), cancellation=cancellation, builds=builds
        )
        for first, second in zip(made, again, strict=True):
            sink(events.StepPhase(first.step, first.lane, "comparing two builds"))
            one, other = _disk(state, first), _disk(scratch, second)
            for difference in compare(one, other, cancellation.check):
                found.append(difference)
                finding = Finding(RULE, Severity.ERROR, str(difference))
                sink(events.StepFinding(first.step, first.lane, finding))
    if found:
        lines = [f"  {difference}" for difference in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN} more")
        raise ProofError(
            "\n".join([f"two builds differ in {len(found)} places:", *lines]),
            hint="what a step downloads, a clock and random numbers are the usual reasons; "
            "SOURCE_DATE_EPOCH sets the times of an installation, `snapshot` its packages",
        )


def _disk(state: Path, built: events.DiskBuilt) -> Disk:
    disk = Store(state).get(built.sha256)
    if disk is None:
        raise ProofError(f"the disk {built.sha256[:12]} left the store while it was compared")
    return disk


def _second(sink: events.Sink) -> events.Sink:
    """Shows the second build's events as those of steps of their own."""

    def show(event: events.Event) -> None:
        if isinstance(event, (events.RunStarted, events.RunFinished, events.DiskBuilt)):
            return
        if not isinstance(event, events.Note):
            event = replace(event, step=f"{event.step} again")
        sink(event)

    return show


@contextlib.contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """An empty state directory beside the real one, with its downloads."""
    parent = state / "verify"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        if not Path("/proc", old.name).exists():  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
    directory = parent / str(os.getpid())
    downloads = state / "store" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    (directory / "store").mkdir(parents=True)
    (directory / "store" / "downloads").symlink_to(downloads)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            parent.rmdir()
