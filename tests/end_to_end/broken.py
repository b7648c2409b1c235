"""A good image, broken in many ways: what a proof must say of each, and nothing else."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from publisher.model import GIB, MIB, SECTOR
from tests.end_to_end.workbench import Workbench

Spoil: TypeAlias = Callable[[Workbench], None]
ELSEWHERE = "00000000-1111-2222-3333-444444444444"
"""The UUID of a file system that is on no disk here."""
GRUB, FSTAB = "/boot/grub/grub.cfg", "/etc/fstab"
LOADER, GRUB_EFI, ESP_GRUB = (
    "/EFI/BOOT/BOOTX64.EFI",
    "/EFI/BOOT/grubx64.efi",
    "/EFI/debian/grub.cfg",
)
WANTS = "/etc/systemd/system/multi-user.target.wants"
CLOUD_WANTS = "/etc/systemd/system/cloud-init.target.wants"


@dataclass(frozen=True, slots=True)
class Broken:
    """A way to break the image for the clouds in `clouds`. `rule` must say the
    `words` at `place` (file and line, as lint prints them), and only the rules in
    `also` may find something besides; {cloud} in them stands for each of the clouds.
    Rules of the secret gate begin with "secrets."."""

    name: str
    spoil: Spoil
    rule: str
    words: str
    place: str = ""
    clouds: tuple[str, ...] = ("gcp",)
    also: tuple[str, ...] = ()
    warns: bool = False
    """It is a warning, not an error."""


ALL, AWS, AZURE = ("aws", "azure", "gcp"), ("aws",), ("azure",)


def write(path: str, content: str | bytes, *, program: bool = False) -> Spoil:
    return lambda bench: bench.write(path, content, program=program)


def append(path: str, text: str) -> Spoil:
    return lambda bench: bench.append(path, text)


def edit(path: str, old: str, new: str) -> Spoil:
    return lambda bench: bench.edit(path, old, new)


def remove(*paths: str) -> Spoil:
    return lambda bench: bench.remove(*paths)


# -- firmware, partitions


def no_loader(bench: Workbench) -> None:
    bench.esp_remove(LOADER)


def half_a_loader(bench: Workbench) -> None:
    bench.esp_remove(GRUB_EFI)


def foreign_loader(bench: Workbench) -> None:
    program = bytearray(bench.esp_read(LOADER))
    at = struct.unpack_from("<I", program, 60)[0]
    struct.pack_into("<H", program, at + 4, 0xAA64)
    bench.esp_write(LOADER, bytes(program))


def wiped_esp(bench: Workbench) -> None:
    bench.overwrite(bench.esp.offset, bytes(MIB))


def esp_of_another_type(bench: Workbench) -> None:
    bench.type_of(bench.esp.number, "0FC63DAF-8483-4772-8E79-3D69D8477DE4")


def no_boot_code(bench: Workbench) -> None:
    bench.overwrite(0, bytes(440))


def no_grub_core(bench: Workbench) -> None:
    core = bench.table[14]
    bench.overwrite(core.offset, bytes(core.length))


def damaged_table(bench: Workbench) -> None:
    (byte,) = bench.sealed_bytes(2 * SECTOR + 40, 1)
    bench.overwrite(2 * SECTOR + 40, bytes([byte ^ 1]))


def cut_short(bench: Workbench) -> None:
    bench.resize(GIB)


def backup_not_at_the_end(bench: Workbench) -> None:
    bench.resize(3 * GIB)


def no_superblock(bench: Workbench) -> None:
    bench.overwrite(bench.root.offset + 1024, bytes(1024))


# -- boot loader, kernel, initramfs


def other_root(bench: Workbench) -> None:
    text = bench.read(GRUB)
    own = text.partition("root=UUID=")[2].split()[0]
    bench.edit(GRUB, f"root=UUID={own}", f"root=UUID={ELSEWHERE}")


def root_by_name(bench: Workbench) -> None:
    own = bench.read(GRUB).partition("root=UUID=")[2].split()[0]
    bench.edit(GRUB, f"root=UUID={own}", "root=/dev/sda1")


def other_search(bench: Workbench) -> None:
    text = bench.esp_read(ESP_GRUB).decode()
    own = text.partition("search.fs_uuid ")[2].split()[0]
    bench.esp_write(ESP_GRUB, text.replace(own, ELSEWHERE).encode())


def no_serial_console(bench: Workbench) -> None:
    bench.edit(GRUB, "console=ttyS0,115200 ", "")


def argument(word: str) -> Spoil:
    return edit(GRUB, " ro ", f" ro {word} ")


def no_kernel(bench: Workbench) -> None:
    bench.remove(bench.kernel)


def no_initramfs(bench: Workbench) -> None:
    bench.remove(bench.initrd)


def initramfs_without(*modules: str) -> Spoil:
    """The initramfs is packed anew without these drivers."""

    def spoil(bench: Workbench) -> None:
        files = {f"{module}.ko" for module in modules}
        entries = list(_entries(bench.archive))
        kept = [entry for name, entry in entries if name.rpartition("/")[2] not in files]
        assert len(kept) == len(entries) - len(files)
        bench.write(bench.initrd, b"".join(kept))

    return spoil


def _entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, entry with its content) of a cpio archive, to its end."""
    at = 0
    while archive[at : at + 6] == b"070701":
        size, length = int(archive[at + 54 : at + 62], 16), int(archive[at + 94 : at + 102], 16)
        name = archive[at + 110 : at + 110 + length - 1].decode()
        end = (at + 110 + length + 3) // 4 * 4
        end = (end + size + 3) // 4 * 4
        yield name, archive[at:end]
        at = end


