"""The disk's layout as bytes: partition table, boot code, identity."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest

from publisher.build import files, grub, identity, layout, namespace, partition
from publisher.build.workspace import Workspace
from publisher.disks.raw import inspect
from publisher.disks.store import Store
from publisher.errors import BuildError, HostError
from publisher.model import GIB, MIB, SECTOR
from publisher.proof.compare import compare
from publisher.task import detached
from publisher.vm.arch import PLATFORMS, platform_of

X86 = PLATFORMS["x86_64"]
IDENTITY = identity.derive("demo", "1.0")
SIZE = 2 * GIB


def header(data: bytes) -> tuple[Any, ...]:
    return struct.unpack("<8sIIIIQQQQ16sQIII", data[:92])


@pytest.fixture
def parts() -> list[partition.Partition]:
    return layout.partitions(IDENTITY, "bios+uefi", X86, SIZE)


def test_both_headers_of_the_table_hold_and_point_at_each_other(
    parts: list[partition.Partition],
) -> None:
    head, tail = partition.table(IDENTITY.disk, SIZE, parts)
    first, last = head[SECTOR : 2 * SECTOR], tail[-SECTOR:]
    for block, entries in ((first, head[2 * SECTOR :]), (last, tail[:-SECTOR])):
        cleared = block[:16] + bytes(4) + block[20:92]
        assert struct.unpack_from("<I", block, 16)[0] == zlib.crc32(cleared)
        assert struct.unpack_from("<I", block, 88)[0] == zlib.crc32(entries[: 128 * 128])
    one, two = header(first), header(last)
    assert (one[5], one[6]) == (two[6], two[5]) == (1, SIZE // SECTOR - 1)
    assert one[9] == IDENTITY.disk.bytes_le
    assert head[510:512] == b"\x55\xaa"
    assert head[450] == 0xEE


@pytest.mark.skipif(not shutil.which("sfdisk"), reason="sfdisk is missing")
def test_sfdisk_reads_the_table_and_finds_no_fault(
    parts: list[partition.Partition], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    head, tail = partition.table(IDENTITY.disk, SIZE, parts)
    with disk.open("wb") as file:
        file.write(head)
        file.seek(SIZE - len(tail))
        file.write(tail)
    verdict = subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True)
    assert "No errors detected" in verdict.stdout
    dump = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True).stdout.lower()
    assert str(IDENTITY.disk) in dump
    for part in parts:
        assert str(part.guid) in dump
        assert str(part.kind) in dump
    assert 'name="root"' in dump


def test_partitions_do_not_overlap_and_the_root_is_the_last(
    parts: list[partition.Partition],
) -> None:
    by_offset = sorted(parts, key=lambda part: part.offset)
    for before, after in itertools.pairwise(by_offset):
        assert before.offset + before.length <= after.offset
    assert by_offset[-1].number == 1
    assert by_offset[-1].offset + by_offset[-1].length <= SIZE - 33 * SECTOR
    assert all(part.offset % MIB == 0 and part.length % MIB == 0 for part in parts)


def test_a_disk_for_one_firmware_has_the_partitions_of_that_one_only() -> None:
    kinds = {
        firmware: {part.kind for part in layout.partitions(IDENTITY, firmware, X86, SIZE)}
        for firmware in ("bios", "uefi")
    }
    assert partition.ESP not in kinds["bios"]
    assert partition.BIOS_BOOT not in kinds["uefi"]
    assert "/boot/efi" not in files.identity_files(IDENTITY, "bios", X86)["etc/fstab"]
    assert IDENTITY.esp in files.identity_files(IDENTITY, "uefi", X86)["etc/fstab"]


def test_the_boot_sector_keeps_the_table_and_points_at_the_core() -> None:
    boot = bytes([0x90] * 510) + b"\x55\xaa"
    mbr = partition.protective_mbr(SIZE)
    sector = grub.boot_sector(boot, mbr, 2048)
    assert len(sector) == SECTOR
    assert sector[440:] == mbr[440:]
    assert struct.unpack_from("<Q", sector, 0x5C)[0] == 2048


def test_the_core_loads_the_rest_of_itself() -> None:
    core = grub.core_image(bytes([7]) * (40 * SECTOR + 5), 2048, MIB)
    assert len(core) == 41 * SECTOR
    assert struct.unpack_from("<QHH", core, 500) == (2049, 40, 0x820)


def test_boot_code_that_can_not_work_is_refused() -> None:
    with pytest.raises(BuildError, match="not a boot sector"):
        grub.boot_sector(bytes(512), bytes(512), 2048)
    with pytest.raises(BuildError, match="does not fit"):
        grub.core_image(bytes(MIB), 2048, MIB - 1)


def test_the_identity_follows_name_and_version_and_nothing_else() -> None:
    again, other = identity.derive("demo", "1.0"), identity.derive("demo", "1.1")
    assert again == IDENTITY
    for name in ("disk", "root", "root_partition", "esp_partition", "esp_serial"):
        assert getattr(IDENTITY, name) != getattr(other, name)
    assert identity.derive("demo1", ".0") != identity.derive("demo", "1.0")
    assert len({v for v in vars_of(IDENTITY) if isinstance(v, uuid.UUID)}) == 6
    assert IDENTITY.esp == f"{IDENTITY.esp_serial[:4]}-{IDENTITY.esp_serial[4:]}"


def vars_of(value: identity.Identity) -> list[object]:
    return [getattr(value, name) for name in value.__dataclass_fields__]


def test_root_is_found_by_its_uuid_everywhere() -> None:
    root = str(IDENTITY.root)
    texts = files.identity_files(IDENTITY, "bios+uefi", X86)
    assert f"UUID={root} / ext4" in texts["etc/fstab"]
    assert f"root=UUID={root} ro" in texts["boot/grub/grub.cfg"]
    assert "console=ttyS0,115200" in texts["boot/grub/grub.cfg"]
    assert root in files.ESP_CONFIG.format(root=root)


def test_no_cloud_is_preferred_over_another() -> None:
    texts = files.tree_files(X86)
    listed = texts["etc/cloud/cloud.cfg.d/90-image.cfg"]
    for name in ("NoCloud", "Ec2", "GCE", "Azure"):
        assert name in listed
    assert "renderers: [netplan]" in listed
    assert "PasswordAuthentication no" in "".join(texts.values())
    assert "MODULES=most" in "".join(texts.values())


def named(hosts: Path, product: Path) -> str:
    """What is left of `hosts` by the script that runs before cloud-init."""
    (script,) = (t for path, t in files.tree_files(X86).items() if path.endswith("metadata-name"))
    argv = ["sh", "-s", str(hosts), str(product)]
    subprocess.run(argv, input=script, text=True, check=True, capture_output=True, timeout=20)
    return hosts.read_text()


def test_googles_metadata_service_has_its_name_on_googles_machines_alone(tmp_path: Path) -> None:
    hosts, product = tmp_path / "hosts", tmp_path / "product_name"
    hosts.write_text("127.0.0.1 localhost")
    product.write_text("Google Compute Engine\n")
    lines = named(hosts, product).splitlines()
    assert lines[0] == "127.0.0.1 localhost"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["169.254.169.254", "metadata.google.internal"],
        ["fd20:ce::254", "metadata.google.internal"],
    ]
    assert named(hosts, product).splitlines() == lines, "named twice"
    product.write_text("m5.large\n")
    assert named(hosts, product) == "127.0.0.1 localhost\n", "a machine that has moved"


def test_a_machine_that_does_not_say_what_it_is_keeps_its_hosts(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n192.0.2.1 metadata.google.internal\n")
    assert named(hosts, tmp_path / "none") == hosts.read_text()
    assert hosts.read_text().endswith("192.0.2.1 metadata.google.internal\n")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    tree = tmp_path / "tree.tar"
    with tree.open("wb") as file:
        file.truncate(800 * MIB)
    task = detached(tmp_path / "memory")
    nobody = namespace.Namespace("none", ())
    with (
        Workspace(Store(tmp_path), nobody, task) as workspace,
        pytest.raises(BuildError, match="1024 MiB are too small") as caught,
    ):
        layout.assemble(tree, GIB, IDENTITY, "bios", X86, nobody, workspace, task)
    assert caught.value.key == "build.size"
    assert "at least 12" in caught.value.hint
    assert layout.smallest(800 * MIB) > GIB


def test_an_architecture_without_a_row_is_refused_by_name() -> None:
    with pytest.raises(HostError, match="sparc"):
        platform_of("sparc")  # type: ignore[arg-type]


@pytest.mark.skipif(not shutil.which("mformat"), reason="mtools are missing")
@pytest.mark.long
def test_the_same_installation_makes_the_same_files_at_any_time(tmp_path: Path) -> None:
    root = tmp_path / "root"
    signed = root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    shims = (root / "usr/lib/shim" / f"{name}x64.efi.signed" for name in ("shim", "mm"))
    for path in (signed, *shims, root / "boot/vmlinuz-6.1", root / "etc/hostname"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    tree = tmp_path / "tree.tar"
    subprocess.run(
        ["tar", "-cf", tree, "--mtime=@1000.5", "--format=pax", "-C", root, "."], check=True
    )
    task = detached(tmp_path / "memory")
    made = []
    for turn in ("one", "two"):
        with Workspace(Store(tmp_path / turn), None, task) as workspace:
            disk = layout.assemble(
                tree,
                300 * MIB,
                IDENTITY,
                "uefi",
                X86,
                namespace.Namespace("none", ()),
                workspace,
                task,
            )
            made.append(inspect(disk.rename(tmp_path / f"{turn}.raw")))
        time.sleep(1.1 if len(made) == 1 else 0)
    one, two = made
    found = [str(difference) for difference in compare(one, two)]
    # mke2fs copies the times at which the tree was unpacked
    assert found[0].startswith("partition 1 (ext4): access, change or creation times of ")
    assert found[1].startswith("partition 1 (ext4): ")
    assert len(found) == 2
