"""`publish export`: images by all their names, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from publisher import manifest
from publisher.cli.main import run
from publisher.disks import foreign, raw
from publisher.disks.store import Store
from publisher.memory import Memory
from publisher.model import Disk
from publisher.task import Task
from tests.unit.files_world import World, small_disk


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return small_disk(tmp_path / "disk.raw")


def released(state: Path, disk: Disk) -> None:
    """A release as a run leaves it in the state directory."""
    path = manifest.manifest_path(state, "web", "1.0.0")
    path.parent.mkdir(parents=True)
    manifest.write(
        manifest.Manifest(
            "web",
            "1.0.0",
            "run1",
            "2026-01-01T00:00:00Z",
            (manifest.Flavour("web", "x86_64", "uefi", disk.sha256, disk.size, disk.data_bytes),),
            (),
        ),
        path,
    )


def same(path: Path, disk: Disk, tmp_path: Path) -> bool:
    task = Task("check", Memory(tmp_path / "m"))
    back = raw.inspect(foreign.convert(path, tmp_path / "back.raw", task))
    return back.sha256 == disk.sha256


def test_a_release_is_exported_from_the_store(
    state: Path, disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released(state, disk)
    stored = Store(state).add(disk.path)
    assert run(["export", "web", "--to", "ova"]) == 0
    written = tmp_path / "web-1.0.0-x86_64.ova"
    assert capsys.readouterr().out.strip() == str(written)
    assert same(written, stored, tmp_path)
    stored.path.unlink()
    assert run(["export", "web@1.0.0", "--to", "vdi"]) == 2
    assert "not in" in capsys.readouterr().err


def test_a_file_is_exported_even_when_it_is_packed(disk: Disk, tmp_path: Path, state: Path) -> None:
    packed = tmp_path / "theirs.qcow2.gz"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk.path, "theirs.qcow2"], check=True)
    packed.write_bytes(gzip.compress((tmp_path / "theirs.qcow2").read_bytes()))
    assert run(["export", f"file:{packed}", "--to", "vmdk", "-o", "out/web.vmdk"]) == 0
    assert same(tmp_path / "out/web.vmdk", disk, tmp_path)
    assert not [path for path in state.rglob("*") if path.is_file()], "nothing is left behind"


def test_an_image_of_a_provider_is_exported(disk: Disk, tmp_path: Path) -> None:
    world = World(str(tmp_path / "images"), tmp_path)
    image = world.register(disk)
    assert run(["export", image.reference, "--to", "vhd", "--json"]) == 0
    assert same(tmp_path / "web-1.0.0-x86_64.vhd", disk, tmp_path)


def test_json_lines_tell_what_was_written(
    disk: Disk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["export", f"file:{disk.path}", "--to", "raw", "-o", "copy.raw", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["event"] == "RunStarted"
    assert lines[-1]["event"] == "StepFinished"
    assert str(tmp_path / "copy.raw") in lines[-1]["summary"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["web", "--to", "qcov2"], 2, 'did you mean "qcow2"'),
        (["web", "--to", "ova", "--controller", "nvm"], 2, 'did you mean "nvme"'),
        (["web", "--to", "ova", "--network", "none"], 2, "known are: vmxnet3"),
        (["web", "--to", "ova"], 2, "there is no release 'web'"),
        (["file:none.raw", "--to", "ova"], 2, "does not exist"),
        (["nimbo:x/y", "--to", "ova"], 2, "there is no provider 'nimbo'"),
        (["files:/none/web", "--to", "ova"], 7, "is not there"),
        (["web"], 2, "--to"),
    ],
)
def test_what_cannot_be_exported_says_why(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *arguments]) == code
    assert message in capsys.readouterr().err
