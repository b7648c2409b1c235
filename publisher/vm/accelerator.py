"""Which accelerator runs guests here: found out by running a guest, not by opening /dev/kvm."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from publisher.model import Arch, Noun
from publisher.vm.arch import Platform, is_native, platform_of
from publisher.vm.host import require

KVM = Path("/dev/kvm")
TIMEOUT = 5.0
"""Seconds that the probe's guest may take; a working KVM needs less than 0.2."""

_EXIT_VALUE = 0x2A
_EXIT_STATUS = _EXIT_VALUE << 1 | 1
"""QEMU's exit status after the guest wrote _EXIT_VALUE to isa-debug-exit."""

# The guest: 64 KiB of ROM without firmware. From the reset vector through
# protected mode to long mode, where an SSE2 addition proves that the processor
# itself executes: some hosts emulate KVM and stop at the first instruction
# that their emulator does not know.
_PROGRAM = bytes.fromhex(
    "fa"  # cli
    "2e660f0116bcff"  # lgdt cs:[0xffbc]
    "0f20c00c010f22c0"  # cr0 |= PE
    "66ea18ffffff0800"  # ljmp 0x08:0xffffff18
    "66b810008ed88ec08ed0"  # ds, es, ss = 0x10
    "31c0bf00100000b900100000f3ab"  # 16 KiB of page tables at 0x1000, zeroed
    "c7050010000003200000"  # PML4[0] = 0x2003
    "c7051820000003300000"  # PDPT[3] = 0x3003: the last GiB below 4 GiB
    "c7050020000003400000"  # PDPT[0] = 0x4003: the first GiB
    "c705f83f00008300e0ff"  # PD[511]: 2 MiB at 0xffe00000, this ROM
    "c7050040000083000000"  # PD[0]: 2 MiB at 0
    "b8200600000f22e0"  # cr4 = PAE | OSFXSR | OSXMMEXCPT
    "b8001000000f22d8"  # cr3 = 0x1000
    "b9800000c00f3280cc010f30"  # EFER |= LME
    "0f20c00d000000800f22c0"  # cr0 |= PG
    "ea90ffffff1800"  # ljmp 0x18:0xffffff90
    "b854000000"  # eax = 0x54
    "66480f6ec0660fd4c0660fd6042500500000"  # xmm0 = rax; paddq; store at 0x5000
    "488b042500500000"  # rax = [0x5000]
    "48d1e866baf400d1e8ee"  # out 0xf4, rax >> 2
    "f4ebfd"  # hlt
    "1f00c8ffffff660f1f440000"  # GDT pointer, padding
    "0000000000000000ffff0000009acf00ffff00000092cf00ffff0000009aaf00"  # GDT
)
_RESET_VECTOR = bytes.fromhex("e90dff")  # jmp 0xff00


def _rom() -> bytes:
    rom = bytearray(65536)
    rom[0xFF00 : 0xFF00 + len(_PROGRAM)] = _PROGRAM
    rom[0xFFF0 : 0xFFF0 + len(_RESET_VECTOR)] = _RESET_VECTOR
    return bytes(rom)


@dataclass(frozen=True, slots=True)
class Accelerator(Noun):
    """`arguments` are QEMU's; `reason` is one line for people."""

    kind: Literal["kvm", "tcg"]
    reason: str
    arguments: tuple[str, ...]


_KVM_ARGUMENTS = ("-accel", "kvm", "-cpu", "host")


def run_guest(platform: Platform, arguments: tuple[str, ...]) -> str:
    """Run the probe's guest; "" when it ran, otherwise why not, in a few words."""
    with tempfile.NamedTemporaryFile(prefix="probe-", suffix=".rom") as rom:
        rom.write(_rom())
        rom.flush()
        argv = [require(platform.qemu), "-nodefaults", "-no-user-config", "-machine", "q35"]
        argv += [*arguments, "-m", "16", "-display", "none", "-no-reboot", "-bios", rom.name]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            ended = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            said = _last_words(error.stderr or b"")
            return said or f"a guest of a few instructions did not end within {TIMEOUT:.0f} s"
    if ended.returncode == _EXIT_STATUS:
        return ""
    return _last_words(ended.stderr) or f"QEMU ended with status {ended.returncode}"


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    for line in lines:
        if "KVM internal error" in line or " error: " in line:
            return line.partition(" error: ")[2] or line
    useful = [line for line in lines if line and "warning:" not in line]
    return useful[0] if useful else ""


def _tcg(reason: str, cpus: int) -> Accelerator:
    threads = "multi" if cpus > 1 else "single"
    arguments = ("-accel", f"tcg,thread={threads},tb-size=256", "-cpu", "max")
    return Accelerator(
        "tcg", f"{reason}: guests run emulated (TCG, {cpus} CPUs), slowly", arguments
    )


def decide(arch: Arch, *, native: bool, device: str, guest: str, cpus: int) -> Accelerator:
    """The decision as a table. `device`: "", or why /dev/kvm can't be opened;
    `guest`: "", or why a guest does not run under KVM."""
    if not native:
        return _tcg(f"{arch} is not this machine's architecture", cpus)
    if device:
        return _tcg(device, cpus)
    if guest:
        return _tcg(f"{KVM} opens but cannot run a guest ({guest})", cpus)
    return Accelerator("kvm", "KVM runs guests here", _KVM_ARGUMENTS)


def _device() -> str:
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {KVM}"
    except OSError as error:
        return f"{KVM} can't be opened ({error.strerror})"
    return ""


def cpus() -> int:
    """Processors for a guest: those that this process may use, at most 4."""
    return max(1, min(4, len(os.sched_getaffinity(0))))


def probe(arch: Arch = "x86_64") -> Accelerator:
    """The accelerator for guests of that architecture. Takes at most TIMEOUT
    seconds, once per boot and QEMU version in this process."""
    qemu = require(platform_of(arch).qemu)
    version = subprocess.run(
        [qemu, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    ).stdout
    return _probe(arch, _boot_id(), version)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


@functools.lru_cache(maxsize=4)
def _probe(arch: Arch, boot: str, version: str) -> Accelerator:  # noqa: ARG001 the cache's key
    native = is_native(arch)
    device = _device() if native else ""
    guest = run_guest(platform_of(arch), _KVM_ARGUMENTS) if native and not device else ""
    return decide(arch, native=native, device=device, guest=guest, cpus=cpus())
