"""Builds that start from a disk that exists already."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from publisher.build import build, grow
from publisher.disks import raw
from publisher.disks.store import Store
from publisher.errors import BuildError
from publisher.model import GIB, MIB, Disk, Spec
from publisher.recipe import Recipe
from publisher.task import Task, detached

pytestmark = pytest.mark.qemu


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(directory / "state")
        self.task: Task = detached(directory / "memory")

    def build(self, source: dict[str, Any], size: int, *steps: dict[str, Any]) -> Disk:
        recipe = Recipe.model_validate({"source": source, "size": size, "steps": steps})
        return build(
            recipe,
            Spec("derived", "1.0", size=size),
            directory=self.directory,
            store=self.store,
            task=self.task,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def inside(disk: Disk, command: str) -> str:
    """What debugfs says of the root file system."""
    (root,) = grow.ext_partitions(disk.path)
    argv = ["debugfs", "-R", command, f"{disk.path}?offset={root.offset}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


STEP = """
test "$(df -Pm / | awk 'END { print $2 }')" -gt 2500
command -v nginx
echo "made by a step" > /srv/made
"""


def test_a_packed_cloud_image_is_grown_stepped_and_sealed(sealed: Disk, world: World) -> None:
    image = world.directory / "image.qcow2"
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(sealed.path), str(image)]
    subprocess.run(argv, check=True)
    subprocess.run(["gzip", "-1", str(image)], check=True)
    packed = image.with_name("image.qcow2.gz")
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"disk": {"file": packed.name, "sha256": digest}}

    disk = world.build(source, 3 * GIB, {"run": STEP})

    assert disk.size == 3 * GIB
    assert inside(disk, "cat /srv/made") == "made by a step\n"
    (root,) = grow.ext_partitions(disk.path)
    assert root.length > 2.8 * GIB
    for trace in ("/root/.ssh/authorized_keys", "/var/lib/cloud", "/etc/ssh/ssh_host_ed25519_key"):
        assert "Inode:" not in inside(disk, f"stat {trace}")
    assert not [p for p in world.store.scratch("x").parent.iterdir() if p.name.startswith("build")]


def test_a_commands_disk_without_steps_is_taken_as_it_is(world: World) -> None:
    content = bytes(MIB) + b"not a system, but a disk" * 1000
    (world.directory / "content").write_bytes(content)
    run = "cp content out.raw; truncate -s 4M out.raw"
    source = {"command": {"run": run, "inputs": ["content"], "output": "out.raw"}}
    disk = world.build(source, 4 * MIB)
    assert disk.path.read_bytes() == content.ljust(4 * MIB, b"\0")
    assert raw.inspect(disk.path).sha256 == disk.sha256


def test_a_disk_that_would_not_let_the_steps_in_is_refused_before_it_boots(world: World) -> None:
    tree = world.directory / "tree" / "usr" / "lib"
    tree.mkdir(parents=True)
    (tree / "os-release").write_text("ID=none\n")
    run = "PATH=$PATH:/usr/sbin:/sbin; mke2fs -q -d tree out.raw 16m"
    source = {"command": {"run": run, "inputs": ["tree"], "output": "out.raw"}}
    with pytest.raises(BuildError, match="holds no cloud-init") as caught:
        world.build(source, 16 * MIB, {"run": "true"})
    assert caught.value.key == "build.steps"
