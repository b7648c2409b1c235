"""What `publish doctor` does: host tools, the accelerator, credentials for each cloud."""

from __future__ import annotations

import json as jsons
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from publisher import provider
from publisher.cli import packages
from publisher.cli.signals import cancelling
from publisher.cli.tables import write_table
from publisher.errors import HostError, PublishError
from publisher.model import Arch, Severity, Spec
from publisher.pipeline import Pipeline, load, validate
from publisher.provider import Options
from publisher.task import Cancellation, Retry, detached
from publisher.vm import accelerator, host


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report; `error` is what stands in the way of a run."""

    subject: str
    state: Literal["ok", "warning", "missing", "unknown"]
    detail: str
    error: PublishError | None = None


def run(file: Path | None, *, settings: Sequence[str], fix: bool, json: bool) -> None:
    """Print every check, then raise the error of the first one that stands in the way."""
    pipeline = None
    if file is not None:
        pipeline = load(file, settings=settings, environ=os.environ)
        validate(pipeline)
    arch: Arch = pipeline.image.arch if pipeline else "x86_64"
    if fix:
        needed = sorted({r.package for r in host.requirements(arch) if not r.found})
        if needed:
            packages.install(needed)
    with cancelling() as cancellation:
        checks = [*_host(arch), _accelerator(arch), *_clouds(pipeline, cancellation)]
        cancellation.check()
    if json:
        lines = [{k: v for k, v in asdict(check).items() if k != "error"} for check in checks]
        print(jsons.dumps(lines, indent=2))  # noqa: T201
    else:
        write_table(("state", "check"), [(c.state, f"{c.subject}: {c.detail}") for c in checks])
    for check in checks:
        if check.error is not None:
            raise check.error


def _host(arch: Arch) -> list[Check]:
    found = host.requirements(arch)
    needed = sorted({r.package for r in found if not r.found})
    lacking = ", ".join(r.name for r in found if not r.found)
    error = HostError(
        f"this machine lacks {lacking}",
        hint=f"run publish doctor --fix, or: {packages.command(needed)}",
    )
    return [
        Check(r.name, "ok", r.why)
        if r.found
        else Check(r.name, "missing", f"{r.why}; Debian package {r.package}", error)
        for r in found
    ]


def _accelerator(arch: Arch) -> Check:
    try:
        found = accelerator.probe(arch)
    except HostError as error:
        return Check("accelerator", "unknown", str(error))
    return Check("accelerator", "ok" if found.kind == "kvm" else "warning", found.reason)


def _clouds(pipeline: Pipeline | None, cancellation: Cancellation) -> list[Check]:
    """The clouds of a pipeline, or every installed one as far as it needs no options."""

    def ask(name: str) -> Check:
        if pipeline is not None:
            options = pipeline.targets[name]
            return _cloud(name, options, pipeline.spec(), cancellation, needed=True)
        try:
            options = provider.load(name).options()
        except ValidationError as error:
            wanted = ", ".join(str(d["loc"][0]) for d in error.errors() if d["loc"])
            advice = "run publish doctor FILE with a pipeline file"
            return Check(name, "unknown", f"not checked, needs {wanted}: {advice}")
        return _cloud(name, options, Spec("doctor", "0.0.1"), cancellation, needed=False)

    names = list(pipeline.targets) if pipeline is not None else provider.names()
    if not names:
        return []
    with ThreadPoolExecutor(len(names), thread_name_prefix="doctor") as pool:
        return list(pool.map(ask, names))


def _cloud(
    name: str, options: Options, spec: Spec, cancellation: Cancellation, *, needed: bool
) -> Check:
    with tempfile.TemporaryDirectory(prefix="doctor-") as directory:
        task = detached(
            Path(directory), f"{name}.check", cancellation=cancellation, retry=Retry(attempts=2)
        )
        try:
            regions = options.locations() if needed else ()
            findings = provider.load(name)(options).check(spec, regions, task)
        except PublishError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return Check(name, "missing", f"{error}{hint}", error if needed else None)
        finally:
            task.memory.close()
    bad = [f for f in findings if f.severity is not Severity.NOTE]
    if bad:
        fix = f" ({bad[0].fix})" if bad[0].fix else ""
        return Check(name, "warning", f"{bad[0].evidence}{fix}")
    return Check(name, "ok", "; ".join(f.evidence for f in findings) or "credentials work")
