"""Two disks that should be one: which files and which blocks differ."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.build import partition
from publisher.disks.raw import inspect
from publisher.model import MIB, Disk
from publisher.proof.compare import compare

SIZE = 16 * MIB
GUID = uuid.UUID(int=1)
Make = Callable[..., Disk]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A disk with one ext4 partition, after `change` in its root directory."""

    def make(name: str, change: Callable[[Path], object] = lambda _: None) -> Disk:
        tree = tmp_path / f"tree-{name}"
        (tree / "etc").mkdir(parents=True)
        (tree / "etc" / "text").write_text("same\n")
        (tree / "etc" / "link").symlink_to("text")
        change(tree)
        for path in (tree, *tree.rglob("*")):
            if path.name != "late":
                os.utime(path, (10, 10), follow_symlinks=False)
        path = tmp_path / f"{name}.raw"
        head, tail = partition.table(
            GUID, SIZE, [partition.Partition(1, partition.ESP, GUID, "root", MIB, 12 * MIB)]
        )
        with path.open("wb") as file:
            file.write(head)
            file.truncate(SIZE)
            file.seek(SIZE - len(tail))
            file.write(tail)
        argv = ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-U", str(GUID), "-d", str(tree)]
        options = f"offset={MIB},hash_seed={GUID},root_owner=0:0"
        environment = {**os.environ, "E2FSPROGS_FAKE_TIME": "1000"}
        subprocess.run([*argv, "-E", options, str(path), "12m"], check=True, env=environment)
        return inspect(path)

    return make


def told(one: Disk, other: Disk) -> list[str]:
    return [str(difference) for difference in compare(one, other)]


def files(one: Disk, other: Disk) -> list[str]:
    return [f"{d.path}: {d.what}" for d in compare(one, other) if d.path]


def changed_at_once(disk: Disk) -> Disk:
    """The disk with one time for the last change of its files: no tree can be given it."""
    paths = ("/", "/etc", "/etc/text", "/etc/link", "/lost+found")
    subprocess.run(
        ["/usr/sbin/debugfs", "-w", "-f", "-", f"{disk.path}?offset={MIB}"],
        input="".join(f"set_inode_field {path} ctime @10\n" for path in paths).encode(),
        check=True,
        capture_output=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": "1000"},
    )
    return inspect(disk.path)


def test_the_same_disk_has_no_difference(make: Make) -> None:
    assert told(changed_at_once(make("one")), changed_at_once(make("two"))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: (t / "etc" / "text").write_text("else\n"), ["/etc/text: content"]),
        (
            lambda t: (t / "etc" / "text").write_text("longer text\n"),
            ["/etc/text: content (5 and 12 bytes)"],
        ),
        (lambda t: (t / "etc" / "text").chmod(0o600), ["/etc/text: mode 644 and 600"]),
        (lambda t: (t / "etc" / "new").write_text(""), ["/etc/new: only in the second"]),
        (lambda t: (t / "etc" / "text").unlink(), ["/etc/text: only in the first"]),
        (
            lambda t: ((t / "etc" / "link").unlink(), (t / "etc" / "link").symlink_to("else")),
            ["/etc/link: target text and else"],
        ),
        (
            lambda t: os.setxattr(t / "etc" / "text", "user.note", b"x"),
            ["/etc/text: extended attributes"],
        ),
    ],
)
def test_it_says_which_file_differs_and_how(
    change: Callable[[Path], object], said: list[str], make: Make
) -> None:
    try:
        other = make("two", change)
    except OSError:
        pytest.skip("the file system of the test has no extended attributes")
    assert files(make("one"), other) == said


def test_a_time_is_told_apart_from_content(make: Make) -> None:
    def late(when: int) -> Callable[[Path], None]:
        def change(tree: Path) -> None:
            (tree / "late").write_text("x")
            os.utime(tree / "late", (10, when))

        return change

    one, other = make("one", late(10)), make("two", late(11))
    assert files(one, other) == ["/late: time of the last change"]


def test_blocks_that_belong_to_no_file_are_told_by_place(make: Make) -> None:
    one, two = changed_at_once(make("one")), changed_at_once(make("two"))
    with two.path.open("r+b") as file:
        file.seek(15 * MIB)
        file.write(b"outside")
        file.seek(12 * MIB)
        file.write(b"inside")
    assert told(one, inspect(two.path)) == [
        f"partition 1 (ext4): 1 blocks of 4096 bytes, the first one at byte {12 * MIB}",
        f"outside partitions: 1 blocks of 4096 bytes, the first one at byte {15 * MIB}",
    ]


def test_another_size_is_said_at_once(make: Make, tmp_path: Path) -> None:
    one = make("one")
    with (tmp_path / "short.raw").open("wb") as file:
        file.truncate(MIB)
    assert told(one, inspect(tmp_path / "short.raw")) == [
        f"disk: it has {SIZE} bytes, and {MIB}",
    ]
