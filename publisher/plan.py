"""Pipeline ▶ Plan, pure: which steps there are, what decides each one, and its key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from publisher.errors import PipelineError
from publisher.model import Audience, Noun, Spec
from publisher.recipe import fingerprint
from publisher.settings import parse_key, show_key
from publisher.variants import origin

if TYPE_CHECKING:
    from publisher.flavours import Flavour, Pipeline
    from publisher.provider import Options


ORIGINS = "origins"
"""Where `Step.local` has which key paths stand elsewhere in the file (variants.Merged)."""
BUILT_AS = "built as"
"""The input of a build under which several images share their checkpoints: a disk's
identifiers derive from it, so the first steps of all variants make the same bytes."""


@dataclass(frozen=True, slots=True)
class Step(Noun):
    """One thing to do, as JSON.

    `needs` are the steps whose outcomes it reads: their keys are part of its
    key. `after` only orders. `key` is sha256 over kind, inputs and the needs'
    keys. `required`: without this step nothing may be released. `local` is what
    only this machine knows (a directory) and no part of the key. `flavour` is the
    label of the image that it is for.
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
    flavour: str = ""


@dataclass(frozen=True, slots=True)
class Planned(Noun):
    """An image of the release: `label` tells it from the others, `source` is the
    step that makes its disk."""

    label: str
    variant: str
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Plan(Noun):
    """The steps of one release, each behind all that it needs. `left_out` are the
    labels of the images that the pipeline has besides `flavours`."""

    title: str
    name: str
    version: str
    steps: tuple[Step, ...]
    all_or_nothing: bool = True
    flavours: tuple[Planned, ...] = ()
    left_out: tuple[str, ...] = ()

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

    def barrier(self, ready: Sequence[str]) -> str:
        """The one step that all images wait for before any is opened."""
        key = step_key("barrier", {}, [])
        self.steps["barrier"] = Step("barrier", "barrier", "release", {}, (), key, tuple(ready))
        return "barrier"


class _Line:
    """The steps of one image, from its source into every cloud."""

    def __init__(
        self,
        drawing: _Drawing,
        spec: Spec,
        targets: Sequence[Target],
        label: str = "",
        origins: str = "",
    ) -> None:
        self._drawing = drawing
        self._spec = spec
        self._targets = targets
        self._label = label
        self._origins = {ORIGINS: origins} if origins else {}
        self._verified: list[tuple[Target, str, str, bool]] = []

    def add(
        self,
        name: str,
        kind: str,
        lane: str,
        inputs: Mapping[str, Any],
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
        *,
        required: bool = True,
        local: Mapping[str, str] | None = None,
    ) -> str:
        prefix = f"{self._label}." if self._label else ""
        steps, identity = self._drawing.steps, f"{prefix}{name}"
        steps[identity] = Step(
            identity,
            kind,
            f"{prefix}{lane}",
            inputs,
            tuple(needs),
            step_key(kind, inputs, [steps[need].key for need in needs]),
            tuple(after),
            required,
            {**(local or {}), **self._origins},
            self._label,
        )
        return identity

    def _inputs(self, target: Target) -> dict[str, Any]:
        return {
            "provider": target.provider,
            "options": target.options.model_dump(mode="json", by_alias=True),
            "spec": self._spec.to_json(),
            **({"realm": target.realm} if target.realm else {}),
        }

    def checks(self) -> list[str]:
        """What is asked of every cloud before anything is made."""
        return [
            self.add(
                f"{target.provider}.check",
                "check",
                target.provider,
                {**self._inputs(target), "regions": list(target.options.locations())},
                required=bool(target.required),
            )
            for target in self._targets
        ]

    def copies(self, disk: str) -> list[str]:
        """upload ▶ register ▶ copy ▶ verify in every cloud; returns what must be
        ready before anything is opened."""
        prefix = f"{self._label}." if self._label else ""
        ready: list[str] = []
        for target in self._targets:
            lane = target.provider
            inputs = self._inputs(target)
            must, check = bool(target.required), f"{prefix}{lane}.check"
            upload = self.add(
                f"{lane}.upload", "upload", lane, inputs, [disk], [check], required=must
            )
            image = self.add(
                f"{lane}.register", "register", lane, inputs, [disk, upload], required=must
            )
            for suffix, regions, required in (
                ("", target.required, True),
                (".optional", target.optional, False),
            ):
                if not regions:
                    continue
                group = {**inputs, "regions": list(regions)}
                copy = self.add(
                    f"{lane}.copy{suffix}", "copy", lane, group, [disk, image], required=required
                )
                verify = self.add(
                    f"{lane}.verify{suffix}", "verify", lane, group, [disk, copy], required=required
                )
                if required:
                    ready.append(verify)
                self._verified.append((target, copy, verify, required))
        return ready

    def releases(self, barrier: str) -> None:
        for target, copy, verify, required in self._verified:
            lane = target.provider
            self.add(
                f"{lane}.release{'' if required else '.optional'}",
                "release",
                lane,
                {**self._inputs(target), "audience": target.audience.to_json()},
                [copy, verify],
                [barrier],
                required=required,
            )


