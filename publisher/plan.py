"""Pipeline ▶ Plan, pure: which steps there are, what decides each one, and its key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from publisher.model import Audience, Noun, Spec
from publisher.recipe import fingerprint

if TYPE_CHECKING:
    from publisher.pipeline import Pipeline
    from publisher.provider import Options


@dataclass(frozen=True, slots=True)
class Step(Noun):
    """One thing to do, as JSON.

    `needs` are the steps whose outcomes it reads: their keys are part of its
    key. `after` only orders. `key` is sha256 over kind, inputs and the needs'
    keys. `required`: without this step nothing may be released. `local` is what
    only this machine knows (a directory) and no part of the key.
    """

    id: str
    kind: str
    lane: str
    inputs: Mapping[str, Any]
    needs: tuple[str, ...]
    key: str
    after: tuple[str, ...] = ()
    required: bool = True
    local: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan(Noun):
    """The steps of one release, each behind all that it needs."""

    title: str
    name: str
    version: str
    steps: tuple[Step, ...]
    all_or_nothing: bool = True

    def step(self, identity: str) -> Step:
        return next(step for step in self.steps if step.id == identity)


@dataclass(frozen=True, slots=True)
class Target:
    """One cloud of a plan: where to, with which options, opened to whom.

    `required` are the regions without which nothing is released. `realm` sets
    the local stand-in's outcomes apart from the real cloud's.
    """

    provider: str
    options: Options
    audience: Audience
    required: tuple[str, ...]
    realm: str = ""

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(r for r in self.options.locations() if r not in self.required)


def step_key(kind: str, inputs: Mapping[str, Any], needs: Sequence[str]) -> str:
    canonical = json.dumps([kind, inputs, list(needs)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class _Drawing:
    """Steps in the making."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def add(
        self,
        identity: str,
        kind: str,
        lane: str,
        inputs: Mapping[str, Any],
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
        *,
        required: bool = True,
        local: Mapping[str, str] | None = None,
    ) -> str:
        key = step_key(kind, inputs, [self.steps[need].key for need in needs])
        self.steps[identity] = Step(
            identity, kind, lane, inputs, tuple(needs), key, tuple(after), required, local or {}
        )
        return identity


def plan(pipeline: Pipeline, only: Sequence[str] = (), realm: str = "") -> Plan:
    """The plan of a pipeline file; `only` narrows it to some of its targets, `realm`
    is as in Target.

    Reads the local files that the recipe names (their digests are inputs), and
    nothing else. Raises PipelineError when one is missing.
    """
    spec = pipeline.spec()
    drawing = _Drawing()
    chosen = [name for name in pipeline.targets if not only or name in only]
    targets = [
        Target(
            name,
            pipeline.targets[name],
            pipeline.audience(name),
            required_regions(name, pipeline.targets[name], pipeline.release),
            realm,
        )
        for name in chosen
    ]
    checks = _checks(drawing, targets, spec)
    build = drawing.add(
        "build",
        "build",
        "build",
        {
            "recipe": fingerprint(pipeline.build, pipeline.directory),
            "spec": spec.to_json(),
        },
        after=checks,
        local={"directory": str(pipeline.directory)},
    )
    _publish(drawing, targets, spec, build)
    return Plan(
        f"{spec.name} {spec.version}",
        spec.name,
        spec.version,
        tuple(drawing.steps.values()),
        pipeline.release.all_or_nothing,
    )


def builds(whole: Plan) -> Plan:
    """The builds of a plan alone, under the same keys: what they make is what the
    whole plan then publishes."""
    steps = (dataclasses.replace(s, after=()) for s in whole.steps if s.kind == "build")
    return dataclasses.replace(whole, steps=tuple(steps))


def plan_download(
    source: Mapping[str, Any],
    spec: Spec,
    targets: Sequence[Target],
    multiple: int,
    local: Mapping[str, str],
) -> Plan:
    """The plan of a migration: the disk comes from `source` ("reference",
    "provider" and its "options") instead of a build, padded to a whole number
    of `multiple` bytes."""
    drawing = _Drawing()
    checks = _checks(drawing, targets, spec)
    inputs = {**source, "size_multiple": multiple}
    disk = drawing.add("download", "download", "source", inputs, after=checks, local=local)
    _publish(drawing, targets, spec, disk)
    return Plan(
        f"{source['reference']} as {spec.name} {spec.version}",
        spec.name,
        spec.version,
        tuple(drawing.steps.values()),
    )


def required_regions(name: str, options: Options, release: Any) -> tuple[str, ...]:
    """The regions of a target that must be ready before anything is released."""
    regions = options.locations()
    if release.all_or_nothing and not release.required:
        return regions
    if name in release.required:
        return regions
    return tuple(r for r in regions if f"{name}:{r}" in release.required)


def _target_inputs(target: Target, spec: Spec) -> dict[str, Any]:
    return {
        "provider": target.provider,
        "options": target.options.model_dump(mode="json", by_alias=True),
        "spec": spec.to_json(),
        **({"realm": target.realm} if target.realm else {}),
    }


def _checks(drawing: _Drawing, targets: Sequence[Target], spec: Spec) -> list[str]:
    return [
        drawing.add(
            f"{target.provider}.check",
            "check",
            target.provider,
            {**_target_inputs(target, spec), "regions": list(target.options.locations())},
            required=bool(target.required),
        )
        for target in targets
    ]


def _publish(drawing: _Drawing, targets: Sequence[Target], spec: Spec, disk: str) -> None:
    """upload ▶ register ▶ copy ▶ verify in every cloud, the barrier, release."""
    ready: list[str] = []
    groups: list[tuple[Target, str, str, bool]] = []
    for target in targets:
        lane = target.provider
        inputs = _target_inputs(target, spec)
        must = bool(target.required)
        upload = drawing.add(
            f"{lane}.upload", "upload", lane, inputs, [disk], [f"{lane}.check"], required=must
        )
        image = drawing.add(
            f"{lane}.register", "register", lane, inputs, [disk, upload], required=must
        )
        for suffix, regions, required in (
            ("", target.required, True),
            (".optional", target.optional, False),
        ):
            if not regions:
                continue
            group = {**inputs, "regions": list(regions)}
            copy = drawing.add(
                f"{lane}.copy{suffix}", "copy", lane, group, [disk, image], required=required
            )
            verify = drawing.add(
                f"{lane}.verify{suffix}", "verify", lane, group, [disk, copy], required=required
            )
            if required:
                ready.append(verify)
            groups.append((target, copy, verify, required))
    barrier = drawing.add("barrier", "barrier", "release", {}, [], ready)
    for target, copy, verify, required in groups:
        lane = target.provider
        drawing.add(
            f"{lane}.release{'' if required else '.optional'}",
            "release",
            lane,
            {**_target_inputs(target, spec), "audience": target.audience.to_json()},
            [copy, verify],
            [barrier],
            required=required,
        )
