"""What is seen of an installed disk, and that the installer runs once."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from publisher.build import installed, partition
from publisher.build.checkpoints import Checkpoints, chain
from publisher.build.installed import Site
from publisher.build.installer import Installation
from publisher.build.work import Work
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BuildError
from publisher.events import Event, Note
from publisher.memory import Memory
from publisher.model import MIB, Spec
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm import keys
from publisher.vm.accelerator import decide

TCG = decide("x86_64", native=True, device="none", guest="", cpus=2)
SIZE = 24 * MIB
OFFSET = 4 * MIB
(LEVEL,) = chain([("installation", {"kernel": "1"})])
SYSTEM = {
    "usr/lib/os-release": "ID=debian\n",
    "usr/sbin/sshd": "",
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAAofthehost root@host\n",
}
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

pytestmark = pytest.mark.skipif(
    not (shutil.which("mke2fs", path=ENVIRONMENT["PATH"]) and shutil.which("ssh-keygen")),
    reason="e2fsprogs or openssh-client is missing",
)


class World:
    """An installer that leaves a file system of the test on the disk."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.runs = 0
        self.system: dict[str, str] = dict(SYSTEM)
        self.esp = False
        self.answer = "no key"
        for name in ("linux", "initrd"):
            (directory / name).write_text(name)
        monkeypatch.setattr(Installation, "run", lambda _, *a, **k: self._run(*a))

    def _run(self, into: Path, size: int) -> Path:
        self.runs += 1
        into.write_bytes(bytes(size))
        if not self.system:
            return into
        tree = self.directory / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for name, text in self.system.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        kinds = [(1, partition.ROOT["x86_64"], OFFSET, SIZE // 2)]
        kinds += [(2, partition.ESP, MIB, MIB)] if self.esp else []
        parts = [partition.Partition(n, k, uuid.uuid4(), "p", o, s) for n, k, o, s in kinds]
        head, tail = partition.table(uuid.uuid4(), size, parts)
        with into.open("r+b") as file:
            file.write(head)
            file.seek(size - len(tail))
            file.write(tail)
        argv = ["mke2fs", "-q", "-F", "-d", str(tree), "-E", f"offset={OFFSET}", str(into), "12m"]
        subprocess.run(argv, check=True, env=ENVIRONMENT)
        return into

    def prepare(self, firmware: str = "bios") -> Work:
        (self.directory / "answers").write_text(self.answer)
        installer = {
            "kernel": "linux",
            "initrd": "initrd",
            "arguments": "url={url}",
            "files": {"answers": "answers"},
            "user": "operator",
        }
        recipe = Recipe.model_validate(
            {"source": {"installer": installer}, "size": SIZE, "firmware": firmware}
        )
        task = Task("build", Memory(self.directory / "memory"), sink=self.events.append)
        store = Store(self.directory / "state")
        self.kept = Checkpoints(store.directory.parent)
        with Workspace(store, None, task) as workspace, self.kept:
            site = Site(workspace, self.kept, TCG, None, self.directory, task)
            return installed.prepare(recipe, Spec("web", "1"), LEVEL, {}, site)

    def notes(self) -> str:
        return " ".join(event.text for event in self.events if isinstance(event, Note))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_system_without_cloud_init_lets_in_the_user_of_the_answers(world: World) -> None:
    world.answer = "{ssh_public_key}"
    work = world.prepare()
    assert (work.root, work.door, work.keys) == (OFFSET, "operator", False)
    known = keys.load(Path(work.known))
    assert known.pinned
    assert "guest ssh-ed25519 AAAAofthehost\n" in known.known_hosts.read_text()
    assert "sshd will not start in the image" in world.notes()


def test_an_installer_runs_once(world: World) -> None:
    world.answer = "{ssh_public_key}"
    first = world.prepare()
    assert world.prepare() == first
    assert world.runs == 1
    assert first.disk.parent == world.kept.layers
    world.kept.prune(0)
    assert not first.disk.exists()
    world.prepare()
    assert world.runs == 2


def test_a_system_with_cloud_init_needs_no_key_in_its_answers(world: World) -> None:
    world.system["usr/bin/cloud-init"] = ""
    work = world.prepare()
    assert work.door == ""
    assert "sshd will not start" not in world.notes()


def test_keys_that_belong_to_the_image_are_told_apart_from_ours(world: World) -> None:
    world.answer = "{ssh_public_key}"
    world.system["root/.ssh/authorized_keys"] = "# mine\nssh-ed25519 AAAAmine me@home\n"
    assert world.prepare().keys


@pytest.mark.parametrize(
    ("missing", "message"),
    [("usr/sbin/sshd", "holds no SSH server"), ("", "lets nobody in")],
)
def test_a_system_that_nobody_can_log_in_to_is_refused(
    world: World, missing: str, message: str
) -> None:
    world.system.pop(missing, None)
    with pytest.raises(BuildError, match=message) as caught:
        world.prepare()
    assert str(caught.value.key).startswith("build.source.installer")


def test_a_disk_that_was_left_empty_is_refused(world: World) -> None:
    world.system = {}
    with pytest.raises(BuildError, match="without a boot sector or partitions"):
        world.prepare()


def test_a_disk_without_an_efi_partition_does_not_boot_by_uefi(world: World) -> None:
    world.answer = "{ssh_public_key}"
    with pytest.raises(BuildError, match="no EFI system partition") as caught:
        world.prepare("bios+uefi")
    assert caught.value.key == "build.firmware"
    world.prepare("bios")
    assert world.runs == 1, "the installation itself was right"
    world.kept.prune(0)
    world.esp = True
    world.prepare("uefi")
