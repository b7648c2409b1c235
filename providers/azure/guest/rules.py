"""What Azure asks of an image, as far as the disk file shows it."""

from __future__ import annotations

from collections.abc import Iterator

from providers.azure.guest import waagent
from providers.azure.guest.abilities import absent, no_nvme, not_accelerated, not_trusted
from providers.azure.options import AzureOptions
from publisher.model import Spec
from publisher.proof.checks import agents, boot, cloud_init, initramfs, ssh
from publisher.proof.checks.disk import swap_partition
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, NOTE, WARNING, Evidence, Rule

_LEARN = "https://learn.microsoft.com/azure/virtual-machines"
_GENERIC = f"{_LEARN}/linux/create-upload-generic"
_CERTIFICATION = (
    "https://learn.microsoft.com/partner-center/marketplace-offers/azure-vm-certification-faq"
)
_TEMPORARY_LEAST = (21, 1)


def rules(options: AzureOptions | None, spec: Spec | None) -> tuple[Rule, ...]:
    """The rules for images registered with `options`; without, nothing is claimed."""
    generation = options.generation_for(spec) if options and spec else None
    security = options.security_type if options and spec else None
    nvme_claimed = bool(options and options.nvme and generation == "V2")
    fast = bool(options and options.accelerated_networking)

    def generations(disk: Inspection) -> Iterator[Evidence]:
        if generation is not None:
            by = "uefi" if generation == "V2" else "bios"
            fault = boot.uefi_fault(disk) if by == "uefi" else boot.bios_fault(disk)
            if fault is not None:
                text = f"generation {generation} boots by {by.upper()}, the disk does not: "
                key = "targets.azure.generation"
                yield Evidence(text + fault.text, fault.path, key=key)
        elif boot.firmware(disk) == "bios":
            yield Evidence("the disk boots by BIOS only: as generation V1", severity=NOTE)

    def network(disk: Inspection) -> Iterator[Evidence]:
        yield from initramfs.present("hv_netvsc")(disk)
        for kernel in initramfs.kernels(disk):
            if kernel.driver("hv_netvsc") == "module":
                text = f"the driver hv_netvsc of kernel {kernel.version} is not in its initramfs"
                yield Evidence(text, ", ".join(kernel.initrds), severity=NOTE)

    def nvme(disk: Inspection) -> Iterator[Evidence]:
        severity, key = (None, "targets.azure.nvme") if nvme_claimed else (WARNING, "")
        for found in no_nvme(disk):
            yield Evidence(found.text, found.path, severity=severity, key=key)

    def accelerated(disk: Inspection) -> Iterator[Evidence]:
        severity = None if fast else NOTE
        key = "targets.azure.accelerated_networking" if fast else ""
        for found in not_accelerated(disk):
            yield Evidence(found.text, found.path, severity=severity, key=key)
        for kernel in initramfs.kernels(disk):
            lacking = absent(disk, kernel)
            if len(lacking) == 1:
                text = f"kernel {kernel.version} loads no driver {lacking[0]}"
                yield Evidence(text, kernel.directory, severity=NOTE)

    def trusted(disk: Inspection) -> Iterator[Evidence]:
        if security in (None, "Standard"):
            if boot.uefi_fault(disk) is None:
                for found in boot.unsigned(disk):
                    yield Evidence(found.text, found.path, severity=NOTE)
            return
        key = "targets.azure.security_type"
        for found in not_trusted(disk):
            yield Evidence(f"{security} is claimed, but {found.text}", found.path, key=key)

    def rootdelay(disk: Inspection) -> Iterator[Evidence]:
        # initramfs-tools and dracut wait for the root device by themselves
        waits = all(kernel.initrds for kernel in initramfs.kernels(disk))
        for found in boot.argument("rootdelay", lambda v: v == "300", "rootdelay=300")(disk):
            yield Evidence(found.text, found.path, found.line, NOTE if waits else None)

    def temporary(disk: Inspection) -> Iterator[Evidence]:
        found = cloud_init.version(disk)
        if found and found < _TEMPORARY_LEAST:
            yield Evidence(f"cloud-init is {'.'.join(map(str, found))}, not 21.1 or newer")

    return (
        Rule(
            "azure.disk-driver",
            ERROR,
            "Hyper-V's disk drivers are in the kernel or the initramfs",
            "The OS disk hangs on a controller of Hyper-V (IDE in generation V1, SCSI in V2), both "
            "driven by hv_storvsc: without it the kernel does not find the disk.",
            _GENERIC,
            "add hv_vmbus and hv_storvsc to /etc/initramfs-tools/modules (dracut: add_drivers) "
            "and rebuild the initramfs",
            initramfs.early("hv_vmbus", "hv_storvsc"),
        ),
        Rule(
            "azure.network-driver",
            ERROR,
            "Hyper-V's network driver is there",
            "Every machine has Hyper-V's network card, those with accelerated networking too.",
            _GENERIC,
            "install a kernel with hv_netvsc, and add it to the initramfs",
            network,
        ),
        Rule(
            "azure.nvme-driver",
            ERROR,
            "NVMe disks can hold the root file system",
            "Newer sizes attach the OS disk by NVMe, some of them in no other way, behind "
            "Hyper-V's virtual PCI bus; an image that claims NVMe and lacks the drivers does not "
            "boot there.",
            f"{_LEARN}/nvme-linux",
            "add nvme and pci-hyperv to the initramfs, or leave targets.azure.nvme out",
            nvme,
        ),
        Rule(
            "azure.accelerated-networking",
            ERROR,
            "The drivers of accelerated networking are there",
            "An image that claims accelerated networking gets a virtual function of a ConnectX "
            "or MANA adapter, which needs its own driver beside hv_netvsc.",
            "https://learn.microsoft.com/azure/virtual-network/accelerated-networking-overview",
            "install a kernel with mlx5_core and mana (Linux 5.15 or newer), or leave "
            "targets.azure.accelerated_networking out",
            accelerated,
        ),
        Rule(
            "azure.file-systems",
            ERROR,
            "The kernel can mount UDF and FAT",
            "Azure hands the provisioning data over on a CD with a UDF file system; only "
            "cloud-init 21.2 and newer does without, for machines that have an SSH key and no "
            "custom data. The EFI system partition is FAT.",
            _GENERIC,
            "install a kernel with udf and vfat (no blacklist of file systems)",
            initramfs.present("udf", "vfat"),
        ),
        Rule(
            "azure.generation",
            ERROR,
            "The disk boots as the generation that the pipeline claims",
            "Generation V1 starts machines by BIOS, V2 by UEFI.",
            f"{_LEARN}/generation-2",
            "set targets.azure.generation to what the disk can do, or install the loader",
            generations,
        ),
        Rule(
            "azure.trusted-launch",
            ERROR,
            "An image that claims Trusted Launch has signed loaders",
            "Trusted Launch turns Secure Boot on: a firmware that trusts only Microsoft's keys "
            "starts nothing that is unsigned.",
            f"{_LEARN}/trusted-launch",
            "install shim-signed and the signed GRUB, or set targets.azure.security_type to "
            "Standard",
            trusted,
        ),
        Rule(
            "azure.console",
            WARNING,
            "The kernel writes to the serial console",
            "Without it boot diagnostics and the serial console show nothing; certification asks "
            "for console=ttyS0.",
            _GENERIC,
            "add console=ttyS0,115200 to GRUB_CMDLINE_LINUX and run update-grub in the image",
            boot.console(("ttyS0", "ttyAMA0")),
        ),
        Rule(
            "azure.rootdelay",
            WARNING,
            "The kernel waits for a slow root disk",
            "The guide asks for rootdelay=300, and certification warns where it is missing. An "
            "initramfs waits for the root disk by itself.",
            _GENERIC,
            "add rootdelay=300 to the kernel's arguments where there is no initramfs that waits",
            rootdelay,
        ),
        Rule(
            "azure.quiet",
            WARNING,
            "The kernel is not told to be quiet",
            "rhgb and quiet keep from the serial console what support needs; crashkernel=auto "
            "takes at least 128 MB of memory.",
            _GENERIC,
            "remove rhgb and quiet from GRUB_CMDLINE_LINUX_DEFAULT and run update-grub in the "
            "image",
            boot.without("rhgb", "quiet", "crashkernel=auto"),
        ),
        Rule(
            "azure.swap",
            ERROR,
            "There is no swap space on the OS disk",
            "Certification looks for swap partitions on the OS disk; swap belongs on the resource "
            "disk, where the agent or cloud-init makes it.",
            _CERTIFICATION,
            "remove the swap partition and its line in /etc/fstab",
            swap_partition,
        ),
        Rule(
            "azure.agent",
            ERROR,
            "waagent 2.2.41 or newer, or cloud-init sets an instance up",
            "Azure reboots a machine that does not report ready, and its creation fails after a "
            "time. Certification asks for waagent 2.2.41.",
            f"{_LEARN}/linux/no-agent",
            "install walinuxagent with its unit enabled and Provisioning.Agent=auto in "
            "/etc/waagent.conf, or cloud-init with its units enabled",
            waagent.sets_up,
        ),
        Rule(
            "azure.datasource",
            ERROR,
            "cloud-init looks at Azure's provisioning data",
            "A datasource_list without Azure leaves an instance without user and key, and Azure "
            "waits in vain for it to report ready.",
            "https://docs.cloud-init.io/en/latest/reference/datasources/azure.html",
            "add Azure to datasource_list, or remove the list",
            cloud_init.datasource("Azure"),
        ),
        Rule(
            "azure.early-dhcp",
            ERROR,
            "cloud-init can ask for an address before the network is up",
            "The datasource Azure gets its data and reports ready with an address of its own; "
            "without a client provisioning fails.",
            "https://github.com/canonical/cloud-init/blob/main/cloudinit/sources/DataSourceAzure.py",
            "install isc-dhcp-client, or dhcpcd-base for cloud-init 24.1 and newer",
            cloud_init.early_dhcp,
        ),
        Rule(
            "azure.temporary-disk",
            WARNING,
            "cloud-init does not wait for a temporary disk",
            "Before 21.1 cloud-init waits two minutes on a new machine for the temporary disk, "
            "which many sizes do not have (D2s_v5, D2s_v6).",
            "https://github.com/canonical/cloud-init/pull/800",
            "install cloud-init 21.1 or newer, or use sizes with a temporary disk",
            temporary,
        ),
        Rule(
            "azure.ssh-keepalive",
            WARNING,
            "SSH keeps idle sessions alive",
            "Certification asks for a ClientAliveInterval of 180, and takes 30 to 235: load "
            "balancers drop connections that are idle for four minutes.",
            _CERTIFICATION,
            "set ClientAliveInterval 180 in /etc/ssh/sshd_config",
            ssh.setting(
                "ClientAliveInterval",
                "0",
                lambda value: 30 <= (ssh.seconds(value) or 0) <= 235,
                "30 to 235",
            ),
        ),
        agents.only_own(
            "azure",
            "https://github.com/GoogleCloudPlatform/guest-agent",
            agents.foreign(
                "gcp",
                "Google's guest agent",
                ("/usr/bin/google_guest_agent", "/usr/bin/google_guest_agent_manager"),
            ),
        ),
    )
