"""A machine for the steps: how it comes up although QEMU failed once, and what becomes of
its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from publisher import events
from publisher.build.checkpoints import Checkpoints, chain
from publisher.build.room import Login, Room
from publisher.errors import BootError, BuildError
from publisher.memory import Memory
from publisher.task import Task
from publisher.vm import accelerator, snapshot
from publisher.vm.machine import Hardware

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


class Ahead:
    """A Joining that notes what it is given."""

    def __init__(self) -> None:
        self.layers: list[Path] = []

    def follow(self, layer: Path) -> None:
        self.layers.append(layer)

    def close(self) -> None:
        pass


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
