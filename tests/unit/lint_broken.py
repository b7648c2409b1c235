"""What breaks a good installation, and what lint must say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from publisher.model import Severity
from tests.unit import lint_world as world
from tests.unit.lint_world import MODULES, VERSION, Files

GRUB = "/boot/grub/grub.cfg"
INITRD = f"/boot/initrd.img-{VERSION}"
Change: TypeAlias = Callable[[Files], None]


def replace(path: str, old: str, new: str) -> Change:
    def change(files: Files) -> None:
        content = files[path]
        assert isinstance(content, bytes)
        assert old.encode() in content
        files[path] = content.replace(old.encode(), new.encode())

    return change


def write(path: str, text: str | bytes | world.Link) -> Change:
    def change(files: Files) -> None:
        files[path] = text if isinstance(text, bytes | world.Link) else text.encode()

    return change


def remove(*paths: str) -> Change:
    def change(files: Files) -> None:
        for path in paths:
            del files[path]

    return change


def not_early(*modules: str) -> Change:
    names = [
        f"usr/lib/modules/{VERSION}/{world.module(m)}" for m in world.EARLY if m not in modules
    ]
    return write(INITRD, world.cpio(names))


def absent(*modules: str) -> Change:
    def change(files: Files) -> None:
        not_early(*modules)(files)
        for name in ("modules.dep", "modules.builtin"):
            content = files[f"{MODULES}/{name}"]
            assert isinstance(content, bytes)
            lines = content.decode().splitlines()
            kept = [x for x in lines if not any(x.startswith(world.module(m)) for m in modules)]
            files[f"{MODULES}/{name}"] = "\n".join(kept).encode()

    return change


ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
BROKEN: list[tuple[str, Change, Severity, str, str]] = [
    # rule, what breaks it, severity, part of the evidence, place
    (
        "boot.configuration",
        remove(GRUB),
        ERROR,
        "leads to one on the root file system, and there is none",
        "/boot/efi/EFI/debian/grub.cfg:0",
    ),
    (
        "boot.kernel",
        remove(f"/boot/vmlinuz-{VERSION}"),
        ERROR,
        f"kernel /boot/vmlinuz-{VERSION} is not",
        f"{GRUB}:3",
    ),
    ("boot.kernel", remove(INITRD), ERROR, f"initramfs {INITRD} is not", f"{GRUB}:3"),
    (
        "boot.root",
        replace(
            GRUB, f"root=UUID={world.ROOT_UUID}", "root=UUID=00000000-0000-0000-0000-000000000000"
        ),
        ERROR,
        "names no file system",
        f"{GRUB}:3",
    ),
    (
        "boot.root",
        replace(GRUB, f"root=UUID={world.ROOT_UUID}", "root=/dev/sda1"),
        ERROR,
        "order of disks",
        f"{GRUB}:3",
    ),
    (
        "boot.root",
        replace(GRUB, f"root=UUID={world.ROOT_UUID}", "root=/dev/mapper/loop0p1"),
        ERROR,
        "root=/dev/mapper/loop0p1 names a device of the machine on which the image was made",
        f"{GRUB}:3",
    ),
    (
        "boot.search",
        replace(GRUB, f"=root {world.ROOT_UUID}", "=root 1234"),
        ERROR,
        "UUID=1234",
        f"{GRUB}:1",
    ),
    (
        "boot.pinned",
        replace(GRUB, "ro console", "ds=nocloud;s=http://10.0.2.2/ ro console"),
        ERROR,
        "ds=nocloud",
        f"{GRUB}:3",
    ),
    *(
        (
            "boot.pinned",
            replace(GRUB, "ro console", f"{argument} ro console"),
            ERROR,
            f"the kernel is started with {argument}",
            f"{GRUB}:3",
        )
        for argument in (
            *("ci.datasource=NoCloud", "ci.ds=None", "ci.di.policy=disabled"),
            *("ci.di.policy=disabled,found=all", "cloud-config-url=http://10.0.2.2/"),
            *("url=http://10.0.2.2/", "cloud-init=disabled", "inst.ks=hd:LABEL=x"),
        )
    ),
    (
        "boot.pinned",
        replace(GRUB, "ro console", "autoinstall ro console"),
        ERROR,
        "autoinstall",
        f"{GRUB}:3",
    ),
    (
        "aws.console",
        replace(GRUB, "console=ttyS0,115200 ", ""),
        WARNING,
        "with console=tty0, not",
        f"{GRUB}:3",
    ),
    (
        "gcp.console",
        replace(GRUB, "console=ttyS0,115200 ", ""),
        WARNING,
        "with console=tty0, not",
        f"{GRUB}:3",
    ),
    (
        "azure.console",
        replace(GRUB, "console=ttyS0,115200 ", ""),
        WARNING,
        "with console=tty0, not",
        f"{GRUB}:3",
    ),
    (
        "azure.quiet",
        replace(GRUB, "ro console", "ro rhgb quiet console"),
        WARNING,
        "rhgb quiet",
        f"{GRUB}:3",
    ),
    (
        "aws.nvme-timeout",
        replace(GRUB, "nvme_core.io_timeout=4294967295", ""),
        WARNING,
        "no nvme_core.io_timeout",
        f"{GRUB}:3",
    ),
    (
        "aws.nvme-timeout",
        replace(GRUB, "timeout=4294967295", "timeout=30"),
        WARNING,
        "io_timeout=30",
        f"{GRUB}:3",
    ),
    ("aws.nvme-driver", absent("nvme"), ERROR, "has no driver nvme", f"{MODULES}:0"),
    ("gcp.nvme-driver", absent("nvme"), WARNING, "has no driver nvme", f"{MODULES}:0"),
    ("aws.xen-driver", not_early("xen-blkfront"), WARNING, "xen_blkfront", f"{INITRD}:0"),
    ("aws.network-driver", absent("ena"), ERROR, "no driver ena", f"{MODULES}:0"),
    ("gcp.disk-driver", not_early("virtio_scsi"), ERROR, "virtio_scsi of kernel", f"{INITRD}:0"),
    ("gcp.network-driver", absent("virtio_net"), ERROR, "no driver virtio_net", f"{MODULES}:0"),
    ("gcp.gvnic-driver", absent("gve"), WARNING, "no driver gve", f"{MODULES}:0"),
    ("azure.disk-driver", not_early("hv_storvsc"), ERROR, "hv_storvsc of kernel", f"{INITRD}:0"),
    ("azure.disk-driver", not_early("hv_vmbus"), ERROR, "missing: hv_vmbus", f"{INITRD}:0"),
    ("azure.network-driver", absent("hv_netvsc"), ERROR, "no driver hv_netvsc", f"{MODULES}:0"),
    ("azure.network-driver", not_early("hv_netvsc"), NOTE, "not in its initramfs", f"{INITRD}:0"),
    ("azure.nvme-driver", not_early("pci-hyperv"), WARNING, "pci_hyperv", f"{INITRD}:0"),
    (
        "azure.accelerated-networking",
        absent("mlx5_core", "mana"),
        NOTE,
        "no driver mlx5_core and no",
        f"{MODULES}:0",
    ),
    ("azure.file-systems", absent("udf"), ERROR, "no driver udf", f"{MODULES}:0"),
    ("initramfs.root", absent("ext4"), ERROR, "has no driver ext4", f"{MODULES}:0"),
    (
        "initramfs.generic",
        write("/etc/dracut.conf.d/x.conf", 'hostonly="yes"\n'),
        WARNING,
        "hostonly",
        "/etc/dracut.conf.d/x.conf:1",
    ),
    (
        "initramfs.generic",
        write("/etc/initramfs-tools/conf.d/driver-policy", "MODULES=dep\n"),
        WARNING,
        "MODULES=dep",
        "/etc/initramfs-tools/conf.d/driver-policy:1",
    ),
    (
        "initramfs.generic",
        write(INITRD, world.cpio(["usr/lib/dracut/hostonly-kernel-modules.txt"])),
        WARNING,
        "for one machine",
        f"{INITRD}:0",
    ),
    *(
        (
            "fstab.device",
            write("/etc/fstab", f"{device} /data ext4 defaults 0 2\n"),
            ERROR,
            f"{device} on /data names a device of the machine on which the image was made",
            "/etc/fstab:1",
        )
        for device in (
            "/dev/disk/by-id/ata-QEMU_HARDDISK_QM00001-part1",
            "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part1",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part1",
        )
    ),
    (
        "fstab.device",
        write("/etc/fstab", "/dev/disk/by-id/scsi-0Google_PersistentDisk_data /data ext4 rw 0 2\n"),
        NOTE,
        "can't be checked without booting",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", f"UUID={world.ROOT_UUID} / xfs rw 0 1\n"),
        WARNING,
        "is no xfs",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", f"UUID={world.ESP_UUID} /boot/efi ext4 rw 0 1\n"),
        ERROR,
        "is no ext4",
        "/etc/fstab:1",
    ),
    ("aws.xen-driver", not_early("xen-blkfront"), WARNING, "driver xen_blkfront", f"{INITRD}:0"),
    ("aws.xen-driver", absent("xen-netfront"), WARNING, "no driver xen_netfront", f"{MODULES}:0"),
    ("gcp.disk-driver", not_early("virtio_pci"), ERROR, "driver virtio_pci", f"{INITRD}:0"),
    (
        "fstab.device",
        write("/etc/fstab", "\nUUID=aaaa-bbbb /data ext4 defaults 0 2\n"),
        ERROR,
        "not on this disk",
        "/etc/fstab:2",
    ),
    (
        "fstab.device",
        write("/etc/fstab", "UUID=aaaa-bbbb /data ext4 nofail 0 2\n"),
        WARNING,
        "not on this disk",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", "/dev/vdb1 /data ext4 defaults 0 2\n"),
        ERROR,
        "order of disks",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", "/dev/nbd0p1 /data ext4 defaults 0 2\n"),
        ERROR,
        "/dev/nbd0p1 on /data names a device of the machine on which the image was made",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", "/dev/mapper/x /data ext4 defaults 0 2\n"),
        NOTE,
        "without booting",
        "/etc/fstab:1",
    ),
    (
        "fstab.device",
        write("/etc/fstab", "/swapfile none swap sw 0 0\n"),
        ERROR,
        "no such file",
        "/etc/fstab:1",
    ),
    (
        "power.button",
        remove("/usr/bin/dbus-daemon"),
        WARNING,
        "no D-Bus is installed",
        "/usr/lib/systemd/systemd-logind:0",
    ),
    (
        "power.button",
        remove("/usr/lib/systemd/systemd-logind"),
        WARNING,
        "neither systemd-logind nor acpid",
        ":0",
    ),
    (
        "azure.swap",
        write("/etc/fstab", "/swapfile none swap sw 0 0\n"),
        ERROR,
        "is swap space",
        "/etc/fstab:1",
    ),
    (
        "cloud-init.disabled",
        write("/etc/cloud/cloud-init.disabled", ""),
        ERROR,
        "turns cloud-init off",
        "/etc/cloud/cloud-init.disabled:0",
    ),
    (
        "cloud-init.disabled",
        remove(f"{world.WANTS}/cloud-final.service"),
        ERROR,
        "cloud-final.service is disabled",
        "/etc/systemd/system/cloud-final.service:0",
    ),
    *(
        (
            "cloud-init.disabled",
            write(f"/etc/systemd/system/{unit}", content),
            ERROR,
            f"{unit} is masked",
            f"/etc/systemd/system/{unit}:0",
        )
        for unit, content in (
            ("cloud-init-local.service", world.Link("/dev/null")),
            ("cloud-init-local.service", ""),
            ("cloud-init-main.service", world.Link("/dev/null")),
            ("cloud-init-network.service", ""),
            ("cloud-init.target", world.Link("/dev/null")),
        )
    ),
    (
        "cloud-init.disabled",
        write(f"{world.UNITS}/cloud-init-network.service", "[Unit]\n"),
        ERROR,
        "cloud-init-network.service is disabled",
        "/etc/systemd/system/cloud-init-network.service:0",
    ),
    *(
        (
            "cloud-init.disabled",
            write("/etc/systemd/system-generators/cloud-init-generator", content),
            ERROR,
            "generator is masked",
            "/etc/systemd/system-generators/cloud-init-generator:0",
        )
        for content in (world.Link("/dev/null"), "")
    ),
    (
        "cloud-init.disabled",
        write("/etc/environment", "LANG=C\nKERNEL_CMDLINE=quiet cloud-init=disabled\n"),
        ERROR,
        "the environment turns cloud-init off",
        "/etc/environment:2",
    ),
    (
        "cloud-init.disabled",
        write("/etc/cloud/ds-identify.cfg", "policy: disabled\n"),
        ERROR,
        "ds-identify",
        "/etc/cloud/ds-identify.cfg:1",
    ),
    (
        "aws.agent",
        write("/etc/cloud/cloud-init.disabled", ""),
        ERROR,
        "cloud-init is not enabled",
        ":0",
    ),
    (
        "gcp.agent",
        remove("/usr/bin/cloud-init"),
        ERROR,
        "cloud-init is not installed, nor google_guest_agent",
        ":0",
    ),
    ("azure.agent", remove("/usr/bin/cloud-init"), ERROR, "cloud-init is not installed", ":0"),
    (
        "cloud-init.seed",
        write("/var/lib/cloud/seed/nocloud-net/user-data", "#"),
        ERROR,
        "seed",
        "/var/lib/cloud/seed/nocloud-net:0",
    ),
    (
        "cloud-init.state",
        write("/var/lib/cloud/instances/i-1/obj.pkl", "x"),
        WARNING,
        "earlier instance",
        "/var/lib/cloud/instances:0",
    ),
    (
        "cloud-init.network",
        write("/etc/cloud/cloud.cfg.d/99.cfg", "network: {config: disabled}\n"),
        NOTE,
        "network",
        "/etc/cloud/cloud.cfg.d/99.cfg:1",
    ),
    (
        "aws.datasource",
        write("/etc/cloud/cloud.cfg.d/95.cfg", "datasource_list: [ NoCloud ]\n"),
        ERROR,
        "[NoCloud] lacks Ec2",
        "/etc/cloud/cloud.cfg.d/95.cfg:1",
    ),
    (
        "gcp.datasource",
        write("/etc/cloud/cloud.cfg.d/95.cfg", "datasource_list:\n- Ec2\n- None\n"),
        ERROR,
        "[Ec2, None] lacks GCE",
        "/etc/cloud/cloud.cfg.d/95.cfg:1",
    ),
    (
        "azure.datasource",
        write("/etc/cloud/cloud.cfg.d/95.cfg", "datasource_list: [Ec2,\n  GCE]\n"),
        ERROR,
        "[Ec2, GCE] lacks Azure",
        "/etc/cloud/cloud.cfg.d/95.cfg:1",
    ),
    (
        "aws.datasource",
        write("/etc/cloud/cloud.cfg.d/95.cfg", "'datasource_list': [ NoCloud ]\n"),
        ERROR,
        "[NoCloud] lacks Ec2",
        "/etc/cloud/cloud.cfg.d/95.cfg:1",
    ),
    (
        "azure.datasource",
        write("/etc/cloud/cloud.cfg.d/95.cfg", "datasource_list: [Azure]\n"),
        NOTE,
        "one entry",
        "/etc/cloud/cloud.cfg.d/95.cfg:1",
    ),
    (
        "aws.datasource",
        write("/etc/cloud/ds-identify.cfg", "datasource: NoCloud\n"),
        ERROR,
        "ds-identify is told",
        "/etc/cloud/ds-identify.cfg:1",
    ),
    ("network.dhcp-client", remove("/usr/sbin/dhclient"), ERROR, "neither systemd-networkd", ":0"),
    ("aws.early-dhcp", remove("/usr/sbin/dhclient"), WARNING, "22.4.2 needs dhclient", ":0"),
    ("azure.early-dhcp", remove("/usr/sbin/dhclient"), ERROR, "22.4.2 needs dhclient", ":0"),
    (
        "azure.temporary-disk",
        write("/usr/lib/python3/dist-packages/cloudinit/version.py", '__VERSION__ = "20.4.1"\n'),
        WARNING,
        "cloud-init is 20.4.1, not 21.1",
        ":0",
    ),
    (
        "cloud-init.cache",
        write("/etc/cloud/cloud.cfg.d/80.cfg", "# ours\nmanual_cache_clean: true\n"),
        WARNING,
        "manual_cache_clean: true",
        "/etc/cloud/cloud.cfg.d/80.cfg:2",
    ),
    (
        "network.mac",
        write("/etc/netplan/50.yaml", "match:\n  macaddress: 52:54:00:12:34:56\n"),
        ERROR,
        "52:54:00:12:34:56",
        "/etc/netplan/50.yaml:2",
    ),
    (
        "network.mac",
        write("/etc/sysconfig/network-scripts/ifcfg-eth0", "HWADDR=52:54:00:12:34:56\n"),
        ERROR,
        "52:54:00:12:34:56",
        "/etc/sysconfig/network-scripts/ifcfg-eth0:1",
    ),
    (
        "network.persistent-names",
        write(
            "/etc/udev/rules.d/70-persistent-net.rules",
            'SUBSYSTEM=="net", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n',
        ),
        ERROR,
        "for good",
        "/etc/udev/rules.d/70-persistent-net.rules:1",
    ),
    *(
        (
            "network.address",
            write(path, text),
            WARNING,
            "a card has the address 10.0.2.15",
            f"{path}:{line}",
        )
        for path, text, line in (
            (
                "/etc/netplan/01.yaml",
                "network:\n  ethernets:\n    ens3:\n      nameservers:\n"
                "        addresses: [9.9.9.9]\n      addresses: [10.0.2.15/24]\n",
                6,
            ),
            ("/etc/netplan/01.yaml", "addresses:\n  - '10.0.2.15/24'\n", 2),
            (
                "/etc/network/interfaces",
                "iface br0 inet static\n address 10.1.1.1\niface ens3 inet static\n"
                " address 10.0.2.15\n",
                4,
            ),
            ("/etc/systemd/network/1.network", "[Match]\nName=en*\nAddress=10.0.2.15/24\n", 3),
            ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nIPADDR=10.0.2.15\n", 2),
            (
                "/etc/NetworkManager/system-connections/a",
                "[ipv4]\naddress1=10.0.2.15/24,10.0.2.2\n",
                2,
            ),
        )
    ),
    (
        "network.leases",
        write("/var/lib/dhcp/dhclient.leases", "lease {}"),
        WARNING,
        "lease",
        "/var/lib/dhcp/dhclient.leases:0",
    ),
    (
        "network.resolver",
        write("/etc/resolv.conf", "search lan\nnameserver 10.0.2.3\n"),
        WARNING,
        "10.0.2.3 is the name server that QEMU gives",
        "/etc/resolv.conf:2",
    ),
    (
        "network.resolver",
        write("/etc/resolv.conf", "nameserver fec0::3%eth0\n"),
        WARNING,
        "fec0::3 is the name server that QEMU gives",
        "/etc/resolv.conf:1",
    ),
    (
        "network.resolver",
        write("/etc/resolv.conf", "# made by hand\nnameserver\t127.0.0.53\n"),
        WARNING,
        "127.0.0.53 is systemd-resolved, not installed",
        "/etc/resolv.conf:2",
    ),
    (
        "network.resolver",
        write("/etc/resolv.conf", "nameserver ::1\n"),
        WARNING,
        "the machine itself, which serves none",
        "/etc/resolv.conf:1",
    ),
    *(
        (
            "network.resolver",
            write("/etc/resolv.conf", f"nameserver 9.9.9.9\nnameserver {address}\n"),
            WARNING,
            f"{address} is an address of the network that the image was built in",
            "/etc/resolv.conf:2",
        )
        for address in ("192.168.1.1", "10.9.8.7", "172.31.0.2", "fd00::1")
    ),
    (
        "locale.default",
        write("/etc/default/locale", '# of the installer\nLANG="de_DE.UTF-8"\n'),
        WARNING,
        "LANG=de_DE.UTF-8 is not in /usr/lib/locale",
        "/etc/default/locale:2",
    ),
    (
        "locale.default",
        write("/etc/locale.conf", "LANG=C.UTF-8\nLC_TIME=en_GB.UTF-8\n"),
        WARNING,
        "LC_TIME=en_GB.UTF-8",
        "/etc/locale.conf:2",
    ),
    (
        "identity.machine-id",
        write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ERROR,
        "machine id",
        "/etc/machine-id:1",
    ),
    (
        "identity.ssh-host-keys",
        write("/etc/ssh/ssh_host_ed25519_key", "x"),
        ERROR,
        "host key",
        "/etc/ssh/ssh_host_ed25519_key:0",
    ),
    (
        "identity.random-seed",
        write("/var/lib/systemd/random-seed", "x"),
        WARNING,
        "seed",
        "/var/lib/systemd/random-seed:0",
    ),
    (
        "traces.authorized-keys",
        write("/root/.ssh/authorized_keys", "# mine\nssh-ed25519 AAAA me@home\n"),
        ERROR,
        "me@home",
        "/root/.ssh/authorized_keys:2",
    ),
    (
        "traces.authorized-keys",
        write("/home/admin/.ssh/authorized_keys", "ssh-rsa AAAA ci\n"),
        ERROR,
        "(ci)",
        "/home/admin/.ssh/authorized_keys:1",
    ),
    (
        "traces.private-key",
        write("/root/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ERROR,
        "private key",
        "/root/.ssh/id_ed25519:1",
    ),
    (
        "traces.password",
        write("/etc/shadow", "root:$6$abc$def:1::::::\n"),
        ERROR,
        "root has a password",
        "/etc/shadow:1",
    ),
    (
        "traces.password",
        write("/etc/shadow", "root:!$6$abc$def:1::::::\n"),
        WARNING,
        "root has a locked password",
        "/etc/shadow:1",
    ),
    (
        "traces.password",
        write("/etc/shadow", "a:*:1\nroot::1::::::\n"),
        ERROR,
        "root needs no password",
        "/etc/shadow:2",
    ),
    (
        "traces.history",
        write("/root/.bash_history", "secret\n"),
        WARNING,
        "typed",
        "/root/.bash_history:0",
    ),
    ("ssh.server", remove("/usr/sbin/sshd"), WARNING, "no SSH server", ":0"),
    ("ssh.server", remove(f"{world.WANTS}/ssh.service"), WARNING, "ssh.service is disabled", ":0"),
    (
        "aws.ssh-passwords",
        write("/etc/ssh/sshd_config.d/10-image.conf", ""),
        WARNING,
        "PasswordAuthentication yes",
        "/etc/ssh/sshd_config:2",
    ),
    (
        "aws.ssh-root",
        write("/etc/ssh/sshd_config.d/00.conf", "permitrootlogin yes\n"),
        WARNING,
        "PermitRootLogin yes",
        "/etc/ssh/sshd_config.d/00.conf:1",
    ),
    (
        "gcp.ssh-root",
        write("/etc/ssh/sshd_config.d/00.conf", "permitrootlogin yes\n"),
        WARNING,
        "PermitRootLogin yes",
        "/etc/ssh/sshd_config.d/00.conf:1",
    ),
    (
        "azure.ssh-keepalive",
        write("/etc/ssh/sshd_config.d/10-image.conf", ""),
        WARNING,
        "is not set",
        "/etc/ssh/sshd_config:0",
    ),
    (
        "azure.ssh-keepalive",
        write("/etc/ssh/sshd_config.d/00.conf", "ClientAliveInterval=600\n"),
        WARNING,
        "ClientAliveInterval 600",
        "/etc/ssh/sshd_config.d/00.conf:1",
    ),
    (
        "aws.foreign-agent",
        write("/usr/sbin/waagent", ""),
        WARNING,
        "Azure Linux agent",
        "/usr/sbin/waagent:0",
    ),
    (
        "gcp.foreign-agent",
        write("/usr/sbin/waagent", ""),
        WARNING,
        "Azure Linux agent",
        "/usr/sbin/waagent:0",
    ),
    (
        "azure.foreign-agent",
        write("/usr/bin/google_guest_agent", ""),
        WARNING,
        "Google's guest agent",
        "/usr/bin/google_guest_agent:0",
    ),
    ("disk.growth", remove("/usr/bin/growpart"), NOTE, "growpart", ":0"),
]
