"""What lint does: open the disk, ask the rules, print the findings, refuse."""

from __future__ import annotations

import json as jsons
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from publisher import provider
from publisher.cli.actions import sandbox_defaults
from publisher.cli.signals import cancelling
from publisher.cli.tables import write, write_table
from publisher.cli.words import chosen, suggestion
from publisher.errors import HostError, UsageError
from publisher.flavours import Flavour
from publisher.linting import Ignore
from publisher.model import Finding, Severity
from publisher.pipeline import load
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.opening import opened
from publisher.proof.lint import Report, examine, rules_for
from publisher.task import detached

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: ""}


def run(
    path: Path | None,
    *,
    clouds: str,
    strict: bool,
    ignore: Sequence[str],
    sarif: Path | None,
    pipeline: Path | None,
    settings: Sequence[str],
    variants: Sequence[str],
    archs: Sequence[str],
    state: Path,
    json: bool,
) -> None:
    if path is None:
        raise UsageError("which disk?", hint="publish lint DISK, or publish lint --rules")
    flavour = _flavour(pipeline, settings, variants, archs)
    guests = _guests(clouds, flavour)
    accepted = [Ignore(rule=rule, reason="--ignore") for rule in ignore]
    _refuse_unknown(ignore, guests)
    with cancelling() as cancellation, tempfile.TemporaryDirectory() as memory:
        task = detached(Path(memory), "lint", cancellation=cancellation)
        budget = Budget(check=task.check)
        with opened(path.expanduser(), state / "scratch", budget, task) as disk:
            spec = flavour.spec() if flavour else None
            report = examine(disk, guests, accepted, budget, spec)
    if flavour is not None:
        report = _in_file(report, flavour)
    if sarif is not None:
        _write_sarif(report, path, sarif)
    if json:
        print(jsons.dumps(_document(report, path, guests), indent=2))  # noqa: T201
    else:
        _show(report)
    report.refuse(strict=strict)


def explain(rule: str, *, clouds: str, json: bool) -> None:
    """One rule in full, or the list of all."""
    known = {known.id: known for known in rules_for(_guests(clouds, None))}
    if rule and rule not in known:
        raise UsageError(f"there is no rule {rule!r}", hint=suggestion(rule, list(known)))
    wanted = [known[rule]] if rule else list(known.values())
    if json:
        fields = ("id", "severity", "title", "why", "fix", "url")
        print(jsons.dumps([{f: getattr(r, f) for f in fields} for r in wanted], indent=2))  # noqa: T201
    elif rule:
        write(f"{rule} ({known[rule].severity}): {known[rule].title}", "bold")
        for line in (known[rule].why, f"fix: {known[rule].fix}", f"see: {known[rule].url}"):
            write(line)
    else:
        write_table(("rule", "severity", "title"), [(r.id, r.severity, r.title) for r in wanted])


def _flavour(
    pipeline: Path | None,
    settings: Sequence[str],
    variants: Sequence[str],
    archs: Sequence[str],
) -> Flavour | None:
    if pipeline is None:
        return None
    # options that only a run needs, such as names from the environment, may be missing
    loaded = load(pipeline, settings=settings, environ=os.environ, defaults=sandbox_defaults)
    kept = loaded.choose(variants, archs).flavours
    if len(kept) > 1:
        labels = ", ".join(flavour.label for flavour in kept)
        raise UsageError(
            f"which image of {pipeline}? It has {labels}", hint="give --variant, --arch or both"
        )
    return kept[0]


def _guests(clouds: str, flavour: Flavour | None) -> list[Guest]:
    """The clouds that were asked for, the pipeline's, or all."""
    kinds = {name: provider.load(name) for name in provider.names()}
    known = [name for name, kind in kinds.items() if issubclass(kind, Rehearsable)]
    own = [name for name in flavour.targets if name in known] if flavour else known
    guests = []
    for name in chosen(clouds, known, "cloud with rules") or own:
        kind: Any = kinds[name]
        guests.append(kind.guest(flavour.targets.get(name) if flavour else None))
    return guests


def _in_file(report: Report, flavour: Flavour) -> Report:
    """Keys as they stand in a file with variants."""
    findings = (replace(f, key=flavour.key(f.key) if f.key else "") for f in report.findings)
    return replace(report, findings=tuple(findings))


def _refuse_unknown(ignore: Sequence[str], guests: Sequence[Guest]) -> None:
    known = [rule.id for rule in rules_for(guests)]
    for rule in ignore:
        if rule not in known:
            raise UsageError(f"there is no rule {rule!r}", hint=suggestion(rule, known))


def _write_sarif(report: Report, disk: Path, into: Path) -> None:
    from publisher.proof.sarif import document

    try:
        into.write_text(jsons.dumps(document(report, disk.name), indent=2) + "\n")
    except OSError as error:
        raise HostError(f"cannot write {into}: {error.strerror}") from error


def _document(report: Report, disk: Path, guests: Sequence[Guest]) -> Mapping[str, Any]:
    ignored = [{**i.finding.to_json(), "reason": i.reason} for i in report.ignored]
    return {
        "disk": str(disk),
        "clouds": [guest.name for guest in guests],
        "rules": len(report.rules),
        "findings": [finding.to_json() for finding in report.findings],
        "ignored": ignored,
    }


def _show(report: Report) -> None:
    for finding in report.findings:
        write(f"{finding.severity}: {finding.rule}: {finding.evidence}", _STYLES[finding.severity])
        if place(finding):
            write(f"  at: {place(finding)}")
        write(f"  fix: {finding.fix}")
    for ignored in report.ignored:
        write(f"ignored: {ignored.finding.rule}: {ignored.finding.evidence} ({ignored.reason})")
    counts = [f"{report.count(s)} {s}s" for s in (Severity.ERROR, Severity.WARNING, Severity.NOTE)]
    write(f"{', '.join(counts)} by {len(report.rules)} rules")


def place(finding: Finding) -> str:
    """Where it was seen: file and line of the disk, or key of the pipeline."""
    where = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return ", ".join(filter(None, (where, finding.key)))
