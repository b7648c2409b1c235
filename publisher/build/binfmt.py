"""How programs of another architecture run while Debian gets installed: by a user-mode
emulator that the kernel starts for them (Linux, Documentation/admin-guide/binfmt-misc.rst)."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

from publisher.build.namespace import Namespace
from publisher.errors import HostError
from publisher.vm.arch import Platform, is_native
from publisher.vm.host import require_emulator
from publisher.vm.process import command

_STATUS = 42
_LOAD = 0x400000
# exit(_STATUS), by architecture
_EXIT = {
    "x86_64": bytes.fromhex("bf2a000000b83c0000000f05"),  # edi = 42; eax = 60; syscall
    "aarch64": bytes.fromhex("400580d2a80b80d2010000d4"),  # x0 = 42; x8 = 93; svc 0
}

# All user ids of the host as they are: what is installed belongs to whom it belongs
# outside. A helper writes the maps, because only the parent namespace may.
_OWN_USERS = r"""
main=$$
{
    until [ "$(readlink /proc/$main/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do
        [ -e /proc/$main ] || exit
        sleep 0.01
    done
    for map in uid_map gid_map; do
        sed -E 's/^ *([0-9]+) +[0-9]+/\1 \1/' /proc/self/$map > /proc/$main/$map
    done
} &
exec unshare --user sh -euc '
    until read -r _ _ _ < /proc/self/gid_map; do sleep 0.01; done
    exec "$@"' sh "$@"
"""
# F: the emulator is opened now, and need not be in the installation;
# O: programs without read permission run too; P: they see the name they were called by
_REGISTER = r"""
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s "$1" > /proc/sys/fs/binfmt_misc/register
shift
exec "$@"
"""


def program(platform: Platform) -> bytes:
    """The smallest program of that architecture; it ends with status 42."""
    code = _EXIT[platform.arch]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\2\1\1", 2, platform.elf_machine, 1, _LOAD + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    size = 120 + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD, _LOAD, size, size, 0x1000) + code


def entry(platform: Platform, emulator: str) -> str:
    """The line to register: programs, static or not, by their ELF header. The name
    is the one by which mmdebstrap looks for it."""
    name = f"qemu-{platform.arch}"
    machine = struct.pack("<H", platform.elf_machine)
    magic = b"\x7fELF\2\1\1".ljust(16, b"\0") + b"\2\0" + machine
    mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"

    def escaped(data: bytes) -> str:
        return "".join(f"\\x{byte:02x}" for byte in data)

    return f":{name}:M::{escaped(magic)}:{escaped(mask)}:{emulator}:OPF"


def private(owner: Namespace, platform: Platform, emulator: str) -> Namespace:
    """`owner` with the emulator registered in a user namespace of its own, which
    nobody else sees and which ends with it. Linux can do so since 6.7
    (https://git.kernel.org/torvalds/c/21ca59b365c0)."""
    users = () if "--user" in owner.prefix else ("sh", "-euc", _OWN_USERS, "sh")
    register = ("sh", "-euc", _REGISTER, "sh", entry(platform, emulator))
    return Namespace(f"{owner.kind}, emulating {platform.arch}", (*users, *owner.prefix, *register))


def _refusal(candidate: Namespace, platform: Platform, directory: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="binfmt-", dir=directory) as name:
        trial = Path(name) / "program"
        trial.write_bytes(program(platform))
        trial.chmod(0o755)
        Path(name).chmod(0o755)
        done = subprocess.run(
            command(candidate.wrap([str(trial)])),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == _STATUS:
        return ""
    return lines[-1] if lines else f"status {done.returncode}"


def emulating(owner: Namespace, platform: Platform, directory: Path) -> Namespace:
    """The namespace in which programs of that architecture run: `owner` itself where
    the host can run them already. Tried in `directory`.

    Raises HostError that says what to install or to allow."""
    if is_native(platform.arch):
        return owner
    emulator = require_emulator(platform)
    why = ""
    for candidate in (owner, private(owner, platform, emulator)):
        why = _refusal(candidate, platform, directory)
        if not why:
            return candidate
    raise HostError(
        f"programs for {platform.arch} don't run here, so Debian can't be installed ({why})",
        key="image.arch",
        hint=f"register {emulator} with the kernel as root (on Debian: "
        f"apt-get install --reinstall {platform.emulator_package}), or use Linux 6.7 or newer",
    )
