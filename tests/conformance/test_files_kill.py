"""SIGKILL before any operation on the file system: what is served stays whole,
and the same call, by a new process, ends where an undisturbed one ends."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from publisher.model import Audience, Disk, Image, Query
from tests.unit.files_world import World, small_disk

Verb = Literal["upload", "register", "release", "withdraw", "delete"]
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


def killed_at(point: int, root: Path, act: Callable[[], object]) -> bool:
    """Do it in a process that dies before its operation number `point` under
    `root`; False when it ended before that."""
    pid = os.fork()
    if pid == 0:
        left = point

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in EVENTS and str(root) in str(arguments[0]):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        try:
            sys.addaudithook(hook)
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def call(world: World, verb: Verb, disk: Disk, image: Image | None) -> Callable[[], object]:
    if verb in ("upload", "register"):
        spec = world.spec(disk)

        def bring() -> object:
            upload = world.provider().upload(disk, spec, world.task())
            return world.provider().register(upload, spec, world.task())

        return bring
    assert image is not None
    return {
        "release": lambda: world.release(image),
        "withdraw": lambda: world.provider().withdraw(image, world.task()),
        "delete": lambda: world.provider().delete(image, world.task()),
    }[verb]


def served_is_whole(world: World) -> None:
    """Whatever the index lists is there with the size that it says."""
    if not (world.root / "streams/v1/images.json").exists():
        return
    for product in world.listed().values():
        for version in product["versions"].values():
            for item in version["items"].values():
                assert (world.root / item["path"]).stat().st_size == item["size"]


@pytest.mark.parametrize("verb", ["register", "release", "withdraw", "delete"])
def test_killed_anywhere_it_continues(tmp_path: Path, verb: Verb) -> None:
    disk = small_disk(tmp_path / "disk.raw", size=128 * 1024)
    prepared = World(str(tmp_path / "images"), tmp_path / "prepared", formats=("raw",))
    neighbour = prepared.register(small_disk(tmp_path / "n.raw", seed=3), name="neighbour")
    prepared.release(neighbour)
    image = None if verb == "register" else prepared.register(disk)
    if image is not None and verb != "release":
        prepared.release(image)
    shutil.copytree(prepared.root, tmp_path / "before")

    def fresh(name: str) -> World:
        shutil.rmtree(prepared.root)
        shutil.copytree(tmp_path / "before", prepared.root)
        return World(str(prepared.root), tmp_path / name, formats=("raw",))

    calm = fresh("calm")
    call(calm, verb, disk, image)()
    wanted = calm.tree()
    point = 0
    while True:
        world = fresh(f"kill{point}")
        if not killed_at(point, world.root, call(world, verb, disk, image)):
            break
        served_is_whole(world)
        assert "local:neighbour:amd64" in world.listed()
        if point % 2:
            world.scratch = tmp_path / f"another-machine{point}"
        call(world, verb, disk, image)()
        assert world.tree() == wanted, f"killed before operation {point}"
        audiences = {
            found.name: found.audience for found in world.provider().find(Query(), world.task())
        }
        assert audiences["neighbour"] == Audience("public")
        if verb != "delete":
            kind: Literal["private", "public"] = "public" if verb == "release" else "private"
            assert audiences["web"] == Audience(kind)
        point += 1
    assert point > 5, "nothing was killed"
