"""The secret gate: where a secret may lie, and when the gate refuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.build import partition
from publisher.errors import ProofError
from publisher.model import GIB, MIB, SECTOR, Disk, Extent, Finding, Severity
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.partitions import BIOS_BOOT
from publisher.proof.inspect.partitions import SWAP as SWAP_KIND
from publisher.proof.inspect.tree import Tree
from publisher.proof.secrets import Known, engine, refuse, search
from publisher.task import detached
from tests.unit.ext_disk import START, ext_disk
from tests.unit.secret_samples import (
    RSA,
    SWAP,
    checksummed,
    found,
    plant,
    public_key,
    secrets,
    written,
)

TOKEN = checksummed("ghp").encode()


def test_an_erased_file_is_found(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/etc/hostname": "web\n"})
    plant(disk, START + 12 * MIB, b"token=" + TOKEN + b"\n")
    [finding] = secrets(found(disk, tmp_path))
    assert f"byte {12 * MIB + 6} of partition 1 (ext4), in no file" in finding.evidence
    assert "fstrim" in finding.fix


def test_slack_behind_the_end_of_a_file_is_searched(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/etc/marker": "a line that is on no other disk\n"})
    at = disk.read_bytes().index(b"a line that is on no other disk")
    plant(disk, at + 100, TOKEN)
    [finding] = secrets(found(disk, tmp_path))
    assert "/etc/marker, behind its end" in finding.evidence


def test_bytes_outside_of_partitions_are_searched(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/x": "x"})
    plant(disk, 512 * 1024, b" " + TOKEN)
    [finding] = secrets(found(disk, tmp_path))
    assert f"byte {512 * 1024 + 1} of the disk, outside of partitions" in finding.evidence


@pytest.mark.parametrize("back", [1, 4, 20, 39, 40])
def test_a_border_between_chunks_hides_nothing(tmp_path: Path, back: int) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"." * (engine.CHUNK + MIB))
    plant(disk, engine.CHUNK - back, b" " + TOKEN + b" ")
    assert len(secrets(found(disk, tmp_path))) == 1


def test_a_key_longer_than_the_rest_of_a_chunk_is_read_to_its_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"\n" * (engine.CHUNK + MIB))
    plant(disk, engine.CHUNK - 100, written(RSA))
    assert [f.rule for f in secrets(found(disk, tmp_path))] == ["secrets.private-key"]


def test_the_first_and_the_last_byte_are_searched(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(TOKEN + b" " * MIB + checksummed("gho").encode())
    [finding] = secrets(found(disk, tmp_path))
    assert "(2 of them)" in finding.evidence


def test_holes_are_not_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.touch()
    plant(disk, 512 * GIB, TOKEN)
    started = time.monotonic()
    known = Disk(disk, 512 * GIB + len(TOKEN), "", (Extent(512 * GIB, len(TOKEN)),))
    assert len(secrets(search(known, Known(), detached(tmp_path / "memory")))) == 1
    assert time.monotonic() - started < 10


def test_a_disk_full_of_lookalikes_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOOKALIKES_MOST", 50)
    disk = tmp_path / "disk.raw"
    disk.write_bytes((b"ghp_" + b"a" * 36 + b" ") * 100)
    assert "secrets.unexamined" in {finding.rule for finding in found(disk, tmp_path)}


def damaged(tmp_path: Path) -> Path:
    disk = ext_disk(tmp_path, {"/root/.bash_history": "ls\n"})
    for sector in (1, disk.stat().st_size // SECTOR - 1):
        plant(disk, sector * SECTOR + 16, b"bad!")
    return disk


def encrypted(tmp_path: Path) -> Path:
    disk = ext_disk(tmp_path, {"/root/.bash_history": "ls\n"})
    plant(disk, START, b"LUKS\xba\xbe\0\2".ljust(2048, b"\0"))
    return disk


def unknown(tmp_path: Path) -> Path:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"?" * MIB)
    return disk


def nothing_known_in_a_partition(tmp_path: Path) -> Path:
    disk = ext_disk(tmp_path, {})
    plant(disk, START, b"?" * MIB)
    return disk


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (damaged, "no file of the disk was looked for by its name: the GUID partition table is"),
        (encrypted, "no file of partition 1 (crypto_LUKS) was looked for by its name: there is no"),
        (unknown, "no file was looked for by its name: the disk has no partition table"),
        (
            nothing_known_in_a_partition,
            "no file of partition 1 (unknown content) was looked for by its name: no known file",
        ),
    ],
)
def test_where_no_file_can_be_asked_for_a_public_release_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], told: str
) -> None:
    [finding] = found(make(tmp_path), tmp_path)
    assert (finding.rule, finding.severity) == ("secrets.unexamined", Severity.WARNING)
    assert told in finding.evidence
    assert 'ignore = [{ rule = "secrets.unexamined", reason = "…" }]' in finding.fix
    refuse([finding], public=False)
    with pytest.raises(ProofError, match="a public image must be searched as a whole"):
        refuse([finding], public=True)


def test_a_history_that_can_not_be_looked_for_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Tree.find

    def fail(tree: Tree, path: str) -> object:
        if path == "/root/.lesshst":
            raise Unreadable("its directory is damaged")
        return find(tree, path)

    monkeypatch.setattr(Tree, "find", fail)
    disk = ext_disk(tmp_path, {"/root/.bash_history": "ls\n", "/root/.viminfo": "x"})
    evidence = [finding.evidence for finding in found(disk, tmp_path)]
    assert evidence == [
        "history of commands in /root/.bash_history",
        "history of commands in /root/.viminfo",
        "not all homes on partition 1 (ext4) can be read: its directory is damaged",
    ]


def test_partitions_without_files_hide_none(tmp_path: Path) -> None:
    """As on a stock image: a boot loader's, swap, an ESP, and one that is empty."""
    disk = ext_disk(tmp_path, {"/etc/hostname": "web\n"})
    parts = [
        partition.Partition(1, partition.ROOT["x86_64"], uuid.UUID(int=1), "root", START, 20 * MIB),
        partition.Partition(
            2, uuid.UUID(BIOS_BOOT), uuid.UUID(int=2), "loader", 21 * MIB, 64 * 1024
        ),
        partition.Partition(3, uuid.UUID(SWAP_KIND), uuid.UUID(int=3), "swap", 22 * MIB, 64 * 1024),
        partition.Partition(4, partition.ROOT["x86_64"], uuid.UUID(int=4), "", 23 * MIB, 64 * 1024),
    ]
    size = disk.stat().st_size
    head, tail = partition.table(uuid.UUID(int=9), size, parts)
    plant(disk, 0, head)
    plant(disk, size - len(tail), tail)
    plant(disk, 21 * MIB, b"GRUB")
    plant(disk, 22 * MIB, SWAP)
    assert found(disk, tmp_path) == []


