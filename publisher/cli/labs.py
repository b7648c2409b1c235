"""What the commands of `publish lab` do."""

from __future__ import annotations

import contextlib
import hashlib
import json as jsons
import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import typer

from publisher import events, provider
from publisher.build.checkpoints import Checkpoint
from publisher.cli import tables
from publisher.cli.actions import clouds
from publisher.cli.exporting import fetched
from publisher.cli.screen import Screen, screen
from publisher.cli.signals import cancelling
from publisher.cli.words import suggestion
from publisher.disks import foreign
from publisher.disks.formats import ova
from publisher.disks.store import Store
from publisher.errors import BuildError, PublishError, UsageError
from publisher.lab import adopt, control, running
from publisher.lab.fleet import Fleet
from publisher.lab.image import BOOTS, Boot, Image, preferred
from publisher.lab.machine import LabMachine
from publisher.lab.snapshots import Settings, Snapshots, check_name, described
from publisher.memory import Memory
from publisher.model import Arch
from publisher.pipeline import load_options
from publisher.task import Cancellation, Task
from publisher.vm import accelerator, keys, shell
from publisher.vm.arch import is_native

_PACKED = (".xz", ".gz", ".zst", ".bz2")
_LEAVE = b"\x1d"
"""Ctrl-], as telnet and virsh have it."""
_STEP = "lab"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `start`."""

    image: str
    name: str
    count: int
    restore: str
    save: str
    execute: str
    console: bool
    user: str
    memory: int
    firmware: str
    arch: str
    offline: bool
    pipeline: Path | None
    settings: tuple[str, ...]
    sandbox: bool

    def check(self) -> None:
        """Raise UsageError for what does not go together."""
        if not (self.image or self.restore):
            raise UsageError("no image is named", hint="publish lab IMAGE")
        for word, known, what in (
            (self.firmware, BOOTS, "firmware"),
            (self.arch, get_args(Arch), "architecture"),
        ):
            if word and word not in known:
                raise UsageError(f"there is no {what} {word!r}", hint=suggestion(word, known))
        if self.console and (self.count > 1 or self.execute):
            raise UsageError("--console is for one machine, and without --exec")
        if self.save and self.count > 1:
            raise UsageError("--save is for one machine", hint="publish lab save MACHINE SNAPSHOT")
        if self.save:
            check_name(self.save, "snapshot")


def _labs(state: Path) -> Path:
    return state / "labs"


def start(wanted: Wanted, *, state: Path, json: bool, plain: bool) -> None:
    wanted.check()
    labs = _labs(state)
    labs.mkdir(mode=0o700, parents=True, exist_ok=True)
    snapshots = Snapshots(labs)
    snapshots.sweep()
    cloud = wanted.image.partition(":")[0]
    status = 0
    try:
        with (
            cancelling() as cancellation,
            clouds([cloud] if cloud in provider.names() else [], state, sandbox=wanted.sandbox),
            screen(json=json, plain=plain) as sink,
            snapshots.kept,
        ):
            status = _run(wanted, state, snapshots, sink, cancellation)
    finally:
        snapshots.sweep()
    if status:
        raise typer.Exit(status)


def _run(
    wanted: Wanted, state: Path, snapshots: Snapshots, sink: Screen, cancellation: Cancellation
) -> int:
    mark = hashlib.sha256(f"{wanted.image} {wanted.restore}".encode()).hexdigest()[:16]
    labs = _labs(state)

    def task(step: str) -> Task:
        memory = Memory(labs / "memory" / f"{mark}-{step}")
        return Task(step, memory, sink=sink, cancellation=cancellation, run=mark)

    with contextlib.ExitStack() as stack:
        preparing = task(_STEP)
        source = stack.enter_context(_source(wanted, state, snapshots))
        if source is None:
            image = _image(wanted, state, preparing)
            user = "" if wanted.console else wanted.user
            settings = Settings(wanted.memory, user, wanted.offline)
        else:
            image, settings = described(source)
            image.check()
        chosen = accelerator.probe(image.arch)
        names = _names(labs, wanted, image)
        sink(events.RunStarted(mark, image.title, tuple((name, name) for name in names)))
        fleet = stack.enter_context(Fleet(labs, snapshots, image, settings, chosen, source))
        began = time.monotonic()
        for name in names:
            sink(events.StepStarted(name, name))
            fleet.start(name, task(name))

        def ready(name: str) -> None:
            how = "woke up" if source is not None else "booted"
            sink(events.StepFinished(name, name, time.monotonic() - began, how))

        try:
            machines = fleet.wait_ready(ready)
            return _use(wanted, state, fleet, machines, sink, cancellation)
        except PublishError as error:
            seconds = time.monotonic() - began
            sink(events.StepFailed(names[0], names[0], seconds, str(error), error.hint))
            raise
        finally:
            shutil.rmtree(labs / "memory", ignore_errors=True)


@contextlib.contextmanager
def _source(wanted: Wanted, state: Path, snapshots: Snapshots) -> Iterator[Checkpoint | None]:
    """The snapshot to wake up from, None to boot."""
    kind, _, key = wanted.image.partition(":")
    if kind == "checkpoint":
        store = state / "store"
        with adopt.adopted(store, adopt.find(store, key), snapshots) as adopted:
            yield adopted
    elif wanted.restore:
        yield snapshots.get(wanted.restore)
    else:
        yield None


def _image(wanted: Wanted, state: Path, task: Task) -> Image:
    """A disk that stays where it is, or one that is fetched into the store."""
    from publisher.proof.abilities import boots_of

    path = Path(wanted.image.removeprefix("file:")).expanduser()
    if path.is_file() and not path.name.endswith(_PACKED) and not ova.is_ova(path):
        kind: str = foreign.describe(path, task.check)["format"]
        native = next((arch for arch in get_args(Arch) if is_native(arch)), "x86_64")
        arch = cast("Arch", wanted.arch or native)
    else:
        if path.is_file():
            name = f"file:{path}"
        elif ":" not in wanted.image and ("/" in wanted.image or "." in path.name):
            raise UsageError(f"{path} does not exist", hint="check the path")
        else:
            name = wanted.image
        given = load_options(wanted.pipeline, settings=wanted.settings, environ=os.environ)
        store = Store(state)
        with fetched(name, given, state, task, sandbox=wanted.sandbox) as (disk, spec):
            path, kind = disk.path, "raw"
            if store.get(disk.sha256) is None:
                own = store.scratch(f"lab-{task.run}.raw")
                own.unlink(missing_ok=True)
                os.link(disk.path, own)
                path = store.add(own, task.check).path
            arch = cast("Arch", wanted.arch or spec.arch)
    boot = wanted.firmware or preferred(boots_of(path.absolute(), task).firmware, arch)
    return Image.of(wanted.image, path, kind, arch, cast("Boot", boot))


def _names(labs: Path, wanted: Wanted, image: Image) -> list[str]:
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", Path(image.title.partition(",")[0]).stem).strip("-")
    wish = wanted.name or plain[:40] or "lab"
    check_name(wish, "machine")
    if wanted.count == 1:
        return [wish if wanted.name else running.free_name(labs, wish)]
    return [f"{wish}-{number + 1}" for number in range(wanted.count)]


# -- what the user does with them


def _use(
    wanted: Wanted,
    state: Path,
    fleet: Fleet,
    machines: Sequence[LabMachine],
    sink: Screen,
    cancellation: Cancellation,
) -> int:
    status = 0
    if wanted.execute:
        status = max(_execute(machine, wanted.execute) for machine in machines)
    elif len(machines) == 1 and sys.stdin.isatty() and sys.stderr.isatty():
        with sink.aside():
            if machines[0].settings.user:
                _visit(machines[0], fleet)
            else:
                console(machines[0].name, state)
    else:
        for machine in machines:
            _say(_hint(machine))
        _say("Ctrl-C ends what is started here")
        while fleet.alive() and not cancellation.wait(0.5):
            pass
    if wanted.save and fleet.alive():
        control.ask(_labs(state) / "run" / machines[0].name, "save", wanted.save)
    return status


def _hint(machine: LabMachine) -> str:
    verb = "ssh" if machine.settings.user else "console"
    return f"{machine.name}: publish lab {verb} {machine.name}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _execute(machine: LabMachine, command: str) -> int:
    done = machine.shell.command(command, on_line=lambda line: print(line, flush=True))  # noqa: T201
    return done.status


def _visit(machine: LabMachine, fleet: Fleet) -> None:
    """A shell, and another one each time that the machine is put back meanwhile."""
    _say(f"{machine.name}: leave the shell to end the machine")
    while True:
        before = machine.wakings
        try:
            machine.shell.interact(sys.stdin.fileno(), sys.stderr.fileno())
        except (BuildError, OSError):
            if machine.wakings == before and machine.up.is_set():
                if fleet.alive():
                    raise
                return
        while not machine.up.wait(0.1):
            if not fleet.alive():
                return
        if machine.wakings == before:
            return
        _say(f"{machine.name} was put back to a snapshot")


def ssh(name: str, command: Sequence[str], state: Path) -> None:
    """Become ssh, with the machine's keys."""
    machine = running.find(_labs(state), name)
    if not machine.user:
        raise UsageError(f"nobody logs in to {name}", hint=f"publish lab console {name}")
    pair = keys.load(Path(machine.directory))
    login = ("-p", str(machine.port), "-l", machine.user, "127.0.0.1")
    os.chdir(machine.directory)
    argv = ["ssh", *shell.options(pair, pinned=pair.pinned), *login, *command]
    os.execvp("ssh", argv)  # noqa: S606


