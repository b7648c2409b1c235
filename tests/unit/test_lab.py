"""Labs: names, snapshots, the way into a machine of another process."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from publisher.build.checkpoints import Checkpoint, Checkpoints, chain
from publisher.cli import labs
from publisher.cli.app import app
from publisher.errors import StateError, UsageError
from publisher.lab import adopt, control, running
from publisher.lab.image import Image, preferred
from publisher.lab.machine import DESCRIPTION, LabMachine
from publisher.lab.snapshots import Settings, Snapshots, described, facts, level
from publisher.memory import boot_id
from publisher.model import MIB
from publisher.proof.abilities import boots_of
from publisher.task import Task, detached
from publisher.vm import keys
from tests.unit import lint_world


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "task")


def disk(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1024**2)
    return path


def image_of(path: Path) -> Image:
    return Image.of("web", path, "raw", "x86_64", "bios")


def put(kept: Checkpoints, name: str, image: Image) -> Checkpoint:
    """A snapshot as a machine leaves it, without a machine."""
    with kept:
        layer = kept.new_layer("qcow2")
        layer.write_bytes(b"layer")
        made = Checkpoint(
            key=level(name).key,
            title=name,
            name="web",
            layers=(layer.name,),
            facts=facts(image, Settings(memory=512)),
            levels=(level(name).to_json(),),
            created=1.0,
            boot=boot_id(),
        )
        with kept.making(made.key) as partial:
            (partial / "memory").write_bytes(b"memory")
            kept.publish(partial, made)
    return made


class TestImage:
    def test_it_is_read_through_a_layer_and_never_written(self, tmp_path: Path, task: Task) -> None:
        image = image_of(disk(tmp_path / "disk.raw"))
        layer = image.overlay(tmp_path / "layer.qcow2", task)
        said = subprocess.run(
            ["qemu-img", "info", "--output=json", layer], capture_output=True, check=True
        ).stdout
        assert json.loads(said)["full-backing-filename"] == str(tmp_path / "disk.raw")

    def test_a_disk_that_changed_under_a_snapshot_is_refused(self, tmp_path: Path) -> None:
        path = disk(tmp_path / "disk.raw")
        image = image_of(path)
        image.check()
        os.utime(path, ns=(1, 1))
        with pytest.raises(StateError, match="was changed since"):
            image.check()

    def test_a_disk_that_is_gone_is_said_so(self, tmp_path: Path) -> None:
        path = disk(tmp_path / "disk.raw")
        image = image_of(path)
        path.unlink()
        with pytest.raises(StateError, match="can't be read"):
            image.check()

    @pytest.mark.parametrize(("core", "boot"), [(b"\xea", "bios"), (b"\0", "uefi")])
    @pytest.mark.parametrize("kind", ["raw", "qcow2"])
    def test_a_disk_boots_by_what_its_loaders_are_for(
        self, tmp_path: Path, task: Task, core: bytes, boot: str, kind: str
    ) -> None:
        """Boot code alone, without the rest of GRUB, boots nothing."""
        path = lint_world.disk_file(tmp_path, lint_world.good(), lint_world.good_esp())
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(core * 512)
        if kind == "qcow2":
            argv = ["qemu-img", "convert", "-O", "qcow2", str(path), str(tmp_path / "disk.qcow2")]
            subprocess.run(argv, check=True)
            path = tmp_path / "disk.qcow2"
        assert preferred(boots_of(path, task).firmware, "x86_64") == boot

    def test_an_architecture_without_bios_boots_by_uefi(self) -> None:
        assert preferred("bios+uefi", "aarch64") == "uefi"


class TestSnapshots:
    def test_what_a_machine_needs_comes_back(self, tmp_path: Path) -> None:
        snapshots = Snapshots(tmp_path)
        image = image_of(disk(tmp_path / "disk.raw"))
        put(snapshots.kept, "lesson-1", image)
        assert described(snapshots.get("lesson-1")) == (image, Settings(memory=512))

    def test_an_unknown_one_is_refused_with_the_known_ones(self, tmp_path: Path) -> None:
        snapshots = Snapshots(tmp_path)
        put(snapshots.kept, "lesson-1", image_of(disk(tmp_path / "disk.raw")))
        with pytest.raises(UsageError, match="'lesson-2'") as caught:
            snapshots.get("lesson-2")
        assert caught.value.hint == "known are: lesson-1"

    @pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 64])
    def test_a_name_that_is_no_file_name_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="is no name for a snapshot"):
            Snapshots(tmp_path).get(name)

    def test_one_is_removed_with_its_layers(self, tmp_path: Path) -> None:
        snapshots = Snapshots(tmp_path)
        image = image_of(disk(tmp_path / "disk.raw"))
        first = put(snapshots.kept, "first", image)
        second = put(snapshots.kept, "second", image)
        snapshots.remove(["first"])
        layers = {path.name for path in snapshots.kept.layers.iterdir()}
        assert not snapshots.has("first")
        assert layers == set(second.layers)
        assert not layers & set(first.layers)

    def test_none_is_removed_while_a_machine_runs(self, tmp_path: Path) -> None:
        snapshots = Snapshots(tmp_path)
        put(snapshots.kept, "first", image_of(disk(tmp_path / "disk.raw")))
        with snapshots.kept, pytest.raises(UsageError, match="while lab machines run"):
            snapshots.remove(["first"])
        assert snapshots.has("first")

    def test_they_are_not_bounded_as_checkpoints_of_builds_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PUBLISH_CACHE_SIZE", "1")
        snapshots = Snapshots(tmp_path)
        put(snapshots.kept, "first", image_of(disk(tmp_path / "disk.raw")))
        snapshots.sweep()
        assert snapshots.has("first")

    def test_a_machine_is_not_put_back_to_another_ones(self, tmp_path: Path, task: Task) -> None:
        snapshots = Snapshots(tmp_path)
        put(snapshots.kept, "first", image_of(disk(tmp_path / "disk.raw")))
        other = image_of(disk(tmp_path / "other.raw"))
        machine = LabMachine("web", tmp_path, snapshots, other, Settings(), cast("Any", None), task)
        with pytest.raises(UsageError, match="is of another machine"):
            machine.restore("first")

    def test_a_machine_of_a_lab_is_one_of_who_knows_how_many(
        self, tmp_path: Path, task: Task
    ) -> None:
        directory = tmp_path / "labs" / "web"
        directory.mkdir(parents=True)
        image, snapshots = image_of(disk(tmp_path / "disk.raw")), Snapshots(tmp_path)
        kind = cast("Any", None)
        with LabMachine("web", directory, snapshots, image, Settings(), kind, task) as machine:
            assert machine._enter()._hardware.crowded


class TestAdopting:
    def build(self, store: Path) -> Checkpoint:
        kept = Checkpoints(store)
        inputs = {"arch": "x86_64", "machine": ["tcg", [], 2, 768]}
        levels = chain([("boot", inputs)])
        with kept:
            layers = [kept.new_layer("raw"), kept.new_layer("qcow2")]
            for layer in layers:
                layer.write_bytes(b"layer")
            made = Checkpoint(
                key=levels[0].key,
                title="boot",
                name="demo",
                layers=tuple(layer.name for layer in layers),
                facts={},
                levels=(levels[0].to_json(),),
                created=1.0,
                boot=boot_id(),
            )
            with kept.making(made.key) as partial:
                (partial / "memory").write_bytes(b"memory")
                (partial / "identity").write_bytes(b"key")
                kept.publish(partial, made)
        return made

    def test_a_builds_checkpoint_becomes_a_snapshot_for_a_while(self, tmp_path: Path) -> None:
        built = self.build(tmp_path / "store")
        snapshots = Snapshots(tmp_path / "labs")
        with snapshots.kept:
            with adopt.adopted(tmp_path / "store", built, snapshots) as snapshot:
                image, settings = described(snapshot)
                assert (image.boot, image.arch) == ("bios", "x86_64")
                assert settings == Settings(memory=768, user="root")
                place = snapshots.kept.place(snapshot.key)
                assert (place / "identity").read_bytes() == b"key"
                assert all((snapshots.kept.layers / layer).exists() for layer in built.layers)
                assert snapshots.get(snapshot.title) == snapshot
            assert not snapshots.all()
        snapshots.sweep()
        assert not list(snapshots.kept.layers.iterdir())
        assert Checkpoints(tmp_path / "store").get(built.key) == built

    @pytest.mark.parametrize("key", ["", "nothing"])
    def test_it_is_found_by_the_start_of_its_key(self, tmp_path: Path, key: str) -> None:
        built = self.build(tmp_path)
        assert adopt.find(tmp_path, built.key[:8]) == built
        with pytest.raises(UsageError, match="no checkpoint"):
            adopt.find(tmp_path, key)


class TestRunning:
    def describe(self, directory: Path, name: str) -> None:
        fields = {"image": "x", "user": "lab", "port": 1, "directory": str(directory), "pid": 1}
        (directory / DESCRIPTION).write_text(json.dumps({"name": name, **fields}))

    def test_a_machine_is_listed_while_it_runs(self, tmp_path: Path) -> None:
        with running.claim(tmp_path, "web") as directory:
            self.describe(directory, "web")
            assert [machine.name for machine in running.running(tmp_path)] == ["web"]
            assert running.find(tmp_path, "web").port == 1
        assert not running.running(tmp_path)
        assert not directory.exists()

    def test_a_name_is_taken_by_one_machine_at_a_time(self, tmp_path: Path) -> None:
        with running.claim(tmp_path, "web"):
            with pytest.raises(UsageError, match="already"), running.claim(tmp_path, "web"):
                pass
            assert running.free_name(tmp_path, "web") == "web-2"

    def test_what_a_killed_process_left_is_no_machine(self, tmp_path: Path) -> None:
        leaving = tmp_path / "run" / "web"
        leaving.mkdir(parents=True)
        self.describe(leaving, "web")
        (leaving / "guest-1").mkdir()
        with running.claim(tmp_path, "web") as directory:
            assert [path.name for path in directory.iterdir()] == ["lock"]
        leaving.mkdir()
        self.describe(leaving, "web")
        assert not running.running(tmp_path)
        assert not leaving.exists()

    def test_one_that_does_not_run_is_refused_with_those_that_do(self, tmp_path: Path) -> None:
        with running.claim(tmp_path, "web") as directory:
            self.describe(directory, "web")
            with pytest.raises(UsageError, match="no machine 'db'") as caught:
                running.find(tmp_path, "db")
            assert caught.value.hint == "running are: web"

    def test_ssh_into_it_heeds_no_configuration_and_takes_its_own_key_alone(
        self, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        became: list[str] = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(os, "execvp", lambda _, argv: became.extend(argv))
        with running.claim(labs._labs(tmp_path), "web") as directory:
            pair = keys.generate(directory, task)
            self.describe(directory, "web")
            labs.ssh("web", ["uptime"], tmp_path)
            assert Path.cwd() == directory
        assert became[:3] == ["ssh", "-F", "none"]
        assert became[-6:] == ["-p", "1", "-l", "lab", "127.0.0.1", "uptime"]
        settings = dict(word.split("=", 1) for word in became if "=" in word)
        assert settings["IdentityFile"] == pair.identity.name
        assert settings["IdentityAgent"] == "none"
        assert settings["StrictHostKeyChecking"] == "yes"
        assert settings["UserKnownHostsFile"] == pair.known_hosts.name


class Fake:
    """A LabMachine as far as Control knows it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.typed: list[bytes] = []
        self.view: Callable[[bytes], None] | None = None
        self.machine = SimpleNamespace(ended=False, watching=self.watching)

    def save(self, name: str) -> None:
        if name == "taken":
            raise UsageError("there is a snapshot 'taken' already", hint="choose another")
        self.said.append(f"save {name} in {threading.current_thread().name}")

    def restore(self, name: str) -> None:
        self.said.append(f"restore {name}")

    @contextmanager
    def watching(self, view: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
        self.view = view
        yield self.typed.append


class TestControl:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> Fake:
        # longer than a socket's address may be
        directory = tmp_path / ("d" * 100)
        directory.mkdir()
        return Fake(directory)

    @pytest.fixture
    def server(self, fake: Fake) -> Iterator[control.Control]:
        with control.Control(cast("LabMachine", fake)) as server:
            ending = threading.Event()

            def own() -> None:
                while not ending.is_set():
                    server.serve_one(0.01)

            thread = threading.Thread(target=own, name="owner")
            thread.start()
            yield server
            ending.set()
            thread.join()

    def test_a_snapshot_is_made_in_the_thread_that_owns_the_machine(
        self, fake: Fake, server: control.Control
    ) -> None:
        control.ask(fake.directory, "save", "lesson")
        control.ask(fake.directory, "restore", "lesson")
        assert fake.said == ["save lesson in owner", "restore lesson"]
        assert not server.stop

    def test_what_the_machine_refuses_is_told_with_its_hint(
        self, fake: Fake, server: control.Control
    ) -> None:
        with pytest.raises(StateError, match="already") as caught:
            control.ask(fake.directory, "save", "taken")
        assert caught.value.hint == "choose another"
        control.ask(fake.directory, "stop")
        assert server.stop

    def test_the_console_goes_both_ways(self, fake: Fake, server: control.Control) -> None:
        assert not server.stop
        with control.console(fake.directory) as connection:
            assert fake.view is not None
            fake.view(b"login: ")
            assert connection.recv(100) == b"login: "
            connection.sendall(b"root\n")
            for _ in range(500):
                if fake.typed:
                    break
                time.sleep(0.01)
        assert b"".join(fake.typed) == b"root\n"

    def test_nobody_answers_for_a_machine_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(StateError, match="does not answer"):
            control.ask(tmp_path, "save", "lesson")


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "no image is named"),
            (["x.raw", "--firmware", "efi"], "no firmware 'efi'"),
            (["x.raw", "--arch", "x86"], "no architecture 'x86'"),
            (["x.raw", "--console", "--count", "2"], "--console is for one machine"),
            (["x.raw", "--save", "s", "--count", "2"], "--save is for one machine"),
            (["x.raw", "--save", "a/b"], "no name for a snapshot"),
            (["./missing.raw"], "does not exist"),
            (["missing"], "no release 'missing'"),
            (["checkpoint:abc"], "no checkpoint"),
            (["--restore", "s"], "no snapshot 's'"),
        ],
    )
    def test_what_makes_no_sense_is_refused_at_once(
        self, tmp_path: Path, words: list[str], message: str
    ) -> None:
        argv = ["lab", "start", *words, "--state", str(tmp_path), "--plain"]
        result = CliRunner().invoke(app, argv)
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)

    def test_nothing_is_shown_where_nothing_is(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["lab", "ls", "--state", str(tmp_path)])
        assert result.exit_code == 0
        assert "no machine runs" in result.output

    def test_snapshots_and_machines_are_listed(self, tmp_path: Path) -> None:
        put(Snapshots(tmp_path / "labs").kept, "lesson", image_of(disk(tmp_path / "d.raw")))
        argv = ["lab", "ls", "--json", "--state", str(tmp_path)]
        found = json.loads(CliRunner().invoke(app, argv).output)
        assert found["snapshots"][0]["name"] == "lesson"
        assert found["machines"] == []
