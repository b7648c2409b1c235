"""Sealing on the file: deleted bytes are gone, and traces are found. With a real ext4."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from publisher.build import seal
from publisher.build.layout import ROOT_OFFSET
from publisher.disks import holes
from publisher.errors import BuildError
from publisher.model import MIB, Extent
from publisher.task import Task, detached

SECRET = b"-- a secret that was deleted --" * 200
needs_e2fsprogs = pytest.mark.skipif(not shutil.which("debugfs"), reason="e2fsprogs is missing")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc" / "ssh").mkdir(parents=True)
    (tree / "root").mkdir()
    (tree / "etc" / "machine-id").touch()
    (tree / "root" / "kept").write_bytes(b"kept" * 5000)
    return tree


def make(tree: Path) -> Path:
    disk = tree.parent / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(ROOT_OFFSET + 32 * MIB)
    subprocess.run(
        ["mke2fs", "-qFt", "ext4", "-d", tree, "-E", f"offset={ROOT_OFFSET}", disk, "32768k"],
        check=True,
        capture_output=True,
    )
    return disk


def debugfs(disk: Path, command: str) -> bytes:
    argv = ["debugfs", "-w", "-R", command, f"{disk}?offset={ROOT_OFFSET}"]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def test_free_ranges_are_read_from_dumpe2fs() -> None:
    listing = """Group 0: (Blocks 0-32767) csum 0x1 [ITABLE_ZEROED]
  Block bitmap at 1025 (+1025)
  30 free blocks, 8181 free inodes, 2 directories
  Free blocks: 33-40, 9000, 10000-10001
  Free inodes: 12-8192
Group 1: (Blocks 32768-65535)
  Free blocks: \n"""
    assert list(seal.free_blocks(listing, 4096)) == [
        Extent(33 * 4096, 8 * 4096),
        Extent(9000 * 4096, 4096),
        Extent(10000 * 4096, 2 * 4096),
    ]


@needs_e2fsprogs
@pytest.mark.parametrize("punched", [True, False], ids=["with holes", "without holes"])
def test_what_was_deleted_is_gone_from_the_file(
    punched: bool, tree: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not punched:
        monkeypatch.setattr(holes, "_punch", lambda *_: False)
    (tree / "root" / "secret").write_bytes(SECRET)
    disk = make(tree)
    debugfs(disk, "rm /root/secret")
    assert SECRET in disk.read_bytes()
    erased = seal.erase(disk, task)
    assert erased > 10 * MIB
    assert b"a secret that was deleted" not in disk.read_bytes()
    assert debugfs(disk, "cat /root/kept") == b"kept" * 5000
    seal.prove(disk, task)
    if punched:
        assert disk.stat().st_blocks * 512 < 8 * MIB


@needs_e2fsprogs
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys"),
        ("/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key"),
        ("/var/lib/cloud/instance-id", "/var/lib/cloud"),
    ],
)
def test_a_trace_of_the_build_is_found_and_named(
    path: str, named: str, tree: Path, task: Task
) -> None:
    file = tree / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    with pytest.raises(BuildError, match=f"left traces of the build: {named}$"):
        seal.prove(make(tree), task)


@needs_e2fsprogs
def test_a_machine_id_that_is_not_empty_is_a_trace(tree: Path, task: Task) -> None:
    (tree / "etc" / "machine-id").write_text("0123456789abcdef\n")
    with pytest.raises(BuildError, match="/etc/machine-id"):
        seal.prove(make(tree), task)


@needs_e2fsprogs
def test_keys_that_the_steps_wrote_may_stay(tree: Path, task: Task) -> None:
    (tree / "root" / ".ssh").mkdir()
    (tree / "root" / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA operator\n")
    disk = make(tree)
    seal.prove(disk, task, keys_expected=True)


@needs_e2fsprogs
def test_a_damaged_file_system_is_refused(tree: Path, task: Task) -> None:
    disk = make(tree)
    debugfs(disk, "clri /root")
    with pytest.raises(BuildError, match="damaged"):
        seal.prove(disk, task)
