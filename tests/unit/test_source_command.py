"""A builder of the user's own: what it sees, what it may leave, how it ends."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from publisher import events
from publisher.build import command
from publisher.errors import BuildError, Cancelled, HostError, PipelineError
from publisher.events import Event
from publisher.memory import Memory
from publisher.model import MIB, Spec
from publisher.recipe import Command
from publisher.task import Cancellation, Task

SIZE = 8 * MIB

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory / "pipeline"
        self.directory.mkdir()
        self.scratch = directory / "scratch"
        self.into = directory / "disk.raw"
        self.events: list[Event] = []
        self.cancellation = Cancellation()
        self.task = Task(
            "build",
            Memory(directory / "memory"),
            sink=self.events.append,
            cancellation=self.cancellation,
        )

    def run(self, run: str | tuple[str, ...], output: str = "disk", **more: Any) -> Path:
        return command.prepare(
            Command(run=run, output=output, **more),
            Spec("shop", "1.0"),
            SIZE,
            directory=self.directory,
            scratch=self.scratch,
            into=self.into,
            task=self.task,
        )

    @property
    def output(self) -> list[str]:
        return [e.line for e in self.events if isinstance(e, events.StepOutput)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_disk_that_a_command_leaves_is_taken_and_grown(world: World) -> None:
    (world.directory / "content").write_text("hello")
    made = world.run("cp content disk; truncate -s 2M disk", inputs=["content"])
    assert made.read_bytes() == b"hello" + bytes(SIZE - 5)
    assert not world.scratch.exists()


def test_a_command_is_a_list_or_a_script_and_any_format_is_taken(world: World) -> None:
    build = world.directory / "tools" / "build"
    build.parent.mkdir()
    build.write_text("#!/bin/sh\nqemu-img create -q -f $1 disk.$1 4M\n")
    build.chmod(0o755)
    made = world.run(("./tools/build", "qcow2"), "disk.qcow2", inputs=["tools"])
    assert made.stat().st_size == SIZE
    assert world.run(("qemu-img", "create", "-q", "disk", "1M")).exists()


def test_a_command_sees_nothing_but_its_inputs(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    (world.directory / "declared").write_text("")
    (world.directory / "other").write_text("")
    script = 'echo "sees" *; env | cut -d= -f1 | sort | tr "\\n" " "; truncate -s 1M disk'
    world.run(script, inputs=["declared"])
    assert world.output[0] == "sees declared"
    assert "SECRET_OF_THE_USER" not in world.output[1]
    for name in ("PATH", "TMPDIR", "PUBLISH_NAME", "PUBLISH_VERSION", "PUBLISH_ARCH"):
        assert f" {name} " in f" {world.output[1]}"


def test_inputs_are_copies(world: World) -> None:
    (world.directory / "tree").mkdir()
    (world.directory / "tree" / "file").write_text("mine")
    (world.directory / "tree" / "link").symlink_to("file")
    world.run("test -L tree/link; echo changed > tree/file; truncate -s 1M disk", inputs=["tree"])
    assert (world.directory / "tree" / "file").read_text() == "mine"


def test_declared_variables_are_handed_on_but_never_shown(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    world.run('echo "with $TOKEN"; truncate -s 1M disk', environment=["TOKEN"])
    assert world.output == ["with ${TOKEN}"]
    with pytest.raises(BuildError) as caught:
        world.run('echo "no $TOKEN"; exit 3', environment=["TOKEN"])
    assert "no ${TOKEN}" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {world.events}"


def test_a_variable_that_is_not_set_is_named(world: World) -> None:
    with pytest.raises(PipelineError, match="NOT_THERE is not set") as caught:
        world.run("true", environment=["NOT_THERE"])
    assert caught.value.key == "build.source.command.environment[0]"


def test_a_command_that_fails_shows_its_last_lines(world: World) -> None:
    with pytest.raises(BuildError, match="ended with status 3") as caught:
        world.run("echo first; echo it broke >&2; exit 3")
    assert "it broke" in str(caught.value)
    assert caught.value.key == "build.source.command.run"
    assert not world.scratch.exists()
    with pytest.raises(BuildError, match="status 1"):
        world.run("false\ntruncate -s 1M disk")


def test_a_command_that_leaves_no_disk_is_told(world: World) -> None:
    with pytest.raises(BuildError, match="left no file disk") as caught:
        world.run("touch other; mkdir more")
    assert caught.value.key == "build.source.command.output"
    assert caught.value.hint == "it left more, other"
    with pytest.raises(BuildError, match="no disk image"):
        world.run("echo hello > disk")


def test_a_program_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(HostError, match="no-such-builder is not installed") as caught:
        world.run(("no-such-builder", "build"))
    assert caught.value.key == "build.source.command.run"


def test_cancelling_kills_the_command_with_its_children(world: World) -> None:
    def cancel() -> None:
        while not world.output:
            time.sleep(0.01)
        world.cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        world.run("sleep 60 & echo $!; wait")
    thread.join()
    child = Path("/proc", world.output[0], "cmdline")
    assert not child.exists() or not child.read_bytes()
    assert not world.scratch.exists()
