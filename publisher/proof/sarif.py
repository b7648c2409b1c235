"""A report as SARIF 2.1.0, which code scanning of GitHub and others shows.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from publisher import __version__
from publisher.model import Finding
from publisher.proof.lint import Report
from publisher.proof.rules import Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_DISK = "DISK"
"""Paths are relative to the root directory of the disk."""


def document(report: Report, disk: str) -> dict[str, Any]:
    """The report on the disk file `disk`. Severities are SARIF's levels: error,
    warning, note; what is ignored is suppressed with its reason."""
    numbers = {rule.id: number for number, rule in enumerate(report.rules)}
    results = [_result(finding, numbers, disk) for finding in report.findings]
    for ignored in report.ignored:
        suppression = {"kind": "external", "justification": ignored.reason}
        result = _result(ignored.finding, numbers, disk)
        results.append({**result, "suppressions": [suppression]})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "cloud-image-publisher",
                        "version": __version__,
                        "rules": [_rule(rule) for rule in report.rules],
                    }
                },
                "originalUriBaseIds": {
                    _DISK: {"description": {"text": f"The root directory of {disk}"}}
                },
                "results": results,
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why}\n\nFix: {rule.fix}"},
        "helpUri": rule.url,
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(finding: Finding, numbers: dict[str, int], disk: str) -> dict[str, Any]:
    if finding.path.startswith("/"):
        uri = quote(finding.path.lstrip("/") or ".")
        place: dict[str, Any] = {"artifactLocation": {"uri": uri, "uriBaseId": _DISK}}
        if finding.line:
            place["region"] = {"startLine": finding.line}
    else:
        place = {"artifactLocation": {"uri": quote(disk)}}
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": numbers[finding.rule],
        "level": finding.severity.value,
        "message": {"text": f"{finding.evidence}. Fix: {finding.fix}"},
        "locations": [{"physicalLocation": place}],
    }
    if finding.key:
        result["properties"] = {"key": finding.key}
    return result
