"""Walks a Plan: reuse what holds, run the rest, open everything or nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher import events, manifest, steps
from publisher import provider as seam
from publisher.build.rescue import CLEANUP, OnError
from publisher.disks.store import Store
from publisher.errors import Cancelled, HostError, PublishError
from publisher.executors.local import execute
from publisher.executors.slots import Slots
from publisher.journal import Journal, Outcome, read_outcomes, release_directory
from publisher.manifest import Manifest
from publisher.model import MIB, Image, Query
from publisher.plan import Plan, Step, key_in_file
from publisher.record import record
from publisher.resolve import Preview, Truth, recorded_images, resolve
from publisher.task import Cancellation, Clock, Retry, Task

__all__ = ["Preview", "preview", "run"]

FULL = MIB
"""A state directory with fewer free bytes than this is called full when a step fails."""


def preview(plan: Plan, *, state: Path) -> Sequence[Preview]:
    """What a run would do, from the journal alone: no network, nothing written."""
    outcomes = read_outcomes(release_directory(state, plan.name, plan.version))
    previews = resolve(plan, outcomes, Store(state), None, _when)
    before: dict[str, str] = {}
    return [
        dataclasses.replace(item, parts=steps.preview_build(item.step, Store(state), before))
        if item.step.kind == "build" and item.action == "run"
        else item
        for item in previews
    ]


def _when(outcome: Outcome) -> str:
    moment = datetime.fromtimestamp(outcome.finished, UTC)
    how = ", after changes by hand" if outcome.value.get("by_hand") else ""
    return f"done {moment:%Y-%m-%d %H:%M} UTC in {outcome.seconds:.1f} s{how}"


def run(
    plan: Plan,
    *,
    state: Path,
    sink: events.Sink = events.discard,
    cancellation: Cancellation | None = None,
    clock: Clock | None = None,
    retry: Retry | None = None,
    on_error: OnError = CLEANUP,
    builds: int = 1,
) -> Manifest:
    """Do what of the plan is not done yet, with so many `builds` side by side;
    returns the manifest of the release.

    Raises the first error after everything that could still be finished was,
    so that the next run continues from there; Cancelled within seconds of a
    cancellation.
    """
    with Journal(state, plan.name, plan.version) as journal:
        return _Run(
            plan,
            state,
            journal,
            sink,
            cancellation or Cancellation(),
            clock or Clock(),
            retry or Retry(),
            on_error,
            Slots(builds),
        ).publish()


def build(
    plan: Plan,
    *,
    state: Path,
    sink: events.Sink = events.discard,
    cancellation: Cancellation | None = None,
    on_error: OnError = CLEANUP,
    builds: int = 1,
) -> Sequence[events.DiskBuilt]:
    """Do what is not done yet of a plan that only builds (plan.builds); returns the
    disks in its order. Raises the first error after every other build has ended."""
    with Journal(state, plan.name, plan.version) as journal:
        return _Run(
            plan,
            state,
            journal,
            sink,
            cancellation or Cancellation(),
            Clock(),
            Retry(),
            on_error,
            Slots(builds),
        ).build()


class _Run:
    """One walk. Is the Context that the runbook sees."""

    def __init__(
        self,
        plan: Plan,
        state: Path,
        journal: Journal,
        sink: events.Sink,
        cancellation: Cancellation,
        clock: Clock,
        retry: Retry,
        on_error: OnError,
        slots: Slots,
    ) -> None:
        self.plan = plan
        self.state = state
        self.store = Store(state)
        self.journal = journal
        self.run = journal.run
        self.on_error = on_error
        self._sink = sink
        self._cancellation = cancellation
        self._clock = clock
        self._retry = retry
        self._slots = slots
        self._lock = threading.Lock()
        self._providers: dict[tuple[str, str], seam.Provider] = {}
        self._by_id = {step.id: step for step in plan.steps}

    # -- what the runbook sees

    def outcome(self, step_id: str) -> Mapping[str, Any]:
        with self._lock:
            return self.journal.outcomes[self._by_id[step_id].key].value

    def provider(self, step: Step) -> seam.Provider:
        name, options = step.inputs["provider"], step.inputs["options"]
        # a migration may read from one place of a cloud and write to another
        account = (name, json.dumps(options, sort_keys=True))
        with self._lock:
            if account not in self._providers:
                kind = seam.load(name)
                self._providers[account] = kind(kind.options(**options))
            return self._providers[account]

    # -- the walk

    def publish(self) -> Manifest:
        started = self._clock.monotonic()
        todo = self._begin()
        if todo:
            self.journal.begin()
            self._forget(todo)
            errors = execute(todo, self._work, self._cancellation, _blocks, self._slots)
            self._settle(todo, errors)
        else:
            errors = {}
        written = record(
            self.plan,
            self.state,
            self.run,
            self.journal.outcomes,
            {step.id for step in todo},
            errors,
        )
        if todo or self.journal.resumed:
            self.journal.finish()
        self._sink(
            events.RunFinished(
                self.run,
                self._clock.monotonic() - started,
                written.images,
                str(manifest.manifest_path(self.state, self.plan.name, self.plan.version)),
                reused=not todo,
            )
        )
        if errors:
            raise PublishError(
                f"published, but without {', '.join(sorted(errors))}",
                hint="run the same command again to complete the release",
            )
        return written

    def build(self) -> Sequence[events.DiskBuilt]:
        todo = self._begin()
        self._forget(todo)
        errors = execute(todo, self._work, self._cancellation, _blocks, self._slots)
        if self._cancellation.cancelled:
            raise Cancelled()
        for step in self.plan.steps:
            if step.id in errors:
                raise errors[step.id]
        made = [self._built(step) for step in self.plan.steps]
        for disk in made:
            self._sink(disk)
        return made

    def _built(self, step: Step) -> events.DiskBuilt:
        value = self.journal.outcomes[step.key].value
        disk = self.store.get(value["sha256"])
        assert disk is not None
        by_hand = tuple(value.get("by_hand", ()))
        return events.DiskBuilt(
            step.id, step.lane, str(disk.path), disk.sha256, disk.size, disk.data_bytes, by_hand
        )

    def _begin(self) -> Sequence[Step]:
        """Announce the run and what of it holds already; returns what is to be done."""
        lanes = tuple((step.id, step.lane) for step in self.plan.steps)
        self._sink(events.RunStarted(self.run, self.plan.title, lanes))
        previews = resolve(self.plan, self.journal.outcomes, self.store, self._ask_clouds(), _when)
        for item in previews:
            if item.action == "reuse":
                self._sink(events.StepReused(item.step.id, item.step.lane, item.reason))
        return [item.step for item in previews if item.action != "reuse"]

    def _task(self, step: Step) -> Task:
        return Task(
            step.id,
            self.journal.memory(step.key),
            lane=step.lane,
            sink=self._sink,
            cancellation=self._cancellation,
            clock=self._clock,
            retry=self._retry,
            run=self.run,
        )

    def _ask_clouds(self) -> Truth:
        """What every cloud holds of this release, for lanes of which something is recorded."""
        lanes: dict[str, Step] = {}
        for step in self.plan.steps:
            if recorded_images(step, self.journal.outcomes, self.plan):
                lanes[step.lane] = step

        def ask(step: Step) -> tuple[str, Mapping[tuple[str, str], Image]]:
            spec = step.inputs["spec"]
            query = Query(name=spec["name"], version=spec["version"])
            found = self.provider(step).find(query, self._task(step))
            return step.lane, {image.place: image for image in found}

        if not lanes:
            return {}
        with ThreadPoolExecutor(len(lanes), thread_name_prefix="find") as pool:
            return dict(pool.map(ask, lanes.values()))

    def _forget(self, todo: Sequence[Step]) -> None:
        for step in todo:
            self.journal.undone(step.key)

    def _work(self, step: Step) -> None:
        task = self._task(step)
        started = self._clock.monotonic()
        self._sink(events.StepStarted(step.id, step.lane))
        try:
            task.check()
            value = steps.RUNBOOK[step.kind](step, self, task)
        except BaseException as error:
            known = _as_publish_error(error, self.state)
            if isinstance(known, PublishError):
                known.key = key_in_file(step, known.key)
            seconds = self._clock.monotonic() - started
            self._sink(events.StepFailed(step.id, step.lane, seconds, str(known), _hint(known)))
            raise known from error
        finally:
            task.memory.close()
        seconds = self._clock.monotonic() - started
        with self._lock:
            self.journal.done(Outcome(step.id, step.key, value, seconds, self._clock.now()))
        self._sink(events.StepFinished(step.id, step.lane, seconds, _summary(value)))

    def _settle(self, todo: Sequence[Step], errors: Mapping[str, BaseException]) -> None:
        """After the walk: close again what was opened halfway, raise what must be raised."""
        if self._cancellation.cancelled:
            raise Cancelled(self._half_open(todo) or "cancelled")
        required = [name for name in errors if self._by_id[name].required]
        if not required:
            return
        if self.plan.all_or_nothing:
            self._close_again(errors)
        raise errors[required[0]]

    def _half_open(self, todo: Sequence[Step]) -> str:
        opened = [s.id for s in todo if s.kind == "release" and s.key in self.journal.outcomes]
        missing = [s.id for s in todo if s.kind == "release" and s.id not in opened]
        if opened and missing:
            return f"cancelled with {', '.join(opened)} open and {', '.join(missing)} not"
        return ""

    def _close_again(self, errors: Mapping[str, BaseException]) -> None:
        """Close what this run opened, wholly or in part, before or after an interruption."""
        for step in self.plan.steps:
            touched = step.id in errors or step.key in self.journal.fresh
            private = step.kind != "release" or step.inputs["audience"]["kind"] == "private"
            if private or not touched:
                continue
            task = self._task(step)
            try:
                steps.withdraw(step, self, task)
                self.journal.undone(step.key)
            except Exception as error:  # the other clouds still have to be closed
                self._sink(
                    events.Note(
                        "error",
                        f"{step.lane} could not be closed again: {error}; "
                        "run the same command again or withdraw it by hand",
                    )
                )
            finally:
                task.memory.close()


def _blocks(step: Step, failed: Step) -> bool:
    """Whether a failure keeps a later step from running: an optional lane keeps only itself."""
    return failed.id in step.needs or failed.required or failed.lane == step.lane


def _hint(error: BaseException) -> str:
    return error.hint if isinstance(error, PublishError) else ""


def _as_publish_error(error: BaseException, state: Path) -> BaseException:
    """A full disk as what it is, also where a stand-in or an SDK only tells of a failure."""
    told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    cancelled = not isinstance(error, Exception) or isinstance(error, Cancelled)
    if told or not (cancelled or isinstance(error, HostError) or _room(state)):
        place = (error.filename if told and isinstance(error, OSError) else None) or state
        return HostError(
            f"no space left on the device: {place}",
            hint="free some space, then run the same command again: it continues",
        )
    return error


def _room(state: Path) -> bool:
    """Whether the state directory takes anything more at all."""
    try:
        return shutil.disk_usage(state).free >= FULL
    except OSError:
        return True


def _summary(value: Mapping[str, Any]) -> str:
    """What a step made, in a few words."""
    if "image" in value:
        return str(value["image"]["ref"])
    if "images" in value:
        return ", ".join(image["ref"] for image in value["images"])
    if "upload" in value:
        return str(value["upload"]["ref"])
    if "sha256" in value:
        return f"sha256:{value['sha256'][:16]}"
    if "audience" in value:
        return str(value["audience"]["kind"])
    return ""
