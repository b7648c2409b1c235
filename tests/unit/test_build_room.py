"""A machine for the steps: how it comes up although QEMU failed once, and what becomes of
its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from publisher import events
from publisher.build.checkpoints import Checkpoint, Checkpoints, chain
from publisher.build.room import Login, Room
from publisher.errors import BootError, BuildError, Cancelled, PublishError
from publisher.memory import Memory
from publisher.task import Task
from publisher.vm import accelerator, snapshot
from publisher.vm.machine import Hardware
from publisher.vm.process import Completed

CHOSEN = accelerator.Accelerator("tcg", "for a test", ())
LOGIN = Login("root", lambda _keys: "#cloud-config\n")
Ends = Callable[..., list[str]]


@pytest.fixture
def seen() -> list[events.Event]:
    return []


@pytest.fixture
def boot(
    tmp_path: Path, seen: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ends]:
    """Boots a machine whose boots end like that; returns what was started."""
    monkeypatch.setattr("publisher.vm.keys.generate", lambda *_: cast(Any, None))
    monkeypatch.setattr("publisher.vm.seed.write", lambda *_: Path())
    started: list[str] = []
    with Checkpoints(tmp_path / "store") as kept:
        task = Task("build", Memory(tmp_path / "memory"), sink=seen.append)

        def run(*ends: str) -> list[str]:
            room = Room(tmp_path, kept, Hardware((), tmp_path / "log"), CHOSEN, task)

            def start(*_: object, **__: object) -> None:
                end = ends[len(started)]
                started.append(end)
                room._active = kept.new_layer("qcow2")
                room._active.touch()
                room.machine = cast(Any, SimpleNamespace(crashed=end == "crash"))

            def login(*_: object, **__: object) -> None:
                if started[-1] != "up":
                    raise BootError(f"the guest ended: {started[-1]}", phase="kernel")

            monkeypatch.setattr(room, "_start", start)
            monkeypatch.setattr(room, "_login", login)
            disk = kept.new_layer("raw")
            disk.touch()
            room.boot(disk, LOGIN, firmware=None)
            return started

        yield run
        assert len(list(kept.layers.glob("*.qcow2"))) == 1, "no layer of an earlier boot stays"


def test_a_machine_whose_qemu_crashed_is_booted_anew(boot: Ends, seen: list[events.Event]) -> None:
    assert boot("crash", "up") == ["crash", "up"]
    (note,) = (event for event in seen if isinstance(event, events.Note))
    assert note.text == "QEMU failed, the machine is booted anew: the guest ended: crash"


@pytest.mark.parametrize("ends", [("crash", "crash"), ("panic",)], ids=" ".join)
def test_twice_is_no_chance_and_a_guests_own_failure_never_was(
    ends: tuple[str, ...], boot: Ends
) -> None:
    with pytest.raises(BootError, match=ends[-1]):
        boot(*ends)


@pytest.mark.parametrize("aided", [True, False])
def test_a_resumed_machine_is_the_one_that_was_kept(
    aided: bool, tmp_path: Path, seen: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its devices; and its layers are joined from the beginning."""
    order: list[object] = []
    monkeypatch.setattr("publisher.vm.keys.load", lambda *_: cast(Any, None))
    monkeypatch.setattr(snapshot, "thaw", lambda *_: order.append("thaw"))
    monkeypatch.setattr(snapshot, "freeze", lambda *_, frozen: frozen())
    monkeypatch.setattr(snapshot, "make_overlay", lambda path, *_: path)
    with Checkpoints(tmp_path / "store") as kept:
        task = Task("build", Memory(tmp_path / "memory"), sink=seen.append)
        (tmp_path / "seed.img").touch()
        hardware = Hardware((), tmp_path / "log", aided=aided)
        first = Room(tmp_path, kept, hardware, CHOSEN, task)
        first.machine = cast(Any, SimpleNamespace(check=lambda: None))
        told: list[str] = []

        def command(line: str, **_: object) -> Completed:
            told.append(line)
            return Completed(1, ())

        first.shell = cast(Any, SimpleNamespace(command=command))
        first._layers, first._active = ("base.raw",), kept.layers / "layer.qcow2"
        made = first.keep("demo", chain([("boot", {})]), {})
        assert made is not None
        assert any("drop_caches" in line for line in told) is aided
        assert Checkpoint.from_json(made.to_json()).aided is aided
        other = replace(hardware, aided=not aided)
        room = Room(tmp_path / "again", kept, other, CHOSEN, task)

        def start(*_: object, incoming: bool) -> None:
            assert incoming
            order.append(room._hardware.aided)
            room.machine = cast(Any, None)

        monkeypatch.setattr(room, "join_early", order.append)
        monkeypatch.setattr(room, "_start", start)
        (tmp_path / "again").mkdir()
        room.resume(made, None, user="", into=tmp_path / "sealed")
        assert order == [tmp_path / "sealed", aided, "thaw"]


