"""What export does: find the image, bring its disk here, write it in the format."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from publisher import events, provider
from publisher.cli.actions import clouds, sandbox_defaults
from publisher.cli.releases import find_image
from publisher.cli.screen import screen
from publisher.cli.signals import cancelling
from publisher.cli.text import show_bytes
from publisher.cli.words import suggestion
from publisher.disks import foreign, raw
from publisher.disks.formats import ovf
from publisher.disks.store import Store
from publisher.errors import PublishError, UsageError
from publisher.export import FORMATS, SUFFIXES, Format, Hardware, export
from publisher.memory import Memory
from publisher.migrate import complete_options
from publisher.model import Disk, Spec
from publisher.pipeline import load_options
from publisher.task import Task

STEP = "export"
_DISK_MAX = 64 * 1024**4


def run(
    image: str,
    to: str,
    output: Path | None,
    *,
    hardware: Mapping[str, Any],
    pipeline: Path | None,
    settings: Sequence[str],
    sandbox: bool,
    state: Path,
    json: bool,
    plain: bool,
) -> None:
    chosen = cast("Format", _known(to, FORMATS, "format"))
    machine = _hardware(hardware)
    cloud = image.partition(":")[0]
    with (
        cancelling() as cancellation,
        clouds([cloud] if cloud in provider.names() else [], state, sandbox=sandbox),
        screen(json=json, plain=plain) as sink,
    ):
        mark = hashlib.sha256(image.encode()).hexdigest()[:16]
        memory = state / "exports" / mark
        task = Task(STEP, Memory(memory), sink=sink, cancellation=cancellation, run=mark)
        title = f"{image} as {to}"
        sink(events.RunStarted(mark, title, ((STEP, STEP),)))
        sink(events.StepStarted(STEP, STEP))
        started = time.monotonic()
        try:
            given = load_options(pipeline, settings=settings, environ=os.environ)
            with fetched(image, given, state, task, sandbox=sandbox) as (disk, spec):
                into = output or Path(f"{_stem(spec)}{SUFFIXES[chosen]}")
                written = export(
                    disk,
                    chosen,
                    into,
                    task,
                    name=spec.name or into.name.partition(".")[0],
                    version=spec.version,
                    arch=spec.arch,
                    firmware=spec.firmware,
                    hardware=machine,
                )
        except PublishError as error:
            seconds = time.monotonic() - started
            sink(events.StepFailed(STEP, STEP, seconds, str(error), error.hint))
            raise
        shutil.rmtree(memory, ignore_errors=True)
        sizes = ", ".join(f"{path} ({show_bytes(path.stat().st_size)})" for path in written)
        sink(events.StepFinished(STEP, STEP, time.monotonic() - started, sizes))
    if not json:
        for path in written:
            print(path)  # noqa: T201


def _known(word: str, known: Sequence[str], what: str) -> str:
    if word not in known:
        raise UsageError(f"there is no {what} {word!r}", hint=suggestion(word, known))
    return word


def _hardware(values: Mapping[str, Any]) -> Hardware:
    if values["controller"] is not None:
        _known(values["controller"], get_args(ovf.Controller), "controller")
    _known(values["network"], get_args(ovf.Network), "network adapter")
    return Hardware(**values)


def _stem(spec: Spec) -> str:
    return "-".join(filter(None, (spec.name, spec.version, spec.arch))) or "disk"


@contextlib.contextmanager
def fetched(
    image: str,
    given: Mapping[str, Mapping[str, object]],
    state: Path,
    task: Task,
    *,
    sandbox: bool,
) -> Iterator[tuple[Disk, Spec]]:
    """The image's disk and what is known of it. What had to be fetched goes away
    once it was used, and stays for the next run when that failed."""
    store = Store(state)
    name, colon, reference = image.partition(":")
    if not colon:
        yield released(image, state, store)
        return
    into = store.scratch(f"export-{task.run}.raw")
    if name == "file":
        spec = _read_file(Path(reference).expanduser(), into, task)
    else:
        spec = _download(name, reference, given.get(name, {}), into, task, sandbox=sandbox)
    task.phase("looking through the disk")
    yield raw.inspect(into, task.check), spec
    into.unlink()


def released(image: str, state: Path, store: Store) -> tuple[Disk, Spec]:
    """The disk of a release that was made from here. Raises UsageError."""
    manifest, flavour = find_image(image, state)
    disk = store.get(flavour.digest)
    if disk is None:
        references = ", ".join(flavour.references)
        raise UsageError(
            f"the disk of {flavour.name} {manifest.version} is not in {state} any more",
            hint=f"export one of its images: {references}" if references else "build it again",
        )
    spec = Spec(flavour.name, manifest.version)
    known = {"arch": flavour.arch, "firmware": flavour.firmware}
    return disk, dataclasses.replace(spec, **known)  # type: ignore[arg-type]


def _read_file(path: Path, into: Path, task: Task) -> Spec:
    from publisher.fetch.packed import unpack

    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
    unpacked = into.with_suffix(".unpacked")
    try:
        foreign.convert(unpack(path, unpacked, _DISK_MAX, task), into, task)
    finally:
        unpacked.unlink(missing_ok=True)
    return Spec(path.name.partition(".")[0], "")


def _download(
    name: str,
    reference: str,
    given: Mapping[str, object],
    into: Path,
    task: Task,
    *,
    sandbox: bool,
) -> Spec:
    kind = provider.load(name)
    own = {**(sandbox_defaults(kind) if sandbox else {}), **given}
    values = {**own, **kind.options.from_reference(reference, own)}
    made = kind(complete_options(kind, values, f"{name}:{reference}"))
    if not isinstance(made, provider.Source):
        raise UsageError(f"{name} images cannot be read", hint="use another source")
    task.phase(f"looking at {reference}")
    spec = made.describe(reference, task)
    if not into.exists():
        made.download(reference, into, task)
    return spec
