"""What secrets does: search, print the findings, refuse what may not be public."""

from __future__ import annotations

import json as jsons
import tempfile
from pathlib import Path

from publisher.cli.disk_files import opened
from publisher.cli.signals import cancelling
from publisher.cli.tables import write
from publisher.cli.text import show_bytes
from publisher.model import Severity
from publisher.proof import secrets
from publisher.task import detached

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: ""}


def run(path: Path, *, public: bool, state: Path, json: bool) -> None:
    with cancelling() as cancellation, tempfile.TemporaryDirectory() as memory:
        task = detached(Path(memory), "secrets", cancellation=cancellation)
        with opened(path, state, task) as disk:
            findings = secrets.search(disk, secrets.Known(), task)
            size = disk.data_bytes
    if json:
        found = [finding.to_json() for finding in findings]
        print(jsons.dumps({"disk": str(path), "bytes": size, "findings": found}, indent=2))  # noqa: T201
    else:
        for finding in findings:
            write(f"{finding.severity.value}: {finding.evidence}", _STYLES[finding.severity])
            if finding.fix:
                write(f"  fix: {finding.fix}")
        count = sum(finding.severity is Severity.ERROR for finding in findings)
        kinds = "1 kind of secret" if count == 1 else f"{count or 'no'} kinds of secrets"
        write(f"{kinds} in {show_bytes(size)} of data; compressed files were not opened")
    secrets.refuse(findings, public=public)
