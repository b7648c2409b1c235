"""What the runbook is handed by the run, and how it reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from publisher import provider as seam
from publisher.build.rescue import OnError
from publisher.disks.store import Store
from publisher.errors import StateError
from publisher.model import Disk, Spec
from publisher.plan import Plan, Step
from publisher.recipe import Recipe

Value: TypeAlias = Mapping[str, Any]


class Context(Protocol):
    """What the runbook is handed by the run."""

    state: Path
    store: Store
    run: str
    on_error: OnError
    plan: Plan

    def outcome(self, step_id: str) -> Value:
        """The outcome of a step that this one needs."""

    def provider(self, step: Step) -> seam.Provider:
        """The one provider of the step's lane."""


def spec_of(step: Step, context: Context, disk: Value | None = None) -> Spec:
    """The step's spec with what is known of the disk by now."""
    given = dict(step.inputs["spec"])
    given.update(disk["spec"] if disk else {})
    return dataclasses.replace(Spec.from_json(given), run=context.run)


def recipe_of(build: Step) -> Recipe:
    """What a build step builds."""
    inputs = {k: v for k, v in build.inputs["recipe"].items() if k != "files"}
    return Recipe.model_validate(inputs)


def disk_of(context: Context, value: Value) -> Disk:
    disk = context.store.get(value["sha256"])
    if disk is None:
        raise StateError(
            f"the disk {value['sha256'][:12]} is missing from the store",
            hint="run the same command again: it is made anew",
        )
    return disk
