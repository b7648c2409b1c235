"""Lint: all rules against one disk, without booting it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from publisher.errors import PipelineError, ProofError
from publisher.linting import Ignore
from publisher.model import Disk, Finding, Severity, Spec
from publisher.proof import checks
from publisher.proof.checks import claims
from publisher.proof.inspect.budget import READER_FAULTS, Budget, Damaged, Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.storage import RawFile, Storage
from publisher.proof.rules import ERROR, NOTE, WARNING, Evidence, Rule
from publisher.settings import suggest
from publisher.task import Task

_TEXT_MOST = 1000
_EACH_MOST = 50
"""The most findings of one rule: a disk that breaks it a thousand times says no more."""


class Linted(Protocol):
    """A cloud that has rules of its own."""

    @property
    def name(self) -> str: ...

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        """The cloud's rules for images published as `spec`; None: nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A finding that the user accepts, with the reason."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """`findings` are ordered by severity; `rules` are those that were asked."""

    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    rules: tuple[Rule, ...]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)

    def fails(self, *, strict: bool = False) -> bool:
        return bool(self.count(ERROR) or (strict and self.count(WARNING)))

    def refuse(self, *, strict: bool = False) -> None:
        """Raise ProofError where the disk fails."""
        if not self.fails(strict=strict):
            return
        worst = [
            f for f in self.findings if f.severity is ERROR or (strict and f.severity is WARNING)
        ]
        first = worst[0]
        more = f", and {len(worst) - 1} more" if len(worst) > 1 else ""
        raise ProofError(
            f"the disk fails lint: {first.rule}: {first.evidence}{more}",
            key=first.key,
            hint=first.fix,
        )


UNREADABLE = Rule(
    "lint.unreadable",
    WARNING,
    "Every rule can be decided",
    "A rule that can't be decided proves nothing; a damaged disk is an error.",
    "https://docs.kernel.org/filesystems/",
    "repair the disk, or rehearse the image, which boots it",
    lambda _disk: (),
)
"""Told of by lint itself: which rules could not look, and why."""


def rules_for(clouds: Iterable[Linted], spec: Spec | None = None) -> tuple[Rule, ...]:
    """All rules for a disk that goes to these clouds."""
    own = [rule for cloud in clouds for rule in cloud.rules(spec)]
    return (UNREADABLE, *claims.rules(spec), *checks.RULES, *own)


def lint(
    disk: Disk,
    clouds: Sequence[Linted],
    ignore: Sequence[Ignore],
    task: Task,
    spec: Spec | None = None,
) -> Sequence[Finding]:
    """The findings of a sealed disk, those that are ignored as notes.

    Raises PipelineError for an ignored rule that does not exist.
    """
    task.phase("looking through the disk")
    budget = Budget(check=task.check)
    with RawFile(disk.path, budget) as file:
        report = examine(file, clouds, ignore, budget, spec, task.phase)
    accepted = [
        replace(i.finding, severity=NOTE, evidence=f"{i.finding.evidence} (ignored: {i.reason})")
        for i in report.ignored
    ]
    return (*report.findings, *accepted)


def examine(
    disk: Storage,
    clouds: Sequence[Linted],
    ignore: Sequence[Ignore],
    budget: Budget,
    spec: Spec | None = None,
    announce: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Ask every rule. Bounded by the budget, whatever the disk holds."""
    rules = rules_for(clouds, spec)
    _check_ids(ignore, rules)
    names = {cloud.name for cloud in clouds}
    inspection = Inspection(disk, budget)
    findings: list[Finding] = []
    undecided: dict[tuple[str, str], tuple[Severity, list[str]]] = {}
    for rule in rules:
        announce(rule.title)
        found: list[Evidence] = []
        try:
            for evidence in rule.check(inspection):
                found.append(evidence)
                if len(found) >= _EACH_MOST:
                    break
        except Unreadable as error:
            severity = ERROR if isinstance(error, Damaged) else WARNING
            known = undecided.setdefault((error.message, error.hint), (severity, []))
            known[1].append(rule.id)
        except READER_FAULTS as error:
            text = f"what was read makes no sense ({type(error).__name__}: {error})"
            undecided.setdefault((text, ""), (ERROR, []))[1].append(rule.id)
        findings += [_finding(rule, evidence, names) for evidence in found]
    for (text, hint), (severity, ids) in undecided.items():
        evidence_text = f"{text[:_TEXT_MOST]}; not decided: {', '.join(ids)}"
        fix = hint or UNREADABLE.fix
        findings.append(Finding(UNREADABLE.id, severity, evidence_text, fix))
    return _sort(findings, ignore, rules)


def _finding(rule: Rule, evidence: Evidence, clouds: set[str]) -> Finding:
    severity = evidence.severity or rule.severity
    if evidence.belongs_to in clouds:
        severity = NOTE
    # names on a hostile disk may be as long as it likes
    text, path = evidence.text[:_TEXT_MOST], evidence.path[:_TEXT_MOST]
    return Finding(rule.id, severity, text, rule.fix, evidence.key, path, evidence.line)


def _sort(findings: list[Finding], ignore: Sequence[Ignore], rules: tuple[Rule, ...]) -> Report:
    order = (ERROR, WARNING, NOTE)
    kept: list[Finding] = []
    ignored: list[Ignored] = []
    for finding in sorted(findings, key=lambda f: order.index(f.severity)):
        accepted = next(
            (i for i in ignore if i.rule == finding.rule and i.path in ("", finding.path)), None
        )
        if accepted is not None:
            ignored.append(Ignored(finding, accepted.reason))
        else:
            kept.append(finding)
    return Report(tuple(kept), tuple(ignored), rules)


def _check_ids(ignore: Sequence[Ignore], rules: Sequence[Rule]) -> None:
    known = [rule.id for rule in rules]
    for number, item in enumerate(ignore):
        # a rule of a cloud that is not asked now may be one of another run
        if item.rule not in known and item.rule.partition(".")[0] in _scopes(known):
            raise PipelineError(
                f"there is no rule {item.rule!r}",
                key=f"lint.ignore[{number}].rule",
                hint=suggest(item.rule, known),
            )


def _scopes(ids: Iterable[str]) -> set[str]:
    return {ident.partition(".")[0] for ident in ids}
