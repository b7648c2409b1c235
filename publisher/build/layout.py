"""From an installation to a disk that boots by BIOS and by UEFI: no loop device, no mount."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publisher.build import files, grub, partition
from publisher.build.identity import Identity
from publisher.build.namespace import Namespace
from publisher.build.workspace import Workspace
from publisher.errors import BuildError
from publisher.model import MIB, SECTOR, Firmware
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import Platform
from publisher.vm.machine import full

BIOS_OFFSET, BIOS_LENGTH = MIB, 3 * MIB
ESP_OFFSET, ESP_LENGTH = 4 * MIB, 124 * MIB
ROOT_OFFSET = 128 * MIB
ROOT_NUMBER = 1
"""The root partition is the first in number and the last on the disk, so that it can grow."""

# The features of Debian 12's mke2fs: a newer host's defaults (metadata_csum_seed,
# orphan_file) would make a root that older GRUBs and kernels can't read.
_MKE2FS_CONF = """\
[defaults]
 base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
 default_mntopts = acl,user_xattr
 enable_periodic_fsck = 0
 blocksize = 4096
 inode_size = 256
 inode_ratio = 16384
[fs_types]
 ext4 = {
  features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
 }
"""

# $1 tar of the tree, $2 our files, $3 results, $4 disk, $5 root's offset,
# $6 root's size in KiB, $7 root's UUID, $8 hash seed, $9 suffix of EFI programs
_ASSEMBLE = r"""
mkdir root
# without device nodes, which only real root may make and devtmpfs brings anyway
tar -xpf "$1" -C root --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*'
stamp=${SOURCE_DATE_EPOCH:-$(find root -printf '%T@\n' | sort -n | tail -n 1 | cut -d . -f 1)}
for kernel in root/boot/vmlinuz-*; do kernel=${kernel#root/boot/vmlinuz-}; done
cp -a "$2/." root/
sed -i "s/@KERNEL@/$kernel/" root/boot/grub/grub.cfg
chmod 600 root/boot/grub/grub.cfg
mkdir -p root/boot/efi
for file in boot/grub/i386-pc/boot.img boot/grub/i386-pc/core.img; do
    if [ -e "root/$file" ]; then cp "root/$file" "$3/"; fi
done
cp root/usr/lib/shim/shim"$9".efi.signed root/usr/lib/shim/mm"$9".efi.signed "$3/"
cp root/usr/lib/grub/*-efi-signed/grub"$9".efi.signed "$3/"
chmod 644 "$3"/*
# what is made here is as old as the installation, whenever that is
find root -newermt "@$stamp" -exec touch -h -d "@$stamp" {} +
echo "$stamp" > "$3/stamp"
E2FSPROGS_FAKE_TIME=$stamp mke2fs -q -F -t ext4 -L root -U "$7" -m 1 -d root \
    -E "offset=$5,hash_seed=$8,nodiscard,lazy_itable_init=0,lazy_journal_init=0" "$4" "$6k"
rm -rf root
"""


def root_room(size: int) -> int:
    """Bytes of the root partition on a disk of `size` bytes."""
    return partition.last_usable(size) - ROOT_OFFSET


def smallest(tree: int) -> int:
    """The smallest disk, in bytes, for a tree of that size: file system metadata,
    the journal, and a quarter for the build steps."""
    return ROOT_OFFSET + MIB + (tree * 5 // 4 + 128 * MIB + MIB - 1) // MIB * MIB


def partitions(
    identity: Identity, firmware: Firmware, platform: Platform, size: int
) -> list[partition.Partition]:
    made = [
        partition.Partition(
            ROOT_NUMBER,
            partition.ROOT[platform.arch],
            identity.root_partition,
            "root",
            ROOT_OFFSET,
            root_room(size),
        ),
    ]
    if "uefi" in firmware:
        made.append(
            partition.Partition(
                15, partition.ESP, identity.esp_partition, "esp", ESP_OFFSET, ESP_LENGTH
            )
        )
    if "bios" in firmware:
        made.append(
            partition.Partition(
                14,
                partition.BIOS_BOOT,
                identity.bios_partition,
                "bios",
                BIOS_OFFSET,
                BIOS_LENGTH,
            )
        )
    return made


def assemble(
    tree: Path,
    size: int,
    identity: Identity,
    firmware: Firmware,
    platform: Platform,
    namespace: Namespace,
    workspace: Workspace,
    task: Task,
) -> Path:
    """Make the disk: a raw, sparse file of `size` bytes in the workspace. `firmware`
    is what recipe.bootable made of the recipe's.

    Raises BuildError when `size` is too small for the installation."""
    needed = smallest(tree.stat().st_size)
    if size < needed:
        raise BuildError(
            f"{size // MIB} MiB are too small for this installation",
            key="build.size",
            hint=f"it needs at least {-(-needed // MIB)} MiB, and what the steps add",
        )
    task.phase("making the disk")
    workspace.need(2 * tree.stat().st_size)
    directory = workspace.directory
    disk, results = directory / "disk.raw", directory / "boot-files"
    results.mkdir()
    with disk.open("wb") as file:
        file.truncate(size)
    _root(tree, disk, size, identity, firmware, platform, namespace, directory, results, task)
    if "uefi" in firmware:
        _esp(disk, identity, platform, directory, results, task)
    _boot_code(disk, size, identity, firmware, platform, results)
    for done in (results, directory / "identity-files"):
        shutil.rmtree(done)
    return disk


def _root(
    tree: Path,
    disk: Path,
    size: int,
    identity: Identity,
    firmware: Firmware,
    platform: Platform,
    namespace: Namespace,
    directory: Path,
    results: Path,
    task: Task,
) -> None:
    ours = files.write_tree(
        directory / "identity-files", files.identity_files(identity, firmware, platform)
    )
    configuration = directory / "mke2fs.conf"
    configuration.write_text(_MKE2FS_CONF)
    environment = {**os.environ, "MKE2FS_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    argv = ["sh", "-euc", _ASSEMBLE, "sh", str(tree), str(ours), str(results), str(disk)]
    argv += [str(ROOT_OFFSET), str(root_room(size) // 1024)]
    argv += [str(identity.root), str(identity.hash_seed), platform.efi_suffix]
    done = process.run(namespace.wrap(argv), task, env=environment, cwd=directory)
    if done.status == 0:
        return
    if "No space left on device" in done.text:
        raise full(directory)
    if "Could not allocate" in done.text or "ext2 filesystem" in done.text:
        raise BuildError(
            f"the installation does not fit on a disk of {size // MIB} MiB: {done.text}",
            key="build.size",
            hint="make it larger",
        )
    raise BuildError(f"making the root file system failed: {done.text}")


def _esp(
    disk: Path,
    identity: Identity,
    platform: Platform,
    directory: Path,
    results: Path,
    task: Task,
) -> None:
    """The EFI system partition: Debian's signed loaders at the removable path and
    at Debian's own, where its packages renew them."""
    suffix = platform.efi_suffix
    configuration = results / "grub.cfg"
    configuration.write_text(files.ESP_CONFIG.format(root=identity.root))
    shim, manager = results / f"shim{suffix}.efi.signed", results / f"mm{suffix}.efi.signed"
    loader = results / f"grub{suffix}.efi.signed"
    image = f"{disk}@@{ESP_OFFSET}"
    content = (
        (shim, f"EFI/BOOT/BOOT{suffix.upper()}.EFI"),
        (loader, f"EFI/BOOT/grub{suffix}.efi"),
        (manager, f"EFI/BOOT/mm{suffix}.efi"),
        (shim, f"EFI/debian/shim{suffix}.efi"),
        (loader, f"EFI/debian/grub{suffix}.efi"),
        (manager, f"EFI/debian/mm{suffix}.efi"),
        (configuration, "EFI/debian/grub.cfg"),
    )
    geometry = ["-F", "-T", str(ESP_LENGTH // SECTOR), "-h", "255", "-s", "63"]
    geometry += ["-H", str(ESP_OFFSET // SECTOR), "-c", "1"]
    commands = [
        ["mformat", "-i", image, *geometry, "-v", "ESP", "-N", identity.esp_serial, "::"],
        ["mmd", "-i", image, "::EFI", "::EFI/BOOT", "::EFI/debian"],
        *(["mcopy", "-i", image, str(source), f"::{target}"] for source, target in content),
    ]
    stamp = (results / "stamp").read_text().strip()
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": stamp}
    for argv in commands:
        done = process.run(argv, task, env=environment, cwd=directory)
        if done.status:
            if "No space left" in done.text:
                raise full(directory)
            raise BuildError(f"making the EFI system partition failed: {done.text}")
    with disk.open("r+b") as file:
        # mformat writes a partition table into the boot sector, which makes
        # other tools look for partitions inside this one
        file.seek(ESP_OFFSET + 446)
        file.write(bytes(64))


def _boot_code(
    disk: Path,
    size: int,
    identity: Identity,
    firmware: Firmware,
    platform: Platform,
    results: Path,
) -> None:
    wanted = partitions(identity, firmware, platform, size)
    head, tail = partition.table(identity.disk, size, wanted)
    with disk.open("r+b") as file:
        if "bios" in firmware:
            sector = BIOS_OFFSET // SECTOR
            boot = (results / "boot.img").read_bytes()
            core = grub.core_image((results / "core.img").read_bytes(), sector, BIOS_LENGTH)
            head = grub.boot_sector(boot, head[:SECTOR], sector) + head[SECTOR:]
            file.seek(BIOS_OFFSET)
            file.write(core)
        file.seek(0)
        file.write(head)
        file.seek(size - len(tail))
        file.write(tail)
