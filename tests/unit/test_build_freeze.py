"""Freezing a machine: what a failure leaves running, and what it leaves kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from publisher import events
from publisher.build import levels as building
from publisher.build.builder import _Build
from publisher.build.checkpoints import Checkpoints
from publisher.build.debian import Installation
from publisher.build.room import Room
from publisher.errors import BuildError, HostError
from publisher.model import Spec
from publisher.recipe import Recipe, fingerprint
from publisher.task import Memory, Task
from publisher.vm import accelerator, snapshot
from publisher.vm.machine import Drive, Hardware, Machine
from tests.unit.test_build_checkpoints import keep, levels

CHOSEN = accelerator.Accelerator("tcg", "for a test", ())


class Refusing:
    """A QEMU that refuses some commands; `done` are those that it carried out."""

    def __init__(self, *refused: str, status: str = "completed") -> None:
        self.refused, self.status = refused, status
        self.done: list[str] = []
        self.version = (7, 2)

    def give(self, name: str, handle: int) -> None:
        """Nothing is written to it."""

    def check(self) -> None:
        """It lives."""

    def execute(self, command: str, **arguments: object) -> object:
        if command in self.refused:
            raise BuildError(f"QEMU refused {command}")
        self.done.append(command)
        return {"status": self.status}


@pytest.fixture
def seen() -> list[events.Event]:
    return []


@pytest.fixture
def task(tmp_path: Path, seen: list[events.Event]) -> Task:
    return Task("build", Memory(tmp_path / "memory"), sink=seen.append)


@pytest.mark.parametrize("refused", ["stop", "blockdev-snapshot-sync", "cont"])
def test_a_machine_that_may_stand_still_is_not_used_any_more(
    refused: str, tmp_path: Path, task: Task
) -> None:
    machine = cast(Machine, Refusing(refused))
    told: list[str] = []

    def frozen() -> None:
        told.append(refused)

    with pytest.raises(HostError, match=f"could not be frozen: QEMU refused {refused}"):
        snapshot.freeze(machine, tmp_path / "overlay", tmp_path / "memory", task, frozen=frozen)
    assert told == (["cont"] if refused == "cont" else []), "the layer is written to until then"


def test_a_machine_whose_memory_cannot_be_written_runs_on(tmp_path: Path, task: Task) -> None:
    machine = Refusing(status="failed")
    with pytest.raises(BuildError, match="could not be written"):
        snapshot.freeze(cast(Machine, machine), tmp_path / "overlay", tmp_path / "memory", task)
    assert machine.done[-2:] == ["migrate_cancel", "cont"]


@pytest.mark.parametrize("version", [(7, 2), (10, 0)])
def test_a_qemu_gets_the_file_as_its_version_takes_it(
    version: tuple[int, int], tmp_path: Path, task: Task
) -> None:
    said: list[object] = []

    class Listening(Refusing):
        def execute(self, command: str, **arguments: object) -> object:
            said.extend(arguments[name] for name in ("uri",) if name in arguments)
            return super().execute(command, **arguments)

        def give(self, name: str, handle: int) -> None:
            os.write(handle, b"given")

    machine = Listening()
    machine.version = version
    memory = tmp_path / "memory"
    snapshot.freeze(cast(Machine, machine), tmp_path / "overlay", memory, task)
    assert memory.stat().st_mode & 0o777 == 0o600
    if version < (8, 2):
        assert (said, memory.read_bytes()) == (["fd:memory"], b"given")
    else:
        assert (said, memory.read_bytes()) == ([f"file:{memory}"], b"")


RESTS = bytes.fromhex("f4ebfd")
"""Code of a boot sector: `here: hlt; jmp here`."""


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is missing")
def test_another_qemu_goes_on_with_the_memory_of_the_first(tmp_path: Path, task: Task) -> None:
    disk = tmp_path / "disk.raw"
    # what boots and rests: a firmware that finds nothing to boot ends the machine
    disk.write_bytes(RESTS.ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
    layers = [tmp_path / f"{name}.qcow2" for name in "abc"]
    snapshot.make_overlay(layers[0], disk, "raw", task)
    snapshot.make_overlay(layers[1], layers[0], "qcow2", task)
    snapshot.make_overlay(layers[2], layers[0], "qcow2", task)

    def hardware(layer: Path, *, incoming: bool) -> Hardware:
        drives = (Drive(layer, "qcow2"),)
        return Hardware(drives, tmp_path / "log", memory=32, cpus=1, incoming=incoming)

    def status(machine: Machine) -> object:
        return cast(Any, machine.execute("query-status"))["status"]

    chosen = accelerator.decide("x86_64", native=False, device="", guest="", cpus=1)
    with Machine(hardware(layers[0], incoming=False), task, chosen) as machine:
        assert machine.version >= (5, 0)
        snapshot.freeze(machine, layers[1], tmp_path / "memory", task)
        assert status(machine) == "running"
    with Machine(hardware(layers[2], incoming=True), task, chosen) as machine:
        assert status(machine) == "inmigrate"
        snapshot.thaw(machine, tmp_path / "memory", task)
        assert status(machine) == "running"
    (tmp_path / "memory").write_bytes(b"no migration stream")
    with (
        Machine(hardware(layers[2], incoming=True), task, chosen) as machine,
        pytest.raises(BuildError, match="load of migration failed"),
    ):
        snapshot.thaw(machine, tmp_path / "memory", task)


def test_without_room_for_another_layer_the_machine_goes_on_in_its_own(
    tmp_path: Path, task: Task, seen: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise HostError("no space left on the device")

    monkeypatch.setattr(snapshot, "make_overlay", full)
    path = levels()
    with Checkpoints(tmp_path) as kept:
        room = Room(tmp_path, kept, Hardware((), tmp_path / "log"), CHOSEN, task)
        room._layers, room._active = ("base.raw",), kept.layers / "active.qcow2"
        room.machine = cast(Machine, Refusing())
        room.keep("demo", path, {})
        assert (room._layers, room._active.name) == (("base.raw",), "active.qcow2")
        assert kept.get(path[0].key) is None
    assert room.machine.done == []  # type: ignore[attr-defined]
    assert [e.text for e in seen if isinstance(e, events.Note)] == [
        "no checkpoint after boot: no space left on the device"
    ]


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (BuildError("load of migration failed"), False),
        (FileNotFoundError("identity"), False),
        (HostError("QEMU could not start"), True),
        (TimeoutError("QEMU is slow today"), True),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_not_tried_again(
    error: Exception, stays: bool, tmp_path: Path, task: Task
) -> None:
    class Broken:
        def resume(self, *_: object, **__: object) -> None:
            raise error

    path = levels("a")
    with Checkpoints(tmp_path) as kept:
        made = keep(kept, path)
        build = cast(Any, _Build.__new__(_Build))
        build.task, build.kept, build.firmware = task, kept, None
        build.sealed = tmp_path / "sealed.raw"
        assert build._resume(Broken(), "after step 1", made) is False
        assert (kept.get(made.key) is not None) is stays
        if not stays:
            again = keep(kept, path)
            assert kept.get(made.key) == again


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.build.levels.require", lambda command: "/bin/true")


def recipe(*steps: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": list(steps)})


@pytest.mark.usefixtures("no_qemu")
def test_another_processor_under_kvm_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(kind: str, processor: str) -> str:
        monkeypatch.setattr(building, "_cpu", lambda: processor)
        chosen = accelerator.Accelerator(cast(Any, kind), "", ("-cpu", "host"))
        return building.levels(recipe(), Spec("demo", "1"), {}, chosen, 1024, Path())[0].key

    assert key("kvm", "Skylake") != key("kvm", "Zen")
    assert key("tcg", "Skylake") == key("tcg", "Zen")


def test_the_processor_is_known_by_its_model() -> None:
    assert len(building._cpu()) == 64
    assert building._cpu() == building._cpu()


def test_an_installation_made_by_another_program_version_is_another_one() -> None:
    releases = {"http://archive/InRelease": "digest"}
    one, other = (Installation(Path(f"{key}.tar"), releases) for key in ("a", "b"))
    assert one.state != other.state
    assert one.state == {"installation": "a", **releases}


@pytest.mark.usefixtures("no_qemu")
def test_a_file_that_changes_while_the_build_runs_ends_it(tmp_path: Path) -> None:
    script = tmp_path / "setup.sh"
    script.write_text("echo one")
    made = recipe({"run": "true"}, {"run": {"file": "setup.sh"}})
    planned = fingerprint(made, tmp_path)["files"]
    path = building.levels(made, Spec("demo", "1"), {}, CHOSEN, 1024, tmp_path)
    building.check_planned(path, planned)
    for number in (0, 1):
        building.check_files(made, number, tmp_path, path[number + 1])
    script.write_text("echo two")
    with pytest.raises(BuildError, match="changed while it ran") as caught:
        building.check_files(made, 1, tmp_path, path[2])
    assert caught.value.key == "build.steps[1]"
    building.check_files(made, 0, tmp_path, path[1])
    later = building.levels(made, Spec("demo", "1"), {}, CHOSEN, 1024, tmp_path)
    with pytest.raises(BuildError, match="changed since the run began") as caught:
        building.check_planned(later, planned)
    assert caught.value.key == "build.steps[1].run.file"
