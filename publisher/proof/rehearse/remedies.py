"""The commands that mend a disk, by what it has."""

from __future__ import annotations

from publisher.proof.rehearse.evidence import Files


def rebuild_initramfs(files: Files, driver: str) -> str:
    """How the driver gets into the initramfs."""
    if any(map(files.exists, ("/usr/bin/dracut", "/usr/sbin/dracut", "/etc/dracut.conf"))):
        return (
            f'put add_drivers+=" {driver} " into /etc/dracut.conf.d/{driver}.conf and run '
            "dracut --force --regenerate-all"
        )
    if files.exists("/etc/mkinitcpio.conf"):
        return f"add {driver} to MODULES in /etc/mkinitcpio.conf and run mkinitcpio -P"
    if any(map(files.exists, ("/usr/sbin/update-initramfs", "/etc/initramfs-tools"))):
        return f"add {driver} to /etc/initramfs-tools/modules and run update-initramfs -u"
    return f"build the initramfs anew with {driver}"


def renew_grub(files: Files) -> str:
    """The command that writes GRUB's configuration."""
    if any(map(files.exists, ("/usr/sbin/grub2-mkconfig", "/boot/grub2"))):
        return "grub2-mkconfig -o /boot/grub2/grub.cfg"
    return "update-grub"


def install_grub(files: Files) -> str:
    if any(map(files.exists, ("/usr/sbin/grub2-install", "/boot/grub2"))):
        return "grub2-install"
    return "grub-install"


def with_argument(files: Files, argument: str) -> str:
    """How the kernel gets an argument."""
    if files.exists("/usr/sbin/grubby"):
        return f"run grubby --update-kernel=ALL --args={argument}"
    return f"add {argument} to GRUB_CMDLINE_LINUX and run {renew_grub(files)}"
