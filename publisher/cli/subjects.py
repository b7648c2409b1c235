"""What rehearse is given, opened: a disk file, or the disk of a release."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from publisher import provider
from publisher.cli.exporting import released
from publisher.cli.releases import find_image, options_of
from publisher.cli.words import chosen, suggestion
from publisher.disks import foreign
from publisher.disks.store import Store
from publisher.errors import UsageError
from publisher.events import Sink
from publisher.migrate import complete_options
from publisher.model import Arch, Disk, Firmware, Spec
from publisher.pipeline import load, load_options, load_rehearse
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.rehearse import Rehearsal
from publisher.provider import Options
from publisher.rehearsal import Rehearse
from publisher.settings import Setting
from publisher.task import Task


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line, as far as it says what is rehearsed, and as what."""

    source: str
    clouds: str
    firmware: str
    variants: Sequence[str]
    archs: Sequence[str]
    pipeline: Path | None
    settings: Sequence[str]

    def __post_init__(self) -> None:
        words = [("firmware", self.firmware, get_args(Firmware))]
        words += [("architecture", arch, get_args(Arch)) for arch in self.archs]
        for what, word, known in words:
            if word and word not in known:
                raise UsageError(f"there is no {what} {word!r}", hint=suggestion(word, known))

    @property
    def release(self) -> bool:
        """Whether it names a release, not a file."""
        path = Path(self.source).expanduser()
        named = "@" in self.source or not path.suffix
        return named and os.sep not in self.source and not path.exists()


@dataclass(frozen=True, slots=True)
class Subject:
    """A disk, and as which clouds and how it is rehearsed. `label` tells the image from
    the others of its pipeline."""

    disk: Disk
    spec: Spec
    guests: Sequence[Guest]
    settings: Rehearse
    label: str = ""

    def lane(self, cloud: str) -> str:
        return lane(self.label, cloud)


def lane(label: str, cloud: str) -> str:
    return f"{label}.{cloud}" if label else cloud


class Single:
    """One disk, which is there already."""

    def __init__(self, wanted: Wanted, state: Path) -> None:
        self._wanted = wanted
        self._state = state
        self._refuse()
        known = _known(wanted.source, state) if wanted.release else {}
        given = load_options(
            wanted.pipeline, settings=wanted.settings, environ=os.environ, known=known
        )
        self._settings = _settings(wanted.pipeline, wanted.settings)
        self._guests = guests(wanted.clouds, {**known, **given})
        self.title = f"{wanted.source} rehearsed"
        self.lanes = tuple((guest.name, guest.name) for guest in self._guests)

    def _refuse(self) -> None:
        wanted = self._wanted
        if wanted.variants:
            raise UsageError(
                f"{wanted.source} is no pipeline file",
                key="--variant",
                hint="leave it out, or name the pipeline file instead of the disk",
            )
        if wanted.release and (wanted.archs or wanted.firmware):
            raise UsageError(
                "a release knows what its disk is for",
                key="--arch" if wanted.archs else "--firmware",
                hint="leave it out",
            )
        if len(wanted.archs) > 1:
            raise UsageError("a disk is for one architecture", key="--arch", hint="give it once")

    def open(self, scratch: Path, task: Task, sink: Sink) -> Sequence[Subject]:  # noqa: ARG002
        """The disk; what it takes to read it goes to `scratch`."""
        if self._wanted.release:
            disk, spec = released(self._wanted.source, self._state, Store(self._state))
        else:
            disk, spec = _read(self._wanted, scratch, task)
        return [Subject(disk, spec, self._guests, self._settings)]

    def remember(self, subject: Subject, done: Sequence[Rehearsal]) -> None:
        """Nothing else asks for it."""


def _known(release: str, state: Path) -> Mapping[str, Mapping[str, object]]:
    """The target options that a release was made with, of clouds that are installed."""
    known = options_of(*find_image(release, state), state)
    return {name: options for name, options in known.items() if name in provider.names()}


def _settings(pipeline: Path | None, settings: Sequence[str]) -> Rehearse:
    """The section [rehearse]: of a pipeline file, or without one of settings alone."""
    if pipeline is None:
        for text in settings:
            if Setting.parse(text).path[0] not in ("rehearse", "targets"):
                raise UsageError(
                    f"--set {text}: has no effect on a rehearsal without a pipeline file",
                    hint="set rehearse.… or targets.…, or name the file with --pipeline",
                )
        return load_rehearse(settings=settings, environ=os.environ)
    loaded = load(pipeline, settings=settings, environ=os.environ)
    return loaded.flavours[0].proofs.rehearse


def guests(
    clouds: str,
    given: Mapping[str, Mapping[str, object] | Options],
    own: Sequence[str] | None = None,
) -> list[Guest]:
    """The clouds that were asked for, or those of `own` that can be rehearsed, by
    default all; each with the options that are given for it."""
    known: dict[str, type[Rehearsable]] = {}
    for name in provider.names():
        kind = provider.load(name)
        if issubclass(kind, Rehearsable):
            known[name] = kind
    if not known:
        raise UsageError("no cloud that can be rehearsed is installed")
    usual = [name for name in known if own is None or name in own]
    found = []
    for name in chosen(clouds, list(known), "cloud to rehearse") or usual:
        options = given.get(name)
        if options is not None and not isinstance(options, Options):
            options = complete_options(provider.load(name), options, name)
        found.append(known[name].guest(options))
    return found


def _read(wanted: Wanted, scratch: Path, task: Task) -> tuple[Disk, Spec]:
    """A disk file, and what is known of it. QEMU reads other formats than raw as they
    are; only what is packed (compressed, or in an OVA) has to be unpacked."""
    from publisher.fetch.packed import unpack
    from publisher.proof.abilities import boots_of

    path = Path(wanted.source).expanduser()
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file", hint="check the path")
    room = shutil.disk_usage(scratch).free
    path = unpack(path, scratch / "unpacked", room, task)
    info = foreign.describe(path, task.check)
    if foreign.is_packed(path):
        path = foreign.convert(path, scratch / "disk.raw", task)
        info = foreign.describe(path, task.check)
    disk = Disk(path.absolute(), info["virtual-size"], "", (), info["format"])
    given = cast("Arch", wanted.archs[0]) if wanted.archs else None
    told = boots_of(disk.path, task)
    arch = given or told.arch
    firmware = _bootable(wanted.firmware, arch) or told.firmware
    return disk, Spec(path.name.partition(".")[0], "", arch, firmware, disk.size)


def _bootable(firmware: str, arch: Arch) -> Firmware | None:
    """What was asked for, if anything; of an ARM machine, the only one that there is."""
    if arch == "x86_64":
        return cast("Firmware | None", firmware or None)
    if firmware == "bios":
        raise UsageError(f"{arch} has no BIOS", key="--firmware", hint="write --firmware uefi")
    return "uefi"
