"""Pipeline ▶ Plan, pure: which steps there are, what decides each one, and its key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from publisher import provider
from publisher.drawing import Drawing, Line, Target
from publisher.errors import PipelineError
from publisher.flavours import Proofs
from publisher.model import Noun, Spec
from publisher.recipe import fingerprint
from publisher.step import BUILT_AS, ORIGIN, Step, key_in_file, step_key

if TYPE_CHECKING:
    from publisher.flavours import Flavour, Pipeline
    from publisher.provider import Options

__all__ = [
    "BUILT_AS",
    "ORIGIN",
    "Plan",
    "Planned",
    "Step",
    "Target",
    "builds",
    "key_in_file",
    "plan",
    "plan_download",
    "required_regions",
    "step_key",
]


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
    labels of the images that the pipeline has besides `flavours`. `origins` is what is
    told of each build, by its step: the "pipeline" file and the "recipe", in which what
    came from a variable stands as ${NAME}."""

    title: str
    name: str
    version: str
    steps: tuple[Step, ...]
    all_or_nothing: bool = True
    flavours: tuple[Planned, ...] = ()
    left_out: tuple[str, ...] = ()
    origins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def step(self, identity: str) -> Step:
        return next(step for step in self.steps if step.id == identity)


def plan(pipeline: Pipeline, only: Sequence[str] = (), realm: str = "") -> Plan:
    """The plan of a pipeline file; `only` narrows it to some of its targets, `realm`
    is as in Target.

    Reads the local files that the recipes name (their digests are inputs), and
    nothing else. Raises PipelineError when one is missing.
    """
    drawing = Drawing()
    drawn = []
    for flavour in pipeline.flavours:
        targets = _targets(flavour, only, realm)
        if targets:
            line = Line(drawing, flavour.spec(), targets, flavour.label, _origins(flavour))
            drawn.append((flavour, targets, line))
    checks = [check for _, _, line in drawn for check in line.checks()]
    fingerprints: dict[str, Mapping[str, Any]] = {}
    planned, sources = [], []
    origins = {}
    file = {"name": pipeline.path.name, "digest": {"sha256": pipeline.digest}}
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
        origins[source] = {"pipeline": file, "recipe": _redacted(fingerprints[recipe], pipeline)}
        line.proofs(source, flavour.proofs)
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
        origins,
    )


def _targets(flavour: Flavour, only: Sequence[str], realm: str) -> list[Target]:
    return [
        Target(
            name,
            options,
            flavour.audience(name),
            required_regions(name, options, flavour.release),
            realm,
            provider.load(name).traits.boots,
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


def _redacted(value: Any, pipeline: Pipeline) -> Any:
    if isinstance(value, str):
        return pipeline.redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(inner, pipeline) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, pipeline) for inner in value]
    return value


def _origins(flavour: Flavour) -> str:
    moved = [[list(path), list(place)] for path, place in flavour.origins.items()]
    return json.dumps(moved) if moved else ""


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
    of `multiple` bytes. It is searched for secrets, its packages are listed, and it is
    not proved to start: nothing adapts it to its clouds."""
    drawing = Drawing()
    line = Line(drawing, spec, targets)
    checks = line.checks()
    inputs = {**source, "size_multiple": multiple}
    disk = line.add("download", "download", "source", inputs, after=checks, local=local)
    line.proofs(disk, Proofs())
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
