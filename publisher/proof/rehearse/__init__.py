"""Rehearsals: the disk boots as on each cloud, before a byte is uploaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from publisher.errors import ProofError
from publisher.events import Event, StepPhase
from publisher.model import Disk, Spec
from publisher.proof.guest import Guest
from publisher.proof.rehearse.capacity import at_once
from publisher.proof.rehearse.stage import rehearse_one
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Cancellation, Task

__all__ = ["Claim", "Rehearsal", "Status", "at_once", "rehearse", "require_passed"]


def rehearse(
    disk: Disk,
    guests: Sequence[Guest],
    spec: Spec,
    settings: Rehearse,
    task: Task,
    *,
    scratch: Path,
    logs: Path,
    keep: bool = False,
    task_of: Callable[[Guest, Cancellation], Task] | None = None,
    on_end: Callable[[Rehearsal], None] = lambda _: None,
) -> Sequence[Rehearsal]:
    """Boot the disk as each guest's machine; a Rehearsal a guest, in their order.

    As many run side by side as this machine's processors and memory allow.
    `scratch` takes overlays and sockets, `logs` the consoles of failures (with
    `keep`, of all). `task_of` gives each guest a task of its own, which must end
    with that cancellation; by default `task` tells of all. A failed rehearsal is
    returned like any other. Raises HostError and Cancelled; nothing runs on then.
    """
    stop = Cancellation(task.cancellation)
    make = task_of or (lambda guest, cancellation: _part(task, guest, cancellation))

    def one(guest: Guest) -> Rehearsal:
        part = make(guest, stop)
        part.check()
        done = rehearse_one(
            disk, guest, spec, settings, part, scratch=scratch, logs=logs, keep=keep
        )
        on_end(done)
        return done

    # all that a thread starts ends with that thread: process.command
    with ThreadPoolExecutor(at_once(len(guests)), thread_name_prefix="rehearse") as pool:
        futures = {pool.submit(one, guest): number for number, guest in enumerate(guests)}
        try:
            done = {futures[future]: future.result() for future in as_completed(futures)}
        except BaseException:
            stop.cancel()
            for future in futures:
                future.cancel()
            raise
    return [done[number] for number in range(len(guests))]


def _part(task: Task, guest: Guest, cancellation: Cancellation) -> Task:
    """A task that tells of one guest in the name of the whole."""

    def sink(event: Event) -> None:
        if isinstance(event, StepPhase):
            task.phase(f"{guest.name}: {event.phase}")

    return Task(task.step, task.memory, sink=sink, cancellation=cancellation, clock=task.clock)


def require_passed(rehearsals: Sequence[Rehearsal]) -> None:
    """Raise ProofError with the failures of all rehearsals."""
    failed = [(rehearsal, claim) for rehearsal in rehearsals for claim in rehearsal.failures]
    if not failed:
        return
    texts = [
        f"as {rehearsal.machine}: not so: {claim.title}: {claim.cause or claim.evidence}"
        for rehearsal, claim in failed
    ]
    logs = ", ".join(str(path) for r in rehearsals if not r.passed for path in r.consoles)
    fixes = "; ".join(dict.fromkeys(claim.fix for _, claim in failed if claim.fix))
    hint = "; ".join(filter(None, (fixes, f"console logs: {logs}" if logs else "")))
    raise ProofError("\n".join(texts), hint=hint)
