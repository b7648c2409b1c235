"""The runbook's proofs: what is shown of a disk before a byte of it is uploaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher import provider as seam
from publisher.context import Context, Value, disk_of, recipe_of, spec_of
from publisher.journal import release_directory
from publisher.linting import Ignore, Lint
from publisher.model import Finding, Severity, Spec
from publisher.plan import Step, key_in_file
from publisher.proof.guest import Guest, Rehearsable
from publisher.rehearsal import Rehearse
from publisher.secret_gate import SecretGate
from publisher.task import Task
from publisher.vm.vanishing import vanishing

if TYPE_CHECKING:
    from publisher.proof.rehearse import Rehearsal
    from publisher.proof.secrets.known import Known


def _guest(name: str, options: Mapping[str, Any]) -> Guest:
    kind = seam.load(name)
    assert issubclass(kind, Rehearsable), name
    return kind.guest(kind.options(**options))


def _told(findings: Sequence[Finding], step: Step, task: Task) -> list[Finding]:
    """The same with their keys as in the pipeline file, each shown; notes are only kept."""
    placed = [
        dataclasses.replace(finding, key=key_in_file(step, finding.key)) if finding.key else finding
        for finding in findings
    ]
    for finding in placed:
        if finding.severity is not Severity.NOTE:
            task.finding(finding)
    return placed


def spec_of_disk(step: Step, context: Context, value: Value, task: Task) -> Spec:
    """The step's spec with what the disk bears of what its cloud can be told."""
    from publisher.proof.abilities import looked_at

    spec = spec_of(step, context, value)
    name = step.inputs["provider"]
    if not issubclass(seam.load(name), Rehearsable):
        return spec
    guest = _guest(name, step.inputs["options"])
    return looked_at(spec, guest, disk_of(context, value), task)


def lint(step: Step, context: Context, task: Task) -> Value:
    """Look through the disk by the rules of all its clouds. Raises ProofError."""
    from publisher.proof.lint import Report
    from publisher.proof.lint import lint as lint_disk

    value = context.outcome(step.needs[0])
    settings = Lint.model_validate(step.inputs["lint"])
    guests = [_guest(name, options) for name, options in step.inputs["clouds"].items()]
    spec = spec_of(step, context, value)
    findings = lint_disk(disk_of(context, value), guests, settings.ignore, task, spec)
    told = _told(findings, step, task)
    Report(tuple(findings), (), ()).refuse(strict=settings.strict)
    return {"findings": [finding.to_json() for finding in told]}


def secrets(step: Step, context: Context, task: Task) -> Value:
    """Search all bytes of the disk. Raises ProofError where the release is public."""
    from publisher.proof.secrets.search import refuse, search

    value = context.outcome(step.needs[0])
    settings = SecretGate.model_validate(step.inputs["secrets"])
    known = _known(step, context.plan.step(step.needs[0]), value)
    found = search(disk_of(context, value), known, task)
    findings = list(_accepted(found, settings.ignore))
    public = bool(step.inputs["public"])
    told = findings if public else [_softened(finding) for finding in findings]
    _told(told, step, task)
    refuse(findings, public=public)
    return {"findings": [finding.to_json() for finding in told]}


def _known(step: Step, source: Step, value: Value) -> Known:
    """The values of a build's secrets that can still be read, and the traces of all that
    ever went into its disk."""
    from publisher.build import secrets
    from publisher.build.builder import TRACES
    from publisher.proof.secrets.known import Known
    from publisher.proof.secrets.trace import Trace

    def title(label: str) -> str:
        key, dot, name = label.rpartition(".secrets.")
        return f"the secret {name} of {key_in_file(step, key)}" if dot else label

    values: dict[str, str] = {}
    if source.kind == "build":
        directory = Path(source.local["directory"])
        values = secrets.at_hand(recipe_of(source), directory)
    traces = [Trace.from_json(trace) for trace in value.get(TRACES, ())]
    return Known(
        {title(key): value for key, value in values.items()},
        [dataclasses.replace(trace, label=title(trace.label)) for trace in traces],
    )


def _accepted(findings: Sequence[Finding], ignore: Sequence[Ignore]) -> Iterator[Finding]:
    for finding in findings:
        known = next(
            (i for i in ignore if i.rule == finding.rule and i.path in ("", finding.path)), None
        )
        if known is None:
            yield finding
        else:
            evidence = f"{finding.evidence} (ignored: {known.reason})"
            yield dataclasses.replace(finding, severity=Severity.NOTE, evidence=evidence)


def _softened(finding: Finding) -> Finding:
    """A release that is not public is warned, and goes on."""
    if finding.severity is Severity.ERROR:
        return dataclasses.replace(finding, severity=Severity.WARNING)
    return finding


def inventory(step: Step, context: Context, task: Task) -> Value:
    """Write the disk's SBOMs beside the manifest."""
    from publisher.proof.inventory.collect import collect
    from publisher.proof.inventory.documents import store

    value = context.outcome(step.needs[0])
    spec = spec_of(step, context, value)
    found = collect(disk_of(context, value), task)
    for gap in found.gaps:
        task.note(f"the inventory lacks something: {gap}", "warning")
    directory = release_directory(context.state, context.plan.name, context.plan.version)
    into = directory / "inventory" / step.flavour if step.flavour else directory / "inventory"
    documents = store(found, into, name=spec.name, version=spec.version)
    return {
        "documents": [document.to_json() for document in documents],
        "gaps": list(found.gaps),
    }


def rehearse(step: Step, context: Context, task: Task) -> Value:
    """Boot the disk as a machine of one cloud. Raises ProofError with what is not so."""
    from publisher.proof.rehearse import limits, require_passed
    from publisher.proof.rehearse import rehearse as boot

    value = context.outcome(step.needs[0])
    name = step.inputs["provider"]
    with vanishing(context.state / "scratch", "rehearse-") as scratch:
        done = boot(
            disk_of(context, value),
            [_guest(name, step.inputs["options"])],
            spec_of(step, context, value),
            Rehearse.model_validate(step.inputs["rehearse"]),
            task,
            scratch=scratch,
            logs=context.state / "rehearsals",
        )
    for rehearsal in done:
        for text in limits.warnings(rehearsal):
            task.note(text, "warning")
    require_passed(done)
    return proved(done[0])


def proved(rehearsal: Rehearsal) -> Value:
    """The outcome of a rehearsal that has passed, whoever did it."""
    return {"rehearsal": rehearsal.to_json()}


def outdone(value: Value) -> str:
    """Why a rehearsal that passed has to be done again, or "": see limits.outdone."""
    from publisher.proof.rehearse import Rehearsal, limits

    return limits.outdone(Rehearsal.from_json(value["rehearsal"]))
