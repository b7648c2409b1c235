"""The manifest of what a run left behind, from its plan and the journal's outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher import manifest, provenance
from publisher.journal import Outcome
from publisher.manifest import Flavour, Manifest, Timing
from publisher.model import Audience, Image
from publisher.plan import ORIGIN, Plan, Planned, Step
from publisher.resolve import recorded_images


def record(
    plan: Plan,
    state: Path,
    run: str,
    outcomes: Mapping[str, Outcome],
    ran: Collection[str],
    failed: Collection[str],
) -> Manifest:
    """Write the manifest of the release, and return it. `ran` are the steps that this
    run did and `failed` those of them that did not succeed.

    What an earlier run wrote of images that the plan leaves out stays in it; the
    manifest of a run that did nothing stays as it is, if it says the same.
    """
    path = manifest.manifest_path(state, plan.name, plan.version)
    earlier = manifest.read(path)
    made = _Reading(plan, outcomes).manifest(run, ran, failed)
    others = earlier.only(plan.left_out) if earlier is not None else None
    if others is not None and others.flavours:
        made = _joined(others, made)
    # it may be of another plan of this release, or older than a crash
    if earlier is not None and not (ran or earlier.failed) and _content(earlier) == _content(made):
        return earlier
    made = dataclasses.replace(made, tools={**made.tools, **_tools(plan, made)})
    manifest.write(made, path)
    return made


def _tools(plan: Plan, made: Manifest) -> Mapping[str, str]:
    found = provenance.tools(sorted({image.provider for image in made.images}))
    archs = dict.fromkeys(s.inputs["spec"]["arch"] for s in plan.steps if s.kind == "build")
    return {**found, **provenance.host_tools(*archs)} if archs else found


def _content(made: Manifest) -> tuple[Any, ...]:
    return made.flavours, made.images, made.audience


def _joined(others: Manifest, made: Manifest) -> Manifest:
    done = {timing.step for timing in made.timings}
    return dataclasses.replace(
        made,
        flavours=(*others.flavours, *made.flavours),
        images=(*others.images, *made.images),
        audience={**others.audience, **made.audience},
        tools=others.tools,
        timings=(*(t for t in others.timings if t.step not in done), *made.timings),
        failed=tuple(sorted({*others.failed, *made.failed})),
    )


class _Reading:
    """A plan and what is known of its steps."""

    def __init__(self, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
        self.plan = plan
        self.outcomes = outcomes

    def manifest(self, run: str, ran: Collection[str], failed: Collection[str]) -> Manifest:
        opened = {
            planned.label: self._opened(planned)
            for planned in self.plan.flavours
            if self.plan.step(planned.source).key in self.outcomes
        }
        flavours = tuple(
            self._flavour(planned, opened[planned.label])
            for planned in self.plan.flavours
            if planned.label in opened
        )
        images = {
            (image.provider, *image.place): image for found in opened.values() for image in found
        }
        return Manifest(
            name=self.plan.name,
            version=self.plan.version,
            run=run,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            flavours=flavours,
            images=tuple(images.values()),
            audience={
                step.lane: self.outcomes[step.key].value["audience"]["kind"]
                for step in self._done("release")
            },
            timings=tuple(
                Timing(step.id, round(self.outcomes[step.key].seconds, 3), step.id not in ran)
                for step in self._done()
            ),
            failed=tuple(sorted(failed)),
        )

    def _done(self, kind: str = "") -> list[Step]:
        return [s for s in self.plan.steps if kind in ("", s.kind) and s.key in self.outcomes]

    def _opened(self, planned: Planned) -> list[Image]:
        """The images that the release got to, with their audience."""
        found = []
        for step in self._done("release"):
            if step.flavour == planned.label:
                audience = Audience.from_json(self.outcomes[step.key].value["audience"])
                found += [
                    dataclasses.replace(image, audience=audience)
                    for image in recorded_images(step, self.outcomes, self.plan)
                ]
        return found

    def _flavour(self, planned: Planned, images: list[Image]) -> Flavour:
        source = self.plan.step(planned.source)
        disk = self.outcomes[source.key].value
        return Flavour(
            name=planned.name,
            arch=disk["spec"]["arch"],
            firmware=disk["spec"]["firmware"],
            digest=disk["sha256"],
            size=disk["size"],
            data=disk["data"],
            label=planned.label,
            variant=planned.variant,
            source=_source(source, disk),
            origin=disk.get(ORIGIN, {}),
            evidence=tuple(disk.get("evidence", ())),
            by_hand=tuple(disk.get("by_hand", ())),
            references=tuple(dict.fromkeys(image.reference for image in images)),
            proofs=self._proofs(planned),
        )

    def _proofs(self, planned: Planned) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for kind in ("lint", "secrets", "inventory"):
            for step in self._done(kind):
                if step.flavour == planned.label:
                    found[kind] = self.outcomes[step.key].value
        rehearsals = {
            step.inputs["provider"]: self.outcomes[step.key].value["rehearsal"]
            for step in self._done("rehearse")
            if step.flavour == planned.label
        }
        return {**found, "rehearsals": rehearsals} if rehearsals else found


def _source(step: Step, disk: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the disk came from."""
    if step.kind == "build":
        # the step's own inputs hold the values of variables, which may be secret
        recipe = disk.get(ORIGIN, {}).get("recipe") or step.inputs["recipe"]
        source: Mapping[str, Any] = recipe["source"]
        return source
    return {"migrated": step.inputs["reference"]}
