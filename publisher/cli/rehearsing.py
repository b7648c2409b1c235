"""What rehearse does: open the disk, boot it as each cloud, show the verdicts."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from publisher import events, provider
from publisher.cli.exporting import released
from publisher.cli.jsonl import write_line
from publisher.cli.screen import screen
from publisher.cli.signals import cancelling
from publisher.cli.tables import write
from publisher.cli.text import show_seconds
from publisher.cli.words import chosen, suggestion
from publisher.disks import foreign
from publisher.disks.store import Store
from publisher.errors import ProofError, PublishError, UsageError
from publisher.memory import Memory
from publisher.migrate import complete_options
from publisher.model import Disk, Firmware, Spec
from publisher.pipeline import load, load_options, load_rehearse
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.rehearse import Rehearsal, Status, rehearse
from publisher.rehearsal import Rehearse
from publisher.settings import Setting
from publisher.task import Cancellation, Task
from publisher.vm.vanishing import vanishing

STEP = "rehearse"
_MARKS = {
    Status.PROVED: ("✓", "green"),
    Status.FAILED: ("✗", "bold red"),
    Status.LINT: ("·", ""),
    Status.UNPROVABLE: ("?", "yellow"),
    Status.UNREACHED: ("–", ""),
}


def run(
    disk: str,
    *,
    clouds: str,
    firmware: str,
    keep: bool,
    pipeline: Path | None,
    settings: Sequence[str],
    state: Path,
    json: bool,
    plain: bool,
) -> None:
    if firmware and firmware not in get_args(Firmware):
        hint = suggestion(firmware, get_args(Firmware))
        raise UsageError(f"there is no firmware {firmware!r}", hint=hint)
    given = load_options(pipeline, settings=settings, environ=os.environ)
    wanted = _settings(pipeline, settings)
    guests = _guests(clouds, given)
    logs = state / "rehearsals"
    done: Sequence[Rehearsal] = ()
    with (
        cancelling() as cancellation,
        screen(json=json, plain=plain) as sink,
        vanishing(state / "scratch", "rehearse-") as scratch,
    ):
        steps = tuple((guest.name, guest.name) for guest in guests)
        sink(events.RunStarted(scratch.name, f"{disk} rehearsed", steps))
        task = Task(STEP, Memory(scratch / "memory"), sink=sink, cancellation=cancellation)
        with (
            _opened(disk, cast("Firmware | None", firmware or None), state, scratch, task) as (
                image,
                spec,
            ),
            _telling(sink) as (begin, end),
        ):
            done = rehearse(
                image,
                guests,
                spec,
                wanted,
                task,
                scratch=scratch,
                logs=logs,
                keep=keep,
                task_of=lambda guest, stop: begin(guest, task, stop),
                on_end=end,
            )
    if json:
        document = {"event": "Rehearsed", "rehearsals": [r.to_json() for r in done]}
        write_line(sys.stdout, document)
    else:
        for rehearsal in done:
            show(rehearsal)
    _judge(done)


def _settings(pipeline: Path | None, settings: Sequence[str]) -> Rehearse:
    """The section [rehearse]: of a pipeline file, or without one of settings alone."""
    if pipeline is None:
        for text in settings:
            if Setting.parse(text).path[0] not in ("rehearse", "targets"):
                raise UsageError(
                    f"--set {text}: has no effect on a rehearsal without a pipeline file",
                    hint="set rehearse.… or targets.…, or name the file with --pipeline",
                )
        return load_rehearse(settings=settings, environ=os.environ)
    loaded = load(pipeline, settings=settings, environ=os.environ)
    return loaded.flavours[0].proofs.rehearse


def _guests(clouds: str, given: Mapping[str, Mapping[str, object]]) -> list[Guest]:
    """The clouds that were asked for, or all that can be rehearsed."""
    known: dict[str, type[Rehearsable]] = {}
    for name in provider.names():
        kind = provider.load(name)
        if issubclass(kind, Rehearsable):
            known[name] = kind
    if not known:
        raise UsageError("no cloud that can be rehearsed is installed")
    guests = []
    for name in chosen(clouds, list(known), "cloud to rehearse") or list(known):
        kind = provider.load(name)
        options = complete_options(kind, given[name], name) if name in given else None
        guests.append(known[name].guest(options))
    return guests


@contextlib.contextmanager
def _opened(
    text: str, firmware: Firmware | None, state: Path, scratch: Path, task: Task
) -> Iterator[tuple[Disk, Spec]]:
    """The disk, and what is known of it. QEMU reads other formats than raw as they
    are; only what is packed (compressed, or in an OVA) has to be unpacked."""
    from publisher.fetch.packed import unpack
    from publisher.proof.abilities import boots_of

    path = Path(text).expanduser()
    named = "@" in text or not path.suffix
    if named and os.sep not in text and not path.exists():
        yield released(text, state, Store(state))
        return
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
    room = shutil.disk_usage(scratch).free
    path = unpack(path, scratch / "unpacked", room, task)
    info = foreign.describe(path)
    if foreign.is_packed(path):
        path = foreign.convert(path, scratch / "disk.raw", task)
        info = foreign.describe(path)
    disk = Disk(path.absolute(), info["virtual-size"], "", (), info["format"])
    firmware = firmware or boots_of(disk.path, task).firmware
    yield disk, Spec(path.name.partition(".")[0], "", firmware=firmware, size=disk.size)


@contextlib.contextmanager
def _telling(
    sink: events.Sink,
) -> Iterator[tuple[Callable[[Guest, Task, Cancellation], Task], Callable[[Rehearsal], None]]]:
    """Each cloud has a lane of its own on the screen: what begins it, what ends it."""
    started: dict[str, float] = {}

    def begin(guest: Guest, task: Task, stop: Cancellation) -> Task:
        started[guest.name] = time.monotonic()
        sink(events.StepStarted(guest.name, guest.name))
        return Task(guest.name, task.memory, sink=sink, cancellation=stop)

    def end(done: Rehearsal) -> None:
        seconds = time.monotonic() - started.pop(done.cloud)
        if done.passed:
            proved = sum(claim.status is Status.PROVED for claim in done.claims)
            text = f"{done.machine}: {proved} of {proved} proved"
            sink(events.StepFinished(done.cloud, done.cloud, seconds, text))
            return
        first = done.failures[0]
        text = f"{first.title}: {first.cause or first.evidence}"
        sink(events.StepFailed(done.cloud, done.cloud, seconds, f"not so: {text}", first.fix))

    try:
        yield begin, end
    except PublishError as error:
        for name, at in list(started.items()):
            seconds = time.monotonic() - at
            sink(events.StepFailed(name, name, seconds, str(error), error.hint))
        raise


def show(rehearsal: Rehearsal) -> None:
    """A verdict, a line a claim."""
    boots = ", ".join(show_seconds(seconds) for seconds in rehearsal.boots)
    took = f"{show_seconds(rehearsal.seconds)}, boots of {boots}"
    write()
    write(f"{rehearsal.cloud}: {rehearsal.machine} ({took})", "bold")
    width = max(len(claim.title) for claim in rehearsal.claims)
    for claim in rehearsal.claims:
        mark, style = _MARKS[claim.status]
        evidence = claim.evidence or claim.status.value
        if claim.status in (Status.LINT, Status.UNPROVABLE):
            evidence = f"{claim.status.value}: {evidence}"
        write(f"{mark} {claim.title:<{width}}  {evidence}", style)
        if claim.cause:
            write(f"  cause: {claim.cause}")
        if claim.fix:
            write(f"  fix: {claim.fix}")
    for path in rehearsal.consoles:
        write(f"  console: {path}")


def _judge(done: Sequence[Rehearsal]) -> None:
    failed = [rehearsal for rehearsal in done if not rehearsal.passed]
    if failed:
        names = ", ".join(rehearsal.cloud for rehearsal in failed)
        raise ProofError(
            f"{len(failed)} of {len(done)} rehearsals failed: {names}",
            hint="see the lines with ✗, their causes, and the console logs",
        )
