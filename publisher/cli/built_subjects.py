"""The disks of a pipeline file, for rehearse: built, or as they were built before."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

import publisher.plan
import publisher.run
from publisher import digests, proofs
from publisher.cli.actions import sandbox_defaults
from publisher.cli.subjects import Subject, Wanted, guests, lane
from publisher.disks.store import Store
from publisher.errors import StateError, UsageError
from publisher.events import Event, RunStarted, Sink
from publisher.flavours import Flavour
from publisher.journal import Journal, Outcome
from publisher.pipeline import load, validate
from publisher.plan import Step
from publisher.proof.guest import Guest
from publisher.proof.rehearse import Rehearsal
from publisher.task import Task


def is_pipeline(wanted: Wanted) -> bool:
    return wanted.source.endswith(".toml") and not wanted.release


class Built:
    """The images of a pipeline, each as the clouds that it goes to."""

    def __init__(self, wanted: Wanted, state: Path) -> None:
        _refuse(wanted)
        self._state = state
        state.mkdir(parents=True, exist_ok=True)
        digests.keep(state)
        # a variable that only a run needs may be missing: no cloud is asked
        pipeline = load(
            Path(wanted.source),
            settings=wanted.settings,
            environ=os.environ,
            defaults=sandbox_defaults,
        ).choose(wanted.variants, wanted.archs)
        validate(pipeline)
        self._images = [
            (flavour, asked)
            for flavour in pipeline.flavours
            if (asked := guests(wanted.clouds, flavour.targets, tuple(flavour.targets)))
        ]
        if not self._images:
            raise UsageError(
                f"no target of {wanted.source} can be rehearsed", hint="name clouds with --as"
            )
        self._plan = publisher.plan.plan(pipeline)
        labels = {flavour.label for flavour, _ in self._images}
        builds = publisher.plan.builds(self._plan)
        kept = tuple(step for step in builds.steps if step.flavour in labels)
        self._builds = dataclasses.replace(builds, steps=kept)
        self.title = f"{self._plan.title} rehearsed"
        self.lanes = (
            *((step.id, step.lane) for step in kept),
            *(
                (lane(flavour.label, guest.name),) * 2
                for flavour, asked in self._images
                for guest in asked
            ),
        )

    def open(self, scratch: Path, task: Task, sink: Sink) -> Sequence[Subject]:  # noqa: ARG002
        """Do what is not built yet."""

        def show(event: Event) -> None:
            if not isinstance(event, RunStarted):  # the rehearsals have told of it
                sink(event)

        made = publisher.run.build(
            self._builds, state=self._state, sink=show, cancellation=task.cancellation
        )
        disks = {step.flavour: disk for step, disk in zip(self._builds.steps, made, strict=True)}
        return [
            self._subject(flavour, disks[flavour.label].sha256, asked)
            for flavour, asked in self._images
        ]

    def _subject(self, flavour: Flavour, sha256: str, asked: Sequence[Guest]) -> Subject:
        disk = Store(self._state).get(sha256)
        assert disk is not None
        spec = dataclasses.replace(flavour.spec(), size=disk.size, digest=sha256)
        return Subject(disk, spec, asked, flavour.proofs.rehearse, flavour.label)

    def remember(self, subject: Subject, done: Sequence[Rehearsal]) -> None:
        """A run of the pipeline need not repeat what has passed, and must what has not.
        Where one runs now, it finds that out for itself."""
        steps = {step.id: step for step in self._plan.steps if step.kind == "rehearse"}
        with (
            contextlib.suppress(StateError),
            Journal(self._state, self._plan.name, self._plan.version) as journal,
        ):
            for verdict in done:
                step = steps.get(f"{subject.lane(verdict.cloud)}.rehearse")
                if step is not None:
                    _record(step, verdict, journal)


def _record(step: Step, verdict: Rehearsal, journal: Journal) -> None:
    if verdict.passed:
        value = proofs.proved(verdict)
        journal.done(Outcome(step.id, step.key, value, verdict.seconds, time.time()))
    else:
        journal.undone(step.key)


def _refuse(wanted: Wanted) -> None:
    if wanted.pipeline is not None:
        raise UsageError(
            f"{wanted.source} is a pipeline file itself",
            key="--pipeline",
            hint="leave it out: the [rehearse] and [targets.*] of the file count, and --set",
        )
    if wanted.firmware:
        raise UsageError(
            "a pipeline says what its disks boot by",
            key="--firmware",
            hint=f"write --set build.firmware={wanted.firmware}",
        )
