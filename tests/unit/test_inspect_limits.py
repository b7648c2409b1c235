"""What readers remember of a disk that somebody hostile has made, and how long they look."""

from __future__ import annotations

import struct
import time
import traceback
import tracemalloc

import pytest

from publisher.model import MIB
from publisher.proof.inspect.btrfs import chunks
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.inspect.once import once
from publisher.proof.inspect.tree import Tree
from tests.unit import lint_world as world
from tests.unit.lint_world import MODULES, VERSION, Files, World, good


def kernel(files: Files, budget: Budget, *initrds: str) -> Kernel:
    return Kernel(Tree(world.Memory(files), budget), budget, VERSION, "/vmlinuz", initrds)


def needing_many(count: int) -> Files:
    """Drivers of which each needs many more, one of them the next."""
    names = [[f"m{line}_{number}" for number in range(count)] for line in range(3)]
    lines = [
        f"{world.module(name)}: " + " ".join(f"{needed}.ko" for needed in needs)
        for name, needs in zip(("nvme", names[0][0], names[1][0]), names, strict=True)
    ]
    return {f"{MODULES}/modules.dep": "\n".join(lines).encode()}


def test_what_a_driver_needs_is_found_in_the_time_that_its_list_takes() -> None:
    started = time.monotonic()
    lacking = kernel(needing_many(20_000), Budget()).lacking("nvme")
    assert len(lacking) == 60_001
    assert time.monotonic() - started < 5


def test_what_a_driver_needs_is_drawn_from_the_budget() -> None:
    budget = Budget(steps=1_000)
    with pytest.raises(Exhausted, match="more steps"):
        kernel(needing_many(500), budget).lacking("nvme")


@pytest.mark.parametrize(
    ("files", "ask"),
    [
        (needing_many(500), lambda k: k.lacking("nvme")),
        ({f"{MODULES}/modules.builtin": b"a.ko\n" * 2_000}, lambda k: k.lacking("nvme")),
        ({f"/boot/config-{VERSION}": b"A=B\n" * 2_000}, lambda k: k.config()),
        ({"/i": world.cpio(["n" * 200] * 700)}, lambda k: k.initramfs_names()),
    ],
    ids=["modules.dep", "modules.builtin", "config", "initramfs"],
)
def test_what_is_remembered_of_a_kernel_is_bounded(files: Files, ask: object) -> None:
    assert callable(ask)
    ask(kernel({**good(), **files}, Budget(), "/i"))
    with pytest.raises(Exhausted, match="more than a sound disk can hold"):
        ask(kernel({**good(), **files}, Budget(memory=100_000), "/i"))


def test_several_initramfs_files_are_remembered_together() -> None:
    files: Files = {"/i": world.cpio([str(n) for n in range(600)])}
    assert len(kernel(files, Budget(memory=100_000), "/i").initramfs_names()) == 600
    with pytest.raises(Exhausted, match="more than a sound disk can hold"):
        kernel(files, Budget(memory=100_000), *["/i"] * 2).initramfs_names()


@pytest.mark.parametrize(
    ("line", "most", "said"),
    [(b"a b c\n", 1_000, "mounts more than 1000"), (b"a b\n", 10_000, "more than 10000 lines")],
)
def test_fstab_has_an_end(line: bytes, most: int, said: str) -> None:
    World({**good(), "/etc/fstab": line * most}).fstab()
    started = time.monotonic()
    with pytest.raises(Damaged, match=said):
        World({**good(), "/etc/fstab": line * (14 * MIB // len(line))}).fstab()
    assert time.monotonic() - started < 5


def test_btrfs_has_so_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNKS_MOST", 10)
    found = chunks.Chunks(world.Blank(), 1)
    item = struct.pack("<QQQQ12xHHQQ16x", MIB, 2, 65536, 1, 1, 1, 1, 0)
    for number in range(10):
        found.add(number * MIB, item)
    with pytest.raises(Damaged, match="more than 10 chunks"):
        found.add(10 * MIB, item)


class Greedy:
    calls = 0

    @once
    def read(self) -> bytes:
        self.calls += 1
        raise MemoryError

    @once
    def fail(self) -> bytes:
        kept = bytes(8 * MIB)
        try:
            raise ValueError(kept[:1])
        except ValueError as error:
            raise Damaged("it is damaged") from error


def test_a_reader_without_memory_finds_a_damage_and_is_not_asked_again() -> None:
    greedy = Greedy()
    for _ in range(2):
        with pytest.raises(Damaged, match="more memory than there is"):
            greedy.read()
    assert greedy.calls == 1


def test_a_remembered_failure_holds_nothing_of_what_was_read() -> None:
    greedy = Greedy()
    tracemalloc.start()
    for _ in range(2):
        with pytest.raises(Damaged) as caught:
            greedy.fail()
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2
    del caught
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MIB
