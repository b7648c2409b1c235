"""What EC2 asks of an image, as far as the disk file shows it."""

from __future__ import annotations

from collections.abc import Iterator

from providers.aws.options import AwsOptions
from publisher.proof.checks import agents, boot, cloud_init, initramfs, ssh
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, WARNING, Evidence, Rule

_EC2 = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide"
_MARKETPLACE = (
    "https://docs.aws.amazon.com/marketplace/latest/userguide/product-and-ami-policies.html"
)


def has_ena(disk: Inspection) -> bool:
    """Raises Unreadable where the kernel says nothing of its drivers."""
    return not list(initramfs.present("ena")(disk))


def rules(options: AwsOptions | None) -> tuple[Rule, ...]:
    """The rules for AMIs registered with `options`; without, nothing is claimed."""

    def tpm(disk: Inspection) -> Iterator[Evidence]:
        if options and options.tpm:
            fault = boot.uefi_fault(disk)
            if fault is not None:
                text = f"a NitroTPM needs UEFI: {fault.text}"
                yield Evidence(text, fault.path, key="targets.aws.tpm")
            yield from initramfs.present("tpm_crb", key="targets.aws.tpm")(disk)

    def xen(disk: Inspection) -> Iterator[Evidence]:
        if disk.arch() != "aarch64":  # which is Nitro's alone
            yield from initramfs.early("xen_blkfront")(disk)
            yield from initramfs.present("xen_netfront")(disk)

    def ena(disk: Inspection) -> Iterator[Evidence]:
        claimed = options is not None and options.ena is True
        # what is not claimed is not registered: no machine type of Nitro takes the AMI
        severity = None if claimed or options is None else WARNING
        key = "targets.aws.ena" if claimed else ""
        yield from initramfs.present("ena", key=key, severity=severity)(disk)

    return (
        Rule(
            "aws.nvme-driver",
            ERROR,
            "The NVMe driver is in the kernel or the initramfs",
            "On Nitro machines the root volume is an NVMe disk: without the driver the kernel "
            "does not find it.",
            "https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html",
            "add nvme to /etc/initramfs-tools/modules (dracut: add_drivers) and rebuild "
            "the initramfs",
            initramfs.early("nvme"),
        ),
        Rule(
            "aws.xen-driver",
            WARNING,
            "The drivers of machine types before Nitro are there",
            "t2, m4 and others of their time have Xen's disks and network cards.",
            f"{_EC2}/instance-types.html",
            "add xen-blkfront to the initramfs, or offer the image for Nitro types only",
            xen,
        ),
        Rule(
            "aws.network-driver",
            ERROR,
            "The driver of the Elastic Network Adapter is there",
            "Nitro machines have no other network card; an AMI registered with ENA support "
            "whose guest lacks the driver has no network.",
            f"{_EC2}/enhanced-networking-ena.html",
            "install a kernel with the driver ena, or leave targets.aws.ena out",
            ena,
        ),
        Rule(
            "aws.tpm",
            ERROR,
            "An AMI that offers a NitroTPM boots by UEFI and has the driver",
            "EC2 attaches a NitroTPM only to machines that boot by UEFI, as a TPM 2.0 with the "
            "command response buffer interface.",
            f"{_EC2}/enable-nitrotpm-prerequisites.html",
            "install an EFI loader and a kernel with tpm_crb, or set targets.aws.tpm to false",
            tpm,
        ),
        Rule(
            "aws.console",
            WARNING,
            "The kernel writes to the serial console",
            "The instance's system log and the EC2 serial console show ttyS0; without it a "
            "machine that does not boot says nothing.",
            f"{_EC2}/grub.html",
            "add console=ttyS0,115200n8 to GRUB_CMDLINE_LINUX and run update-grub in the image",
            boot.console(("ttyS0",)),
        ),
        Rule(
            "aws.nvme-timeout",
            WARNING,
            "I/O to EBS volumes does not time out",
            "When a volume pauses for longer than the driver's 30 seconds, the file system may "
            "be mounted read-only.",
            "https://docs.aws.amazon.com/ebs/latest/userguide/timeout-nvme-ebs-volumes.html",
            "add nvme_core.io_timeout=4294967295 to GRUB_CMDLINE_LINUX and run update-grub in "
            "the image",
            boot.argument(
                "nvme_core.io_timeout",
                lambda value: value.isascii() and value.isdigit() and int(value[:12]) >= 255,
                "nvme_core.io_timeout=4294967295",
            ),
        ),
        Rule(
            "aws.agent",
            ERROR,
            "cloud-init sets an instance up",
            "Something must take the SSH key and the user-data from EC2's metadata.",
            f"{_EC2}/building-shared-amis.html#public-amis-install-credentials",
            "install cloud-init and enable its units",
            agents.provisioned(),
        ),
        Rule(
            "aws.datasource",
            ERROR,
            "cloud-init looks at EC2's metadata",
            "A datasource_list without Ec2 leaves an instance without key, name and user-data.",
            "https://docs.cloud-init.io/en/latest/reference/datasources/ec2.html",
            "add Ec2 to datasource_list, or remove the list",
            cloud_init.datasource("Ec2"),
        ),
        Rule(
            "aws.early-dhcp",
            WARNING,
            "cloud-init can ask for an address before the network is up",
            "The datasource Ec2 reads the metadata with an address of its own and configures the "
            "network from it; without a client it falls back to a later stage.",
            "https://github.com/canonical/cloud-init/blob/main/cloudinit/sources/DataSourceEc2.py",
            "install isc-dhcp-client, or dhcpcd-base for cloud-init 24.1 and newer",
            cloud_init.early_dhcp,
        ),
        Rule(
            "aws.ssh-passwords",
            WARNING,
            "SSH takes no passwords",
            "AWS Marketplace refuses AMIs that let anybody log in by password.",
            _MARKETPLACE,
            "set PasswordAuthentication no and KbdInteractiveAuthentication no in "
            "/etc/ssh/sshd_config",
            ssh.passwords,
        ),
        Rule(
            "aws.ssh-root",
            WARNING,
            "root can't log in by password",
            "AWS Marketplace refuses AMIs that let root log in by password.",
            _MARKETPLACE,
            "set PermitRootLogin no in /etc/ssh/sshd_config",
            ssh.setting(
                "PermitRootLogin", "prohibit-password", ssh.NO_ROOT_PASSWORD.__contains__, "no"
            ),
        ),
        agents.only_own(
            "aws",
            "https://github.com/Azure/WALinuxAgent",
            agents.foreign("azure", "the Azure Linux agent", ("/usr/sbin/waagent",)),
            agents.foreign(
                "gcp",
                "Google's guest agent",
                ("/usr/bin/google_guest_agent", "/usr/bin/google_guest_agent_manager"),
            ),
        ),
    )