def console(name: str, state: Path) -> None:
    machine = running.find(_labs(state), name)
    directory = running.place(_labs(state), machine)
    keyboard, screen_ = sys.stdin.fileno(), sys.stdout.fileno()
    _say(f"the console of {name}; Ctrl-] leaves it")
    before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    try:
        if before is not None:
            tty.setraw(keyboard)
        with control.console(directory) as connection:
            listening = [connection.fileno(), keyboard]
            while True:
                ready, _, _ = select.select(listening, [], [])
                if connection.fileno() in ready:
                    data = connection.recv(65536)
                    if not data:
                        return
                    os.write(screen_, data)
                if keyboard in ready:
                    typed = os.read(keyboard, 4096)
                    if _LEAVE in typed:
                        return
                    if typed:
                        connection.sendall(typed)
                    else:
                        listening.remove(keyboard)
    finally:
        if before is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            _say("")


def tell(name: str, action: str, snapshot: str, state: Path) -> None:
    labs = _labs(state)
    began = time.monotonic()
    control.ask(running.place(labs, running.find(labs, name)), action, snapshot)
    _say(f"{name}: {action} {snapshot}".rstrip() + f" · {time.monotonic() - began:.1f} s")


def remove(names: Sequence[str], state: Path) -> None:
    Snapshots(_labs(state)).remove(names)


def show(state: Path, *, json: bool) -> None:
    labs = _labs(state)
    machines = running.running(labs)
    kept = Snapshots(labs).all()
    if json:
        found = [
            {"name": s.title, "image": described(s)[0].title, "created": s.created} for s in kept
        ]
        document = {"machines": [m.to_json() for m in machines], "snapshots": found}
        print(jsons.dumps(document, indent=2))  # noqa: T201
        return
    if not machines and not kept:
        tables.write("no machine runs, and there are no snapshots")
        return
    rows = [("machine", m.name, m.image, f"port {m.port}") for m in machines]
    for snapshot in kept:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(snapshot.created))
        rows.append(("snapshot", snapshot.title, described(snapshot)[0].title, made))
    tables.write_table(("kind", "name", "image", ""), rows)