def test_a_checkpoint_of_an_earlier_version_is_not_aided() -> None:
    told = {"key": "k", "title": "t", "name": "n", "layers": [], "facts": {}, "levels": []}
    assert Checkpoint.from_json({**told, "created": 0.0, "boot": "b"}).aided is False


class Ahead:
    """A Joining that notes what it is given."""

    def __init__(self) -> None:
        self.layers: list[Path] = []

    def follow(self, layer: Path) -> None:
        self.layers.append(layer)

    def leave(self, place: Callable[[str], Path]) -> None:
        self.layers.append(place("top.qcow2"))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "left"),
    [(BuildError("status 3"), True), (Cancelled(), False), (None, False)],
    ids=["failed", "cancelled", "done"],
)
def test_only_a_step_that_failed_leaves_what_is_joined(
    error: PublishError | None, left: bool, tmp_path: Path, seen: list[events.Event]
) -> None:
    with Checkpoints(tmp_path / "store") as kept:
        task = Task("build", Memory(tmp_path / "memory"), sink=seen.append)
        room, ahead = Room(tmp_path, kept, Hardware((), tmp_path / "log"), CHOSEN, task), Ahead()
        room._joining = cast(Any, ahead)
        room.__exit__(None if error is None else type(error), error, None)
        assert ahead.layers == [kept.joined("top.qcow2")] * left


@pytest.mark.parametrize("end", ["before", "after", "kept"])
def test_a_layer_is_joined_as_soon_as_nothing_writes_to_it_any_more(
    end: str, tmp_path: Path, seen: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def freeze(*_: object, frozen: Callable[[], None]) -> None:
        if end == "before":
            raise OSError("no place for a file")
        frozen()
        if end == "after":
            raise BuildError("no place for the memory")

    def make_overlay(path: Path, *_: object) -> Path:
        path.touch()
        return path

    monkeypatch.setattr(snapshot, "make_overlay", make_overlay)
    monkeypatch.setattr(snapshot, "freeze", freeze)
    with Checkpoints(tmp_path / "store") as kept:
        task = Task("build", Memory(tmp_path / "memory"), sink=seen.append)
        room = Room(tmp_path, kept, Hardware((), tmp_path / "log"), CHOSEN, task)
        room.machine, ahead = cast(Any, SimpleNamespace(check=lambda: None)), Ahead()
        room._active, room._joining = kept.new_layer("qcow2"), cast(Any, ahead)
        layers: tuple[str, ...] = ("base.raw",)
        room._layers = layers
        below = room._active
        below.touch()
        made = room.keep("demo", chain([("boot", {})]), {})
        assert (made is None) is (end != "kept")
        live = [path for path in kept.layers.iterdir() if path != below]
        if end == "before":
            assert (ahead.layers, live, room._active) == ([], [], below)
        else:
            assert (ahead.layers, live) == ([below], [room._active])
            assert room._layers == (*layers, below.name)
        room.__exit__(None, None, None)