def initramfs_cut_short(bench: Workbench) -> None:
    packed = bench.tree.read(bench.initrd, 256 * MIB)
    bench.write(bench.initrd, packed[: len(packed) // 2])


def nvme_as_a_module(bench: Workbench) -> None:
    """As with kernels that do not have the driver built in: it is among the modules,
    and the initramfs has none of it."""
    directory = f"/lib/modules/{bench.version}"
    built_in = bench.read(f"{directory}/modules.builtin").splitlines()
    nvme = [line for line in built_in if line.endswith(("/nvme.ko", "/nvme-core.ko"))]
    assert len(nvme) == 2
    others = [line for line in built_in if line not in nvme]
    bench.write(f"/usr{directory}/modules.builtin", "\n".join(others) + "\n")
    core, driver = sorted(nvme)
    bench.append(f"/usr{directory}/modules.dep", f"{driver}: {core}\n{core}:\n")


def driver_not_installed(module: str) -> Spoil:
    """The driver is in no list of the kernel's modules, as with a smaller kernel."""

    def spoil(bench: Workbench) -> None:
        initramfs_without(module)(bench)
        path = f"/lib/modules/{bench.version}/modules.dep"
        lines = bench.read(path).splitlines(keepends=True)
        kept = [line for line in lines if f"/{module}.ko:" not in line]
        assert len(kept) < len(lines)
        bench.write(f"/usr{path}", "".join(kept))

    return spoil


# -- traces


def private_key(directory: Path) -> bytes:
    path = directory / "key"
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.read_bytes()


def left_key(path: str) -> Spoil:
    return lambda bench: bench.write(path, private_key(bench.path.parent))


def erased_key(bench: Workbench) -> None:
    """As in a block that a removed file has left behind."""
    free = bench.path.stat().st_size - 300 * MIB
    bench.overwrite(free, private_key(bench.path.parent))


def left_login(bench: Workbench) -> None:
    bench.write("/root/.azure/msal_token_cache.json", '{"RefreshToken": {}}')


PUBLIC_KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6Hd4lW0Vx1bS3qzqg3Yp1t0m8m7v8l2kq0a5b6c7d8 packer\n"
)
PINNED = "/etc/cloud/cloud.cfg.d/95-build.cfg"
OLD_WAAGENT = "AGENT_NAME = \"WALinuxAgent\"\nAGENT_VERSION = '2.2.32'\n"


def old_waagent(bench: Workbench) -> None:
    bench.write("/usr/sbin/waagent", "#!/usr/bin/python3\n", program=True)
    bench.write("/usr/lib/python3/dist-packages/azurelinuxagent/common/version.py", OLD_WAAGENT)


BROKEN: tuple[Broken, ...] = (
    Broken(
        "no loader on the ESP",
        no_loader,
        "claims.firmware",
        "does not boot by UEFI: the EFI system partition has no EFI/BOOT/BOOTX64.EFI",
        "/boot/efi/EFI/debian/grubx64.efi",
    ),
    Broken(
        "shim without GRUB",
        half_a_loader,
        "claims.firmware",
        "wants EFI/BOOT/grubx64.efi",
        "/boot/efi/EFI/BOOT/BOOTX64.EFI",
        AZURE,
        also=("azure.generation",),
    ),
    Broken(
        "a loader of another architecture",
        foreign_loader,
        "claims.firmware",
        "the loader is for aarch64, not x86_64",
        "/boot/efi/EFI/BOOT/BOOTX64.EFI",
    ),
    Broken(
        "an ESP without a file system",
        wiped_esp,
        "lint.unreadable",
        "the EFI system partition can't be read: it holds no file system",
        also=("fstab.device",),
    ),
    Broken(
        "an ESP that its type does not show",
        esp_of_another_type,
        "claims.firmware",
        "there is no EFI system partition",
    ),
    Broken(
        "no boot code for BIOS",
        no_boot_code,
        "claims.firmware",
        "does not boot by BIOS: the first sector holds no boot code",
    ),
    Broken(
        "only the first sector of GRUB",
        no_grub_core,
        "claims.firmware",
        "wants the rest of it at sector 2048: nothing",
    ),
    Broken(
        "a damaged partition table",
        damaged_table,
        "disk.partition-table",
        "the checksum of the entries is wrong; its backup at the end is sound",
        also=("lint.unreadable",),
    ),
    Broken(
        "a file that was cut short",
        cut_short,
        "disk.partition-table",
        "the disk has only 2097152: it was cut short",
        also=("lint.unreadable",),
    ),
    Broken(
        "a disk that was made larger",
        backup_not_at_the_end,
        "disk.partition-table",
        "not at the end",
        warns=True,
    ),
    Broken(
        "a root file system without superblock",
        no_superblock,
        "disk.root",
        "partition 1 (ext4), where the root directory may be, can't be read: its superblock is "
        "gone; its backup at block 32768 is there",
        also=("disk.file-system", "lint.unreadable"),
    ),
    Broken(
        "no configuration of GRUB",
        remove(GRUB),
        "boot.configuration",
        "leads to one on the root file system, and there is none",
        "/boot/efi/EFI/debian/grub.cfg",
        also=("lint.unreadable",),
    ),
    Broken(
        "the root of another disk",
        other_root,
        "boot.root",
        f"root=UUID={ELSEWHERE} names no file system of this disk",
        f"{GRUB}:9",
    ),
    Broken(
        "the root by the order of disks",
        root_by_name,
        "boot.root",
        "root=/dev/sda1 names the root device by the order of disks",
        f"{GRUB}:9",
    ),
    Broken(
        "GRUB looks for another disk",
        other_search,
        "boot.search",
        f"GRUB searches UUID={ELSEWHERE}, which is not on this disk",
        "/boot/efi/EFI/debian/grub.cfg:1",
    ),
    Broken(
        "no kernel",
        no_kernel,
        "boot.kernel",
        "the kernel /boot/vmlinuz-",
        f"{GRUB}:9",
        also=("lint.unreadable",),
    ),
    Broken(
        "no initramfs",
        no_initramfs,
        "boot.kernel",
        "the initramfs /boot/initrd.img-",
        f"{GRUB}:9",
        also=("gcp.disk-driver",),
    ),
    Broken(
        "no serial console",
        no_serial_console,
        "{cloud}.console",
        "with console=tty0, not with console=ttyS0",
        f"{GRUB}:9",
        ALL,
        warns=True,
    ),
    Broken(
        "cloud-init off on the command line",
        argument("cloud-init=disabled"),
        "boot.pinned",
        "the kernel is started with cloud-init=disabled",
        f"{GRUB}:9",
    ),
    Broken(
        "the datasource pinned on the command line",
        argument("ds=nocloud;s=http://10.0.2.2/"),
        "boot.pinned",
        "ds=nocloud",
        f"{GRUB}:9",
    ),
    Broken(
        "an initramfs without nvme",
        nvme_as_a_module,
        "aws.nvme-driver",
        "is a module and not in its initramfs (what is missing: nvme, nvme_core)",
        "/boot/initrd.img-",
        AWS,
    ),
    Broken(
        "an initramfs without virtio_scsi",
        initramfs_without("virtio_scsi"),
        "gcp.disk-driver",
        "the driver virtio_scsi of kernel",
        "/boot/initrd.img-",
    ),
    Broken(
        "an initramfs without hv_storvsc",
        initramfs_without("hv_storvsc"),
        "azure.disk-driver",
        "the driver hv_storvsc of kernel",
        "/boot/initrd.img-",
        AZURE,
    ),
    Broken(
        "an initramfs cut short",
        initramfs_cut_short,
        "lint.unreadable",
        "damaged or cut short",
        clouds=AWS,
    ),
    Broken(
        "a kernel without ena",
        driver_not_installed("ena"),
        "aws.network-driver",
        "has no driver ena",
        "/lib/modules/",
        AWS,
        warns=True,
    ),
    Broken(
        "fstab naming a missing device",
        append(FSTAB, f"UUID={ELSEWHERE} /data ext4 defaults 0 2\n"),
        "fstab.device",
        f"UUID={ELSEWHERE} on /data is not on this disk",
        f"{FSTAB}:3",
    ),
    Broken(
        "fstab naming a disk by its order",
        append(FSTAB, "/dev/sdb1 /data ext4 defaults 0 2\n"),
        "fstab.device",
        "/dev/sdb1 on /data names its device by the order of disks",
        f"{FSTAB}:3",
    ),
    Broken(
        "swap space on Azure's OS disk",
        append(FSTAB, "/swapfile none swap sw 0 0\n"),
        "azure.swap",
        "/swapfile is swap space",
        f"{FSTAB}:3",
        AZURE,
        also=("fstab.device",),
    ),
    Broken(
        "a pinned datasource",
        write(PINNED, "datasource_list: [ NoCloud ]\n"),
        "{cloud}.datasource",
        "datasource_list: [NoCloud] lacks ",
        f"{PINNED}:1",
        ALL,
    ),
    Broken(
        "cloud-init disabled",
        write("/etc/cloud/cloud-init.disabled", ""),
        "cloud-init.disabled",
        "the file turns cloud-init off",
        "/etc/cloud/cloud-init.disabled",
        ALL,
        also=("{cloud}.agent",),
    ),
    Broken(
        "cloud-init not enabled",
        remove(f"{CLOUD_WANTS}/cloud-init-local.service"),
        "cloud-init.disabled",
        "cloud-init-local.service is disabled",
        "/etc/systemd/system/cloud-init-local.service",
        also=("gcp.agent",),
    ),
    Broken(
        "cloud-init removed",
        remove("/usr/bin/cloud-init"),
        "{cloud}.agent",
        "cloud-init is not installed",
        clouds=ALL,
    ),
    Broken(
        "a seed of the build",
        write("/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\n"),
        "cloud-init.seed",
        "a seed of the build is left",
        "/var/lib/cloud/seed/nocloud",
    ),
    Broken(
        "the DHCP client removed",
        remove("/usr/sbin/dhclient"),
        "azure.early-dhcp",
        "cloud-init 22.4.2 needs dhclient, and it is not installed",
        clouds=AZURE,
    ),
    Broken(
        "the network of one card",
        write(
            "/etc/systemd/network/10-eth0.network",
            "[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nDHCP=yes\n",
        ),
        "network.mac",
        "the card with the address 52:54:00:12:34:56 is meant",
        "/etc/systemd/network/10-eth0.network:2",
    ),
    Broken(
        "a network card with a name for good",
        write(
            "/etc/udev/rules.d/70-persistent-net.rules",
            'SUBSYSTEM=="net", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n',
        ),
        "network.persistent-names",
        "is given a name for good",
        "/etc/udev/rules.d/70-persistent-net.rules:1",
    ),
    Broken(
        "no SSH server that starts",
        remove(f"{WANTS}/ssh.service"),
        "ssh.server",
        "the SSH server does not start: ssh.service is disabled",
        warns=True,
    ),
    Broken(
        "a machine id baked in",
        write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        "identity.machine-id",
        "the image has a machine id",
        "/etc/machine-id:1",
    ),
    Broken(
        "host keys baked in",
        left_key("/etc/ssh/ssh_host_ed25519_key"),
        "identity.ssh-host-keys",
        "the image has a host key",
        "/etc/ssh/ssh_host_ed25519_key",
    ),
    Broken(
        "authorized_keys left behind",
        write("/root/.ssh/authorized_keys", PUBLIC_KEY),
        "traces.authorized-keys",
        "a key may log in (packer)",
        "/root/.ssh/authorized_keys:1",
    ),
    Broken(
        "a private key left behind",
        left_key("/root/.ssh/id_ed25519"),
        "traces.private-key",
        "a private key",
        "/root/.ssh/id_ed25519:1",
    ),
    Broken(
        "a password",
        edit("/etc/shadow", "root:*:", "root:$y$j9T$abcdefghijk$0123456789abcdefghijklmnopqrstu:"),
        "traces.password",
        "root has a password",
        "/etc/shadow:3",
    ),
    Broken(
        "an old waagent",
        old_waagent,
        "azure.agent",
        "waagent is 2.2.32, not 2.2.41 or newer",
        "/usr/sbin/waagent",
        AZURE,
    ),
    Broken(
        "a login by password",
        write("/etc/ssh/sshd_config.d/00-build.conf", "PasswordAuthentication yes\n"),
        "aws.ssh-passwords",
        "PasswordAuthentication yes, not no",
        "/etc/ssh/sshd_config.d/00-build.conf:1",
        AWS,
        warns=True,
    ),
)
SECRETS: tuple[Broken, ...] = (
    Broken(
        "a private key where lint does not look",
        left_key("/opt/deploy/key"),
        "secrets.private-key",
        "/opt/deploy/key",
    ),
    Broken(
        "a private key that was erased",
        erased_key,
        "secrets.private-key",
        "in no file",
    ),
    Broken(
        "authorized_keys in its bytes",
        write("/root/.ssh/authorized_keys", PUBLIC_KEY),
        "secrets.ssh-authorized-key",
        "/root/.ssh/authorized_keys",
    ),
    Broken(
        "a history of commands",
        write("/root/.bash_history", "ls\n"),
        "secrets.history",
        "/root/.bash_history",
    ),
    Broken(
        "the login of a cloud's tool",
        left_login,
        "secrets.cloud-login",
        "/root/.azure/msal_token_cache.json",
    ),
)
"""What the secret gate says, which does not ask for clouds."""


@dataclass(frozen=True, slots=True)
class Boots:
    """A way to break the image that only a boot as on `cloud` shows: the verdict's
    line `claim` fails, and its cause says the `words`."""

    name: str
    spoil: Spoil
    cloud: str
    claim: str
    words: str
    rerun: bool = False


def stalled_waagent(bench: Workbench) -> None:
    """waagent instead of cloud-init, with a unit that starts and does nothing."""
    bench.remove(
        "/usr/bin/cloud-init",
        *(f"{CLOUD_WANTS}/{name}" for name in bench.tree.names(CLOUD_WANTS)),
    )
    bench.write("/etc/systemd/network/10-all.network", "[Match]\nName=e*\n[Network]\nDHCP=yes\n")
    bench.write("/usr/sbin/waagent", "#!/bin/sh\nexec sleep infinity\n", program=True)
    unit = "/usr/lib/systemd/system/walinuxagent.service"
    bench.write(unit, "[Service]\nExecStart=/usr/sbin/waagent -daemon\n")
    bench.link(f"{WANTS}/walinuxagent.service", unit)


BOOTS: tuple[Boots, ...] = (
    Boots(
        "a C library that was cut short",
        write("/usr/lib/x86_64-linux-gnu/libc.so.6", "\x7fELF"),
        "aws",
        "network",
        "init can't run: /lib/x86_64-linux-gnu/libc.so.6",
    ),
    Boots(
        "a server whose configuration is wrong",
        append("/etc/nginx/nginx.conf", "listn 80;\n"),
        "aws",
        "units",
        'unknown directive "listn" in /etc/nginx/nginx.conf',
    ),
    Boots(
        "an SSH server whose configuration is wrong",
        write("/etc/ssh/sshd_config.d/99-build.conf", "PermitRootLogin perhaps\n"),
        "aws",
        "login",
        "the ssh server does not start",
    ),
    Boots(
        "a waagent that stalls",
        stalled_waagent,
        "azure",
        "network",
        "walinuxagent.service is to set the machine up, and asked the cloud for nothing",
    ),
    Boots(
        "host keys that stay on a copied machine",
        write("/etc/cloud/cloud.cfg.d/99-keys.cfg", "ssh_deletekeys: false\n"),
        "aws",
        "rerun",
        "/etc/cloud/cloud.cfg.d/99-keys.cfg, line 1, keeps ssh host keys",
        rerun=True,
    ),
)
"""What no reading of the disk shows."""