def plan(pipeline: Pipeline, only: Sequence[str] = (), realm: str = "") -> Plan:
    """The plan of a pipeline file; `only` narrows it to some of its targets, `realm`
    is as in Target.

    Reads the local files that the recipes name (their digests are inputs), and
    nothing else. Raises PipelineError when one is missing.
    """
    drawing = _Drawing()
    drawn = []
    for flavour in pipeline.flavours:
        targets = _targets(flavour, only, realm)
        if targets:
            line = _Line(drawing, flavour.spec(), targets, flavour.label, _origins(flavour))
            drawn.append((flavour, targets, line))
    checks = [check for _, _, line in drawn for check in line.checks()]
    fingerprints: dict[str, Mapping[str, Any]] = {}
    planned, sources = [], []
    for flavour, targets, line in drawn:
        spec = flavour.spec()
        recipe = flavour.build.model_dump_json()
        if recipe not in fingerprints:
            fingerprints[recipe] = _fingerprint(flavour, pipeline)
        inputs: dict[str, Any] = {"recipe": fingerprints[recipe], "spec": spec.to_json()}
        if spec.name != pipeline.name:
            inputs[BUILT_AS] = pipeline.name
        source = line.add(
            "build",
            "build",
            "build",
            inputs,
            after=checks,
            required=len(drawn) == 1 or any(target.required for target in targets),
            local={"directory": str(pipeline.directory)},
        )
        sources.append((line, source))
        planned.append(Planned(flavour.label, flavour.variant, spec.name, source))
    ready = [verify for line, source in sources for verify in line.copies(source)]
    barrier = drawing.barrier(ready)
    for line, _ in sources:
        line.releases(barrier)
    return Plan(
        f"{pipeline.name} {pipeline.version}",
        pipeline.name,
        pipeline.version,
        tuple(drawing.steps.values()),
        any(flavour.release.all_or_nothing for flavour, _, _ in drawn),
        tuple(planned),
        pipeline.left_out,
    )


def _targets(flavour: Flavour, only: Sequence[str], realm: str) -> list[Target]:
    return [
        Target(
            name,
            options,
            flavour.audience(name),
            required_regions(name, options, flavour.release),
            realm,
        )
        for name, options in flavour.targets.items()
        if not only or name in only
    ]


def _fingerprint(flavour: Flavour, pipeline: Pipeline) -> Mapping[str, Any]:
    try:
        return fingerprint(flavour.build, pipeline.directory)
    except PipelineError as error:
        error.key = flavour.key(error.key)
        raise


def _origins(flavour: Flavour) -> str:
    moved = [[list(path), list(place)] for path, place in flavour.origins.items()]
    return json.dumps(moved) if moved else ""


def key_in_file(step: Step, key: str) -> str:
    """Where the pipeline file has what an error of this step calls `key`."""
    path = parse_key(key)
    moved = json.loads(step.local.get(ORIGINS, "[]"))
    return show_key(origin({tuple(a): tuple(b) for a, b in moved}, path)) if path else key


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
    line = _Line(drawing, spec, targets)
    checks = line.checks()
    inputs = {**source, "size_multiple": multiple}
    disk = line.add("download", "download", "source", inputs, after=checks, local=local)
    line.releases(drawing.barrier(line.copies(disk)))
    return Plan(
        f"{source['reference']} as {spec.name} {spec.version}",
        spec.name,
        spec.version,
        tuple(drawing.steps.values()),
        flavours=(Planned("", "", spec.name, disk),),
    )


def required_regions(name: str, options: Options, release: Any) -> tuple[str, ...]:
    """The regions of a target that must be ready before anything is released."""
    regions = options.locations()
    if release.all_or_nothing and not release.required:
        return regions
    if name in release.required:
        return regions
    return tuple(r for r in regions if f"{name}:{r}" in release.required)
