"""What Compute Engine asks of an image, as far as the disk file shows it."""

from __future__ import annotations

from collections.abc import Iterator

from providers.gcp.guest.features import lacks
from providers.gcp.options import DERIVED, GcpOptions
from publisher.model import Spec
from publisher.proof.checks import agents, boot, cloud_init, initramfs, ssh
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, NOTE, WARNING, Evidence, Rule

_COMPUTE = "https://cloud.google.com/compute/docs"
_DEVICES = f"{_COMPUTE}/images/building-custom-os"
_FEATURES = f"{_COMPUTE}/images/create-custom#guest-os-features"
_KEY = "targets.gcp.guest_os_features"
_ONLY_X86 = ("SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE", "TDX_CAPABLE")


def rules(options: GcpOptions | None, spec: Spec | None) -> tuple[Rule, ...]:
    """The rules for images registered with `options`; without, nothing is claimed."""
    claimed = (options.guest_os_features or ()) if options and spec else ()
    derived = options is not None and options.guest_os_features is None and spec is not None

    def claims(disk: Inspection) -> Iterator[Evidence]:
        for feature, lack in lacks(disk).items() if claimed else ():
            if feature in claimed and lack:
                yield Evidence(f"{feature} is claimed, but {lack}", key=_KEY)

    def unclaimed(disk: Inspection) -> Iterator[Evidence]:
        for feature, lack in lacks(disk).items() if claimed or derived else ():
            if feature not in DERIVED or (disk.arch() == "aarch64" and feature in _ONLY_X86):
                continue
            if derived and lack:
                yield Evidence(f"{feature} is not declared: {lack}")
            elif claimed and feature not in claimed and not lack:
                yield Evidence(f"the disk supports {feature}, which is not claimed", key=_KEY)

    def table(disk: Inspection) -> Iterator[Evidence]:
        if disk.table().scheme == "none":
            yield Evidence("the disk has no partition table")

    return (
        Rule(
            "gcp.disk-driver",
            ERROR,
            "The virtio-scsi driver is in the kernel or the initramfs",
            "The boot disk is a virtio-scsi disk on most machine types: without the driver the "
            "kernel does not find it.",
            _DEVICES,
            "add virtio_scsi and virtio_pci to /etc/initramfs-tools/modules (dracut: "
            "add_drivers) and rebuild the initramfs",
            initramfs.early("virtio_pci", "virtio_scsi"),
        ),
        Rule(
            "gcp.nvme-driver",
            WARNING,
            "The NVMe driver is in the kernel or the initramfs",
            "Machine types of the third and later generations (C3, N4 and others), T2A, G2 and "
            "Confidential VMs have NVMe disks only.",
            _DEVICES,
            "add nvme to /etc/initramfs-tools/modules (dracut: add_drivers) and rebuild "
            "the initramfs",
            initramfs.early("nvme"),
        ),
        Rule(
            "gcp.network-driver",
            ERROR,
            "The virtio-net driver is there",
            "It is the network card of most machine types.",
            _DEVICES,
            "install a kernel with the driver virtio_net",
            initramfs.present("virtio_net"),
        ),
        Rule(
            "gcp.gvnic-driver",
            WARNING,
            "The gVNIC driver is there",
            "Machine types of the third and later generations, those with Arm processors and "
            "Confidential VMs have no other network card.",
            f"{_COMPUTE}/networking/using-gvnic",
            "install a kernel with the driver gve",
            initramfs.present("gve"),
        ),
        Rule(
            "gcp.features",
            ERROR,
            "The guest supports the guest OS features that the pipeline claims",
            "Compute Engine gives a machine the hardware that the features ask for; a guest "
            "without the support for it does not boot or has no network.",
            _FEATURES,
            "leave the feature out of targets.gcp.guest_os_features, or install what it needs",
            claims,
        ),
        Rule(
            "gcp.features-unclaimed",
            NOTE,
            "The image declares the guest OS features of today's machines",
            "Machine types and services that need the feature can't be had with the image.",
            _FEATURES,
            "install what the feature needs; add it to targets.gcp.guest_os_features where that "
            "is set",
            unclaimed,
        ),
        Rule(
            "gcp.partition-table",
            ERROR,
            "The disk has a partition table",
            "Compute Engine boots only a disk with an MBR partition table or a GPT.",
            f"{_COMPUTE}/images/image-management-best-practices",
            "put the file system into a partition of a disk with a GPT",
            table,
        ),
        Rule(
            "gcp.console",
            WARNING,
            "The kernel writes to the serial console",
            "The serial port output and the interactive console show ttyS0; without it a machine "
            "that does not boot says nothing.",
            f"{_COMPUTE}/import/import-existing-image",
            "add console=ttyS0,38400n8d to GRUB_CMDLINE_LINUX and run update-grub in the image",
            boot.console(("ttyS0", "ttyAMA0")),
        ),
        Rule(
            "gcp.agent",
            ERROR,
            "Google's guest agent or cloud-init sets an instance up",
            "Nothing else takes SSH keys, host name and scripts from the metadata server.",
            f"{_COMPUTE}/images/guest-environment",
            "install google-guest-agent or cloud-init, with its units enabled",
            agents.provisioned(
                "/usr/bin/google_guest_agent",
                "/usr/bin/google_guest_agent_manager",
                units=("google-guest-agent.service", "google-guest-agent-manager.service"),
            ),
        ),
        Rule(
            "gcp.datasource",
            ERROR,
            "cloud-init looks at the metadata server",
            "A datasource_list without GCE leaves an instance without key, name and user-data.",
            "https://docs.cloud-init.io/en/latest/reference/datasources/gce.html",
            "add GCE to datasource_list, or remove the list",
            cloud_init.datasource("GCE"),
        ),
        Rule(
            "gcp.early-dhcp",
            WARNING,
            "cloud-init can ask for an address before the network is up",
            "The datasource GCE reads the metadata with an address of its own; without a client "
            "it falls back to a later stage.",
            "https://github.com/canonical/cloud-init/blob/main/cloudinit/sources/DataSourceGCE.py",
            "install isc-dhcp-client, or dhcpcd-base for cloud-init 24.1 and newer",
            cloud_init.early_dhcp,
        ),
        Rule(
            "gcp.ssh-root",
            WARNING,
            "root can't log in by password",
            "Google's own images say prohibit-password or no: people log in as themselves and use "
            "sudo.",
            f"{_COMPUTE}/connect/root-ssh",
            "set PermitRootLogin no (or prohibit-password) in /etc/ssh/sshd_config",
            ssh.setting(
                "PermitRootLogin", "prohibit-password", ssh.NO_ROOT_PASSWORD.__contains__, "no"
            ),
        ),
        agents.only_own(
            "gcp",
            "https://github.com/Azure/WALinuxAgent",
            agents.foreign("azure", "the Azure Linux agent", ("/usr/sbin/waagent",)),
        ),
    )