# -- what tells by its place


def test_keys_that_let_somebody_in_are_found(tmp_path: Path) -> None:
    disk = ext_disk(
        tmp_path, {"/root/.ssh/authorized_keys": public_key(), "/etc/known": public_key()}
    )
    [finding] = secrets(found(disk, tmp_path))
    assert finding.rule == "secrets.ssh-authorized-key"
    assert "/root/.ssh/authorized_keys" in finding.evidence


def test_histories_and_logins_are_found_and_empty_ones_are_not(tmp_path: Path) -> None:
    files = {
        "/etc/passwd": "svc:x:1:1::/srv/svc:/bin/sh\n",
        "/root/.bash_history": "ls\n",
        "/srv/svc/.python_history": "1\n",
        "/home/me/.config/gcloud/credentials.db": "x",
        "/home/me/.bash_history": "",
        "/home/me/.mariadb_history": "x",
        "/root/.ksh_history": "x",
        "/root/.mongodb/mongosh/mongosh_repl_history": "x",
        "/root/.local/share/powershell/PSReadLine/ConsoleHost_history.txt": "x",
    }
    evidence = [f.evidence for f in secrets(found(ext_disk(tmp_path, files), tmp_path))]
    assert sorted(text.rpartition(" ")[2] for text in evidence) == [
        "/home/me/.config/gcloud/credentials.db",
        "/home/me/.mariadb_history",
        "/root/.bash_history",
        "/root/.ksh_history",
        "/root/.local/share/powershell/PSReadLine/ConsoleHost_history.txt",
        "/root/.mongodb/mongosh/mongosh_repl_history",
        "/srv/svc/.python_history",
    ]


def test_a_fix_can_be_pasted_whatever_the_file_is_called(tmp_path: Path) -> None:
    # a short file lies in its inode, right behind a checksum that may end in a letter
    disk = ext_disk(tmp_path, {"/srv/a b; reboot": b"token=" + TOKEN})
    [finding] = secrets(found(disk, tmp_path))
    assert finding.fix.startswith("sudo rm -rf '/srv/a b; reboot' in the last build step")


# -- the gate


def test_a_public_release_refuses_what_a_private_one_is_warned_of() -> None:
    finding = Finding("secrets.private-key", Severity.ERROR, "private key in /x", "rm /x")
    refuse([finding], public=False)
    with pytest.raises(ProofError, match="private key in /x") as caught:
        refuse([finding], public=True)
    assert caught.value.hint == "rm /x"


def test_what_is_public_anyway_does_not_stop_a_public_release() -> None:
    refuse([Finding("secrets.published", Severity.NOTE, "a test key")], public=True)
