"""Which accelerator runs guests here: found out by running a guest, not by opening /dev/kvm."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from publisher.model import GIB, Arch, Noun
from publisher.vm.arch import Platform, is_native, platform_of
from publisher.vm.host import free_memory, processors, require
from publisher.vm.probe import GUESTS

KVM = Path("/dev/kvm")
TIMEOUT = 5.0
"""Seconds that the probe's guest may take; a working KVM needs less than 0.2."""
EMULATED = 5 * GIB // 2
"""Bytes of an emulated guest of 1 GiB that has all the room for code that it can use."""


@dataclass(frozen=True, slots=True)
class Accelerator(Noun):
    """`arguments` are QEMU's; `reason` is one line for people."""

    kind: Literal["kvm", "tcg"]
    reason: str
    arguments: tuple[str, ...]

    def launch(self, code: int) -> list[str]:
        """The arguments for a guest whose translated code may take `code` MiB; what it
        runs on is the same with any number."""
        room = f",tb-size={code}"
        return [word + room if word.startswith("tcg,") else word for word in self.arguments]

    def processors(self, number: int) -> str:
        """The value of -smp for a guest with so many. QEMU takes one that can never have two
        for a world without threads, and translates its memory barriers to nothing, or
        locked instructions to plain ones, although devices serve it from threads of their
        own: a disk or network card can miss a request, for which the guest waits forever
        (mended for barriers alone by QEMU's commit c914d46d0a64, in 8.1). An emulated one
        gets a place for another processor, which nobody fills."""
        alone = number == 1 and self.kind == "tcg"
        return "cpus=1,maxcpus=2" if alone else f"cpus={number}"


_KVM_ARGUMENTS = ("-accel", "kvm", "-cpu", "host")


def run_guest(platform: Platform, arguments: tuple[str, ...]) -> str:
    """Run the probe's guest; "" when it ran, otherwise why not, in a few words."""
    guest = GUESTS[platform.arch]
    with tempfile.NamedTemporaryFile(prefix="probe-", suffix=".rom") as rom:
        rom.write(guest.rom)
        rom.flush()
        argv = [require(platform.qemu), "-nodefaults", "-no-user-config", *guest.arguments]
        argv += [*arguments, "-m", "16", "-display", "none", "-no-reboot", "-bios", rom.name]
        try:
            ended = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            said = _last_words(error.stderr or b"")
            return said or f"a guest of a few instructions did not end within {TIMEOUT:.0f} s"
    if (ended.returncode, ended.stdout) == (guest.status, guest.output):
        return ""
    return _last_words(ended.stderr) or f"QEMU ended with status {ended.returncode}"


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    for line in lines:
        if "KVM internal error" in line or " error: " in line:
            return line.partition(" error: ")[2] or line
    useful = [line for line in lines if line and "warning:" not in line]
    return useful[0] if useful else ""


def _tcg(arch: Arch, reason: str, cpus: int) -> Accelerator:
    # also for one processor: see Accelerator.processors
    arguments = ("-accel", "tcg,thread=multi", "-cpu", platform_of(arch).cpu)
    return Accelerator(
        "tcg", f"{reason}: guests run emulated (TCG, {cpus} CPUs), slowly", arguments
    )


def decide(arch: Arch, *, native: bool, device: str, guest: str, cpus: int) -> Accelerator:
    """The decision as a table. `device`: "", or why /dev/kvm can't be opened;
    `guest`: "", or why a guest does not run under KVM."""
    if not native:
        return _tcg(arch, f"{arch} is not this machine's architecture", cpus)
    if device:
        return _tcg(arch, device, cpus)
    if guest:
        return _tcg(arch, f"{KVM} opens but cannot run a guest ({guest})", cpus)
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
    return max(1, min(4, processors()))


def code_room(*, crowded: bool) -> int:
    """MiB for the translated code of an emulated guest that starts now. QEMU drops all of it
    whenever the room is full, and translates anew: a first boot of Debian 13 makes 730 MiB,
    and takes a twelfth longer with half of the room, which is what it gets where there is
    not memory for such a guest on every processor, or may be many more guests (`crowded`)."""
    return 512 if crowded or free_memory() < processors() * EMULATED else 1024


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
