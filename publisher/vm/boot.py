"""Does a disk boot? Tried on a throwaway overlay, so the disk itself is never written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from publisher.errors import BuildError, HostError
from publisher.model import Arch, Disk, Noun
from publisher.task import Task
from publisher.vm import keys, process, seed
from publisher.vm.arch import platform_of
from publisher.vm.host import efi_firmware
from publisher.vm.machine import Drive, Hardware, Machine
from publisher.vm.shell import Shell

USER = "visitor"
SHUTDOWN = 300.0


@dataclass(frozen=True, slots=True)
class BootReport(Noun):
    """What a guest said about itself after a login; `phases` are the seconds
    until each phase of the boot, `firmware` is as the guest saw it."""

    firmware: Literal["bios", "uefi"]
    secure_boot: bool
    machine_id: str
    kernel: str
    system: str
    cloud_init: str
    phases: Mapping[str, float]


def overlay(disk: Disk, path: Path, task: Task) -> Path:
    """A qcow2 file that takes all writes instead of the disk."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", disk.format]
    done = process.run([*argv, "-b", str(disk.path.resolve()), str(path)], task)
    if done.status:
        raise HostError(f"qemu-img failed: {done.text}")
    return path


_QUESTIONS = """
cat /etc/machine-id
uname -r
. /etc/os-release; echo "$PRETTY_NAME"
if [ -d /sys/firmware/efi ]; then echo uefi; else echo bios; fi
od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c \
    2>/dev/null || echo 0
if command -v cloud-init >/dev/null; then
    cloud-init status --wait 2>/dev/null | tr -d '.\\n' | sed 's/.*status: *//'; echo
fi
"""


def boot_check(
    disk: Disk,
    *,
    firmware: Literal["bios", "uefi"],
    task: Task,
    scratch: Path,
    arch: Arch = "x86_64",
    secure: bool = False,
) -> BootReport:
    """Boot the disk, log in by ssh as a user whom cloud-init made, power off.

    `secure` enforces UEFI Secure Boot with Microsoft's keys. Raises BootError
    with the phase that the boot did not leave."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="boot-", dir=scratch) as name:
        directory = Path(name)
        code = variables = None
        if firmware == "uefi":
            code, template = efi_firmware(platform_of(arch), secure=secure)
            variables = directory / "variables.fd"
            shutil.copyfile(template, variables)
        pair = keys.generate(directory, task)
        image = overlay(disk, directory / "overlay.qcow2", task)
        user_data = seed.for_login(pair, USER)
        small = seed.write(directory / "seed.img", user_data, directory.name, task)
        hardware = Hardware(
            drives=(Drive(image, "qcow2"), Drive(small, read_only=True)),
            log=scratch / f"console-{firmware}.log",
            arch=arch,
            firmware_code=code,
            firmware_variables=variables,
        )
        with Machine(hardware, task) as machine, Shell(machine, pair, USER) as shell:
            report = _ask(shell, machine)
            shell.leave("sudo -n systemctl poweroff")
            machine.wait_down(SHUTDOWN)
        hardware.log.unlink(missing_ok=True)
        return report


def _ask(shell: Shell, machine: Machine) -> BootReport:
    lines = shell.output(f"sh -eu -c '{_quote(_QUESTIONS)}'").splitlines()
    if len(lines) < 5:
        raise BuildError(f"the guest's answer is unusable: {lines}")
    machine_id, kernel, system, firmware, secure, *rest = lines
    return BootReport(
        firmware="uefi" if firmware == "uefi" else "bios",
        secure_boot=secure.strip() == "1",
        machine_id=machine_id,
        kernel=kernel,
        system=system,
        cloud_init=" ".join(rest).strip(),
        phases=machine.tracker.seconds,
    )


def _quote(text: str) -> str:
    return text.replace("'", "'\"'\"'")
