"""What `publish doctor` does: host tools, the accelerator, credentials for each cloud."""

from __future__ import annotations

import json as jsons
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from publisher import provider
from publisher.build import binfmt, namespace
from publisher.cli import packages
from publisher.cli.signals import cancelling
from publisher.cli.tables import write_table
from publisher.errors import (
    CredentialsError,
    HostError,
    ProviderError,
    PublishError,
    UnreachableError,
)
from publisher.model import Arch, Severity, Spec
from publisher.pipeline import Flavour, Pipeline, load, validate
from publisher.provider import Emulated, Options
from publisher.task import Cancellation, Retry, Task, detached
from publisher.vm import accelerator, host
from publisher.vm import namespace as private_network
from publisher.vm.arch import PLATFORMS, is_native, platform_of

_ADVICE = "run publish doctor FILE with a pipeline file"


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
    native: Arch = next((arch for arch in PLATFORMS if is_native(arch)), "x86_64")
    archs: Sequence[Arch] = pipeline.archs if pipeline else (native,)
    if fix:
        needed = sorted(
            {r.package for arch in archs for r in host.requirements(arch) if not r.found}
        )
        if needed:
            packages.install(needed)
    with cancelling() as cancellation:
        here = [
            check
            for arch in archs
            for check in (*_host(arch), _accelerator(arch), *_programs(arch))
        ]
        others = [_other(arch) for arch in PLATFORMS if arch not in archs and pipeline is None]
        known = [*dict.fromkeys(here), _network(), *others]
        checks = [*known, *_clouds(pipeline, cancellation)]
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


def _network() -> Check:
    """Whether a rehearsal's guest can get a network of its own."""
    kind, why = private_network.probe()
    if kind and (refusal := private_network.ipv6_refusal()):
        why = f"guests get no IPv6 addresses: {refusal}"
    if why:
        return Check("rehearsals", "warning", f"less can be proved: {why}")
    return Check("rehearsals", "ok", "guests get a network of their own")


def _programs(arch: Arch) -> list[Check]:
    """Whether Debian for a foreign architecture can be installed."""
    if is_native(arch):
        return []
    subject = f"programs for {arch}"
    with tempfile.TemporaryDirectory(prefix="doctor-") as name:
        directory = Path(name)
        try:
            binfmt.emulating(namespace.probe(directory), platform_of(arch), directory)
        except HostError as error:
            return [Check(subject, "missing", _with_fix(error.message, error.hint), error)]
    return [Check(subject, "ok", "they run emulated while Debian gets installed")]


def _other(arch: Arch) -> Check:
    """What images of an architecture would need that nothing asked for yet."""
    subject = f"images of {arch}"
    lacking = [r for r in host.requirements(arch) if not r.found]
    if lacking:
        names = ", ".join(r.name for r in lacking)
        fix = packages.command(sorted({r.package for r in lacking}))
        return Check(subject, "warning", f"would need {names} ({fix})")
    for check in _programs(arch):
        if check.error is not None:
            return Check(subject, "warning", check.detail)
    return Check(subject, "ok", "can be built here")


def _clouds(pipeline: Pipeline | None, cancellation: Cancellation) -> list[Check]:
    """The clouds of a pipeline's images, or of every installed provider the credentials."""

    def ask(name: str, flavour: Flavour | None = None) -> Check:
        with tempfile.TemporaryDirectory(prefix="doctor-") as directory:
            task = detached(
                Path(directory), f"{name}.check", cancellation=cancellation, retry=Retry(attempts=2)
            )
            try:
                if flavour is None:
                    return _credentials(name, task)
                told = _target(name, flavour.targets[name], flavour.spec(), task)
                subject = f"{flavour.label}.{name}" if flavour.label else name
                return replace(told, subject=subject)
            finally:
                task.memory.close()

    asked: list[tuple[str, Flavour | None]] = (
        [(name, flavour) for flavour in pipeline.flavours for name in flavour.targets]
        if pipeline is not None
        else [(name, None) for name in provider.names()]
    )
    if not asked:
        return []
    with ThreadPoolExecutor(len(asked), thread_name_prefix="doctor") as pool:
        return list(pool.map(lambda one: ask(*one), asked))


def _target(name: str, options: Options, spec: Spec, task: Task) -> Check:
    """All that a run would check first in this cloud."""
    try:
        findings = provider.load(name)(options).check(spec, options.locations(), task)
    except PublishError as error:
        return Check(name, "missing", _with_fix(str(error), error.hint), error)
    for finding in findings:
        if finding.severity is Severity.ERROR:
            detail = _with_fix(finding.evidence, finding.fix)
            refused = ProviderError(finding.evidence, provider=name, hint=finding.fix)
            return Check(name, "missing", detail, refused)
    for finding in findings:
        if finding.severity is Severity.WARNING:
            return Check(name, "warning", _with_fix(finding.evidence, finding.fix))
    return Check(name, "ok", "; ".join(f.evidence for f in findings) or "credentials work")


def _credentials(name: str, task: Task) -> Check:
    """Whether there are credentials at all. Options that are required are made
    up, so that anything that the cloud says about them is no news."""
    kind = provider.load(name)
    try:
        made_up: dict[str, object] = (
            dict(kind.sandbox_options()) if isinstance(kind, Emulated) else {}
        )
        options = kind.options.model_validate(made_up)
        kind(options).check(Spec("doctor", "0.0.1"), options.locations(), task)
    except ValidationError:
        return Check(name, "unknown", f"not checked: {_ADVICE}")
    except (HostError, CredentialsError) as error:
        # An error with a code is the cloud's answer: something was sent to it.
        if not getattr(error, "code", ""):
            return Check(name, "missing", _with_fix(error.message, error.hint))
    except UnreachableError as error:
        return Check(name, "warning", _with_fix(error.message, error.hint))
    except ProviderError:
        pass
    except PublishError as error:
        return Check(name, "unknown", _with_fix(error.message, error.hint))
    return Check(name, "ok", f"credentials found; {_ADVICE} to see what they may do")


def _with_fix(text: str, fix: str) -> str:
    return f"{text} ({fix})" if fix else text
