"""The runbook: one function a step kind. Each takes a Step and gives a JSON outcome."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import cast

from publisher import proofs
from publisher import provider as seam
from publisher.context import Context, Value, disk_of, recipe_of, spec_of
from publisher.disks.store import Store
from publisher.errors import ConflictError, ProviderError, UsageError
from publisher.model import Audience, Disk, Finding, Image, Query, Severity, Spec, Upload
from publisher.plan import BUILT_AS, ORIGIN, Step, key_in_file
from publisher.task import Task

OPTIONS = "options"
"""In the outcome of a release: the target options that the images were made with."""


def disk_value(disk: Disk, spec: Spec) -> Value:
    """The outcome of a step that made a disk."""
    return {
        "sha256": disk.sha256,
        "size": disk.size,
        "data": disk.data_bytes,
        "spec": {
            "arch": spec.arch,
            "firmware": spec.firmware,
            "size": disk.size,
            "digest": disk.sha256,
        },
    }


def check(step: Step, context: Context, task: Task) -> Value:
    provider = context.provider(step)
    spec = spec_of(step, context)
    task.phase("checking credentials, permissions and names")
    findings = [*provider.validate(spec), *provider.check(spec, step.inputs["regions"], task)]
    for finding in findings:
        task.finding(prefixed(finding, step))
    errors = [f for f in findings if f.severity is Severity.ERROR]
    if errors:
        first, *others = errors
        more = f" (and {len(others)} more)" if others else ""
        kind = ConflictError if first.rule.endswith("conflict") else ProviderError
        raise kind(
            f"{first.evidence}{more}",
            provider=provider.name,
            code=first.rule,
            key=f"targets.{provider.name}.{first.key}".rstrip("."),
            hint=first.fix,
        )
    return {"findings": [f.to_json() for f in findings]}


def prefixed(finding: Finding, step: Step) -> Finding:
    """The finding with its key as the user wrote it in the pipeline file."""
    key = f"targets.{step.inputs['provider']}.{finding.key}".rstrip(".")
    return dataclasses.replace(finding, key=key_in_file(step, key))


def _built_as(step: Step, spec: Spec) -> Spec:
    """The spec under the name that all variants share: see plan.BUILT_AS."""
    return dataclasses.replace(spec, name=step.inputs.get(BUILT_AS, spec.name))


def preview_build(
    step: Step, store: Store, before: MutableMapping[str, str]
) -> tuple[tuple[str, str, str], ...]:
    """Which steps of a build would be resumed from a checkpoint, and why not the others;
    `before` is as in `explain`."""
    from publisher.build.explain import explain

    spec = _built_as(step, Spec.from_json(step.inputs["spec"]))
    return explain(recipe_of(step), spec, Path(step.local["directory"]), store, before, step.id)


def build(step: Step, context: Context, task: Task) -> Value:
    from publisher.build import build as build_disk
    from publisher.build.builder import BY_HAND, EVIDENCE, MATERIALS, TRACES
    from publisher.proof.secrets.trace import Trace

    spec = spec_of(step, context)
    disk = build_disk(
        recipe_of(step),
        _built_as(step, spec),
        directory=Path(step.local["directory"]),
        store=context.store,
        task=task,
        files=step.inputs["recipe"]["files"],
        on_error=context.on_error,
        trace=lambda label, value: Trace.of(label, value).to_json(),
    )
    kept = {name: task.memory.get(name, []) for name in (EVIDENCE, BY_HAND, TRACES)}
    origin = {**context.plan.origins[step.id], MATERIALS: task.memory.get(MATERIALS, {})}
    return {**disk_value(disk, spec), **kept, ORIGIN: origin}


def download(step: Step, context: Context, task: Task) -> Value:
    """Bring the bytes of a foreign image here, padded to what the targets demand."""
    from publisher.disks.foreign import convert
    from publisher.fetch import unpack
    from publisher.proof.abilities import boots_of

    name, _, reference = step.inputs["reference"].partition(":")
    # of this run alone: another release may bring in the same image at the same time
    into = context.store.scratch(f"{step.key[:32]}-{context.run}.raw")
    if name == "file":
        packed = Path(step.local["path"])
        unpacked = into.with_suffix(".unpacked")
        try:
            room = shutil.disk_usage(into.parent).free
            convert(unpack(packed, unpacked, room, task), into, task)
        finally:
            unpacked.unlink(missing_ok=True)
        spec = boots_of(into, task)
    else:
        provider = context.provider(step)
        if not isinstance(provider, seam.Source):
            raise UsageError(f"{name} images cannot be read", hint="use another source")
        source = cast("seam.Source", provider)
        task.phase(f"looking at {reference}")
        spec = source.describe(reference, task)
        if not into.exists():
            source.download(reference, into, task)
    multiple = int(step.inputs["size_multiple"])
    size = into.stat().st_size
    if size % multiple:
        padded = -(-size // multiple) * multiple
        task.note(f"padded the disk from {size} to {padded} bytes, as the targets demand")
        with into.open("r+b") as file:
            file.truncate(padded)
    task.phase("storing the disk")
    disk = context.store.add(into, task.check)
    return disk_value(disk, spec)


def upload(step: Step, context: Context, task: Task) -> Value:
    """Bring the bytes in, unless the cloud already has the image made of them."""
    provider = context.provider(step)
    disk = context.outcome(step.needs[0])
    spec = spec_of(step, context, disk)
    home = provider_home(step)
    query = Query(name=spec.name, version=spec.version, digest=spec.digest)
    task.phase("looking for an earlier upload")
    for image in provider.find(query, task):
        if image.region == home and image.state == "available":
            return {"image": image.to_json()}
    spec = proofs.spec_of_disk(step, context, disk, task)
    return {"upload": provider.upload(disk_of(context, disk), spec, task).to_json()}


def provider_home(step: Step) -> str:
    """The region that receives the upload."""
    options = seam.load(step.inputs["provider"]).options(**step.inputs["options"])
    return options.locations()[0]


def register(step: Step, context: Context, task: Task) -> Value:
    disk, uploaded = (context.outcome(need) for need in step.needs)
    if "image" in uploaded:
        return uploaded
    spec = proofs.spec_of_disk(step, context, disk, task)
    upload = Upload.from_json(uploaded["upload"])
    return {"image": context.provider(step).register(upload, spec, task).to_json()}


def copy(step: Step, context: Context, task: Task) -> Value:
    image = Image.from_json(context.outcome(step.needs[1])["image"])
    copies = context.provider(step).copy(image, step.inputs["regions"], task)
    return {"images": [copy.to_json() for copy in copies]}


def verify(step: Step, context: Context, task: Task) -> Value:
    disk = disk_of(context, context.outcome(step.needs[0]))
    images = images_of(context.outcome(step.needs[1]))
    provider = context.provider(step)
    for image in images:
        task.phase(f"reading back {image.ref}")
        provider.verify(image, disk, task)
    return {"verified": [image.ref for image in images]}


def images_of(value: Value) -> list[Image]:
    """The images in the outcome of `register` or `copy`."""
    found = value["images"] if "images" in value else [value["image"]]
    return [Image.from_json(image) for image in found]


def barrier(step: Step, context: Context, task: Task) -> Value:  # noqa: ARG001
    """Nothing to do: that it is reached says that every required image is verified."""
    return {}


def release(step: Step, context: Context, task: Task) -> Value:
    provider = context.provider(step)
    audience = Audience.from_json(step.inputs["audience"])
    for image in images_of(context.outcome(step.needs[0])):
        task.phase(f"opening {image.ref} ({audience.kind})")
        if audience.kind == "private":
            provider.withdraw(image, task)
        else:
            provider.release(image, audience, task)
    # for whoever looks at the release later, without its pipeline file
    return {"audience": audience.to_json(), OPTIONS: step.inputs["options"]}


def withdraw(step: Step, context: Context, task: Task) -> None:
    """Undo a release step, whole or half done."""
    provider = context.provider(step)
    for image in images_of(context.outcome(step.needs[0])):
        task.phase(f"closing {image.ref} again")
        provider.withdraw(image, task)


RUNBOOK: Mapping[str, Callable[[Step, Context, Task], Value]] = {
    "check": check,
    "build": build,
    "download": download,
    "lint": proofs.lint,
    "secrets": proofs.secrets,
    "inventory": proofs.inventory,
    "rehearse": proofs.rehearse,
    "upload": upload,
    "register": register,
    "copy": copy,
    "verify": verify,
    "barrier": barrier,
    "release": release,
}
