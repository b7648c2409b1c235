"""Makes the Plan of a migration: an image of one cloud, or a file, to other clouds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher import provider as seam
from publisher.complaints import complaints
from publisher.errors import PipelineError, UsageError
from publisher.flavours import plain_name
from publisher.model import Audience, Severity, Spec
from publisher.plan import Plan, Target, plan_download
from publisher.settings import Expansion

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def plan_migration(
    source: str,
    targets: Sequence[str],
    *,
    name: str | None = None,
    version: str | None = None,
    options: Mapping[str, Mapping[str, object]] | None = None,
    realm: str = "",
) -> Plan:
    """The plan that brings `source` to `targets`.

    `source` is "PROVIDER:REFERENCE" or "file:PATH"; a target "PROVIDER:PLACE" or
    "PROVIDER" where `options` (by provider) say all that is needed. Name and
    version come from the reference where they are not given; `realm` is as in
    Target. Raises UsageError.
    """
    provider, reference = _split(source, "source")
    given = options or {}
    known_name, known_version = name_in(reference)
    # everybody may read an image's description, so it does not tell where a file was
    origin = f"file:{Path(reference).name}" if provider == "file" else source
    spec = Spec(name or known_name, version or known_version, description=f"Migrated from {origin}")
    for option, value in (("--name", spec.name), ("--version", spec.version)):
        try:
            plain_name(value)
        except ValueError as error:
            raise UsageError(f"{error}, not {value!r}", key=option) from None
    local: dict[str, str] = {}
    if provider == "file":
        path = Path(reference).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
        status = path.stat()
        local["path"] = str(path)
        made_from: Mapping[str, Any] = {
            "reference": f"file:{path.name}",
            "provider": "file",
            "options": {},
            "file": [str(path), status.st_size, status.st_mtime_ns],
        }
    else:
        kind = seam.load(provider)
        own = given.get(provider, {})
        values = {**own, **kind.options.from_reference(reference, own)}
        made_from = {
            "reference": source,
            "provider": provider,
            "options": complete_options(kind, values, source).model_dump(
                mode="json", by_alias=True
            ),
            **({"realm": realm} if realm else {}),
        }
    drawn = [_target(text, given, realm) for text in targets]
    if len({target.provider for target in drawn}) != len(drawn):
        raise UsageError(
            "a provider is named twice among the targets",
            hint="name it once, with all its regions separated by commas",
        )
    for target in drawn:
        _validate(target, spec)
    multiple = math.lcm(*(seam.load(t.provider).traits.size_multiple for t in drawn))
    return plan_download(made_from, spec, drawn, multiple, local)


def name_in(reference: str) -> tuple[str, str]:
    """Name and version that a reference suggests: its last part, or the last two
    where the last one is a version."""
    parts = [part for part in re.split(r"[/:]", reference) if part] or [""]
    version = parts.pop() if len(parts) > 1 and _VERSION.fullmatch(parts[-1]) else "1.0.0"
    name = re.sub(r"(\.(raw|img|qcow2|vmdk|vhdx?|vdi|ova|xz|gz|zst|bz2))+$", "", parts[-1])
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "image", version


def _split(text: str, what: str) -> tuple[str, str]:
    provider, colon, rest = text.partition(":")
    if colon and rest:
        return provider, rest
    shapes = [seam.load(name).traits.reference for name in seam.names()]
    raise UsageError(
        f"{text!r} is no {what} of a migration", hint=f"write {', '.join(shapes)} or file:PATH"
    )


def _target(text: str, options: Mapping[str, Mapping[str, object]], realm: str) -> Target:
    provider, _, place = text.partition(":")
    kind = seam.load(provider)
    values = {**options.get(provider, {}), **(kind.options.from_target(place) if place else {})}
    chosen = complete_options(kind, values, text)
    if not chosen.locations():
        raise UsageError(f"{text} names no region", hint=f"write {provider}:PLACE:REGION")
    return Target(provider, chosen, Audience(), chosen.locations(), realm)


def complete_options(
    kind: type[seam.Provider], values: Mapping[str, object], text: str
) -> seam.Options:
    """The provider's options; `text` is what the user wrote. Raises UsageError."""
    try:
        return kind.options.model_validate(values)
    except ValidationError as error:
        problems = complaints(error, kind.options, dict(values), (), Expansion({}))
        raise UsageError(
            f"{text}: " + "; ".join(f"{p.key}: {p.message}" for p in problems),
            hint=f"write it in full, or give [targets.{kind.name}] with --pipeline FILE",
        ) from None


def _validate(target: Target, spec: Spec) -> None:
    """Refuse before anything runs what the target's cloud would refuse by its rules.

    Raises UsageError."""
    prefix = f"targets.{target.provider}"
    try:
        target.options.fill(spec)
        findings = seam.load(target.provider)(target.options).validate(spec)
    except PipelineError as error:
        key = f"{prefix}.{error.key or 'name'}"
        raise UsageError(error.message, key=key, hint=error.hint) from None
    for finding in findings:
        if finding.severity is Severity.ERROR:
            key = f"{prefix}.{finding.key}" if finding.key else prefix
            raise UsageError(finding.evidence, key=key, hint=finding.fix)
