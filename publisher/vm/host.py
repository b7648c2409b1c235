"""What this machine must have to build and boot guests, for `doctor` and for early errors."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import HostError
from publisher.model import Arch, Noun
from publisher.vm import cgroup
from publisher.vm.arch import PLATFORMS, Platform, is_native, platform_of

_SYSTEM_PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCTOR = "run `publish doctor --fix`"


@dataclass(frozen=True, slots=True)
class Requirement(Noun):
    """A command or file that the host must have; `package` is Debian's."""

    name: str
    why: str
    package: str
    found: bool
    build: bool = True
    """False for what only rehearsals need."""


_COMMANDS = (
    ("qemu-img", "makes throwaway overlays of disks", "qemu-utils"),
    ("qemu-nbd", "reads disks of other formats where they are", "qemu-utils"),
    ("mmdebstrap", "installs Debian into a directory", "mmdebstrap"),
    ("gpg", "tells mmdebstrap which of Debian's keys signs a suite", "gpg"),
    ("unshare", "gives the installation its own namespaces", "util-linux"),
    ("setpriv", "ends children when this program dies", "util-linux"),
    ("tar", "packs the installation", "tar"),
    ("mke2fs", "makes the root file system", "e2fsprogs"),
    ("e2fsck", "proves that the sealed file system is clean", "e2fsprogs"),
    ("debugfs", "reads the sealed file system", "e2fsprogs"),
    ("dumpe2fs", "finds free blocks, to erase deleted data", "e2fsprogs"),
    ("mformat", "makes the EFI system partition", "mtools"),
    ("mcopy", "fills the EFI system partition", "mtools"),
    ("ssh", "runs the build steps in the guest", "openssh-client"),
    ("ssh-keygen", "makes a key pair for each build", "openssh-client"),
)
_REHEARSAL_COMMANDS = (
    ("ip", "gives a rehearsal's guest a network of its own", "iproute2"),
    ("nsenter", "runs a rehearsal's guest in its network", "util-linux"),
    ("swtpm", "gives a rehearsal's guest a TPM", "swtpm"),
)
_USER_COMMANDS = (("newuidmap", "lets a normal user own an installation's files", "uidmap"),)
_FILES = (
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "checks Debian's signatures",
        "debian-archive-keyring",
    ),
)


def processors() -> int:
    """Those that this process may use: its affinity and its container's limit."""
    own, limit = len(os.sched_getaffinity(0)), cgroup.processors()
    return own if limit is None else min(own, limit)


def free_memory() -> int:
    """Bytes that guests may take without anything being swapped out, and without going
    over a container's limit."""
    machine, limit = _machine_memory(), cgroup.free_memory()
    return machine if limit is None else min(machine, limit)


def _machine_memory() -> int:
    """Half of the machine's where the kernel does not say (proc_meminfo(5), MemAvailable)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def which(command: str) -> str | None:
    """The command's path; looks in the sbin directories too, which a user's PATH may lack."""
    return shutil.which(command) or shutil.which(command, path=_SYSTEM_PATHS)


def require(command: str) -> str:
    """The command's path. Raises HostError with its Debian package when it is missing."""
    path = which(command)
    if path is None:
        raise _missing(command)
    return path


def _missing(command: str) -> HostError:
    for requirement in (r for arch in PLATFORMS for r in requirements(arch)):
        if requirement.name == command:
            return HostError(
                f"{command} is not installed: it {requirement.why}",
                hint=f"{DOCTOR}, or install the Debian package {requirement.package}",
            )
    return HostError(f"{command} is not installed", hint=DOCTOR)


def efi_firmware(platform: Platform, *, secure: bool = False) -> tuple[Path, Path]:
    """Paths of EDK II's code and of the template of its variables.

    Raises HostError when none is installed."""
    for code, variables in platform.efi_secure if secure else platform.efi:
        if Path(code).is_file() and Path(variables).is_file():
            return Path(code), Path(variables)
    raise HostError(
        "no UEFI firmware for virtual machines is installed",
        hint=f"{DOCTOR}, or install the Debian package {platform.efi_package}",
    )


def emulator(platform: Platform) -> str | None:
    """The path of what runs that architecture's programs on another host. One that
    needs libraries is none: it would not find them in an installation."""
    for name in platform.emulators:
        path = which(name)
        if path is not None:
            with open(path, "rb") as file:
                if b"/ld-linux" not in file.read(4096):
                    return path
    return None


def require_emulator(platform: Platform) -> str:
    """Its path. Raises HostError with its Debian package when it is missing."""
    path = emulator(platform)
    if path is None:
        raise _missing(platform.emulators[0])
    return path


def requirements(arch: Arch = "x86_64", *, user: bool | None = None) -> Sequence[Requirement]:
    """Everything that building and booting needs, present or not.

    `user`: also what only a normal user (not root) needs; None asks the system."""
    platform = platform_of(arch)
    by_user = os.geteuid() != 0 if user is None else user
    commands = [(platform.qemu, "runs the guest", platform.qemu_package), *_COMMANDS]
    if by_user:
        commands += _USER_COMMANDS
    found = [
        Requirement(name, why, package, which(name) is not None) for name, why, package in commands
    ]
    found += [
        Requirement(name, why, package, which(name) is not None, build=False)
        for name, why, package in _REHEARSAL_COMMANDS
    ]
    found += [Requirement(name, why, package, Path(name).exists()) for name, why, package in _FILES]
    if not is_native(arch):
        why = f"runs Debian's programs for {arch} while they get installed"
        present = emulator(platform) is not None
        found.append(Requirement(platform.emulators[0], why, platform.emulator_package, present))
    code, variables = platform.efi[0]
    present = any(Path(c).is_file() and Path(v).is_file() for c, v in platform.efi)
    found.append(
        Requirement(f"{code} and {variables}", "boots by UEFI", platform.efi_package, present)
    )
    return found


def require_all(arch: Arch) -> None:
    """Raise one HostError that names everything that a build lacks."""
    missing = [r for r in requirements(arch) if not r.found and r.build]
    if missing:
        names = ", ".join(f"{r.name} ({r.package})" for r in missing)
        packages = " ".join(sorted({r.package for r in missing}))
        raise HostError(
            f"this machine lacks {names}",
            hint=f"{DOCTOR}, or: apt-get install {packages}",
        )
