"""Which accelerator is chosen, and that only a guest that really ran proves KVM."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from publisher.model import GIB
from publisher.vm import accelerator, host
from publisher.vm.accelerator import decide, run_guest
from publisher.vm.arch import PLATFORMS, Platform
from publisher.vm.probe import GUESTS

X86 = PLATFORMS["x86_64"]
ARM = PLATFORMS["aarch64"]


def test_an_emulated_processor_is_never_the_only_one_that_there_can_be() -> None:
    emulated = decide("x86_64", native=False, device="", guest="", cpus=2)
    assert emulated.processors(1) == "cpus=1,maxcpus=2"
    assert emulated.processors(2) == "cpus=2"
    real = decide("x86_64", native=True, device="", guest="", cpus=2)
    assert real.processors(1) == "cpus=1"


# MFENCE; LOCK ADD BYTE [1000h], 1; then out of QEMU by its debug port
_ORDERED = bytes.fromhex("0faef0 f08006001001 b001e6f4 f4")


@pytest.mark.parametrize(("alone", "kept"), [("", True), ("cpus=1", False)])
def test_qemu_keeps_the_order_of_memory_for_devices(tmp_path: Path, alone: str, kept: bool) -> None:
    """And would not with one processor and no place for another."""
    if host.which(X86.qemu) is None:
        pytest.skip(f"{X86.qemu} is missing")
    rom = bytearray(b"\xf4" * 0x10000)
    rom[: len(_ORDERED)] = _ORDERED
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    (tmp_path / "rom").write_bytes(rom)
    emulated = decide("x86_64", native=False, device="", guest="", cpus=2)
    argv = [X86.qemu, "-nodefaults", "-no-user-config", *emulated.arguments, "-m", "16"]
    argv += ["-smp", alone or emulated.processors(1), "-display", "none", "-no-reboot"]
    argv += ["-bios", str(tmp_path / "rom"), "-device", "isa-debug-exit,iobase=0xf4"]
    argv += ["-d", "op", "-D", str(tmp_path / "log")]
    ended = subprocess.run(argv, capture_output=True, timeout=20, check=False)
    assert ended.returncode == 3, ended.stderr
    translated = (tmp_path / "log").read_text()
    assert ("atomic_add" in translated) is kept
    if kept:
        assert re.search(r"^ mb ", translated, re.MULTILINE)


@pytest.mark.parametrize(
    ("native", "device", "guest", "kind", "words"),
    [
        (True, "", "", "kvm", "KVM runs guests here"),
        (True, "", "KVM internal error. Suberror: 1", "tcg", "opens but cannot run a guest (KVM"),
        (True, "there is no /dev/kvm", "", "tcg", "there is no /dev/kvm"),
        (True, "/dev/kvm can't be opened (Permission denied)", "", "tcg", "Permission denied"),
        (False, "", "", "tcg", "not this machine's architecture"),
    ],
)
def test_the_decision(native: bool, device: str, guest: str, kind: str, words: str) -> None:
    chosen = decide("x86_64", native=native, device=device, guest=guest, cpus=2)
    assert chosen.kind == kind
    assert words in chosen.reason
    assert "\n" not in chosen.reason


@pytest.mark.parametrize("number", [1, 2])
def test_emulation_uses_all_processors(number: int) -> None:
    one = decide("x86_64", native=True, device="none", guest="", cpus=number)
    assert "tcg,thread=multi" in one.arguments
    cpu = one.arguments[-1].split(",")
    assert cpu[0] == "max"
    assert {"-la57", "-monitor", "vendor=GenuineIntel", "model=28"} < set(cpu)
    arm = decide("aarch64", native=False, device="", guest="", cpus=1)
    assert "neoverse-n1" in arm.arguments


def test_the_room_for_translated_code_is_no_part_of_what_a_guest_runs_on() -> None:
    """Checkpoints are of the same machine, however much memory was free."""
    emulated = decide("x86_64", native=False, device="", guest="", cpus=2)
    small, large = emulated.launch(512), emulated.launch(1024)
    assert "tcg,thread=multi,tb-size=1024" in large
    assert small != large
    assert not any("tb-size" in word for word in emulated.arguments)
    real = decide("x86_64", native=True, device="", guest="", cpus=2)
    assert real.launch(1024) == list(real.arguments)


@pytest.mark.parametrize(
    ("gibibytes", "processors", "room"), [(24, 2, 1024), (5, 2, 1024), (4, 2, 512), (16, 8, 512)]
)
def test_code_has_all_the_room_where_guests_on_all_processors_may_take_it(
    gibibytes: int, processors: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "free_memory", lambda: gibibytes * GIB)
    monkeypatch.setattr(accelerator, "processors", lambda: processors)
    assert accelerator.code_room(crowded=False) == room
    assert accelerator.code_room(crowded=True) == 512


def test_the_guest_starts_at_the_reset_vector_and_ends_in_its_own_code() -> None:
    rom = GUESTS["x86_64"].rom
    assert len(rom) == 65536
    opcode, distance = struct.unpack_from("<Bh", rom, 0xFFF0)
    assert opcode == 0xE9
    assert 0xFFF3 + distance == 0xFF00
    assert rom[0xFF00] == 0xFA
    # ljmp 0x18:0xffffff90 enters long mode at the SSE instructions
    assert bytes.fromhex("ea90ffffff1800") + bytes.fromhex("b854000000") in rom
    assert rom[0xFF90:].startswith(bytes.fromhex("b85400000066480f6ec0"))


def _qemu(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(accelerator, "require", lambda _: str(path))


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("exit 85", ""),
        ("exit 0", "QEMU ended with status 0"),
        ("echo 'qemu: error: failed to set MSR 0x10a to 0x69' >&2; exit 134", "failed to set MSR"),
        ("echo 'qemu: warning: no CPUID.01H' >&2; exit 1", "QEMU ended with status 1"),
        ("echo 'Could not access KVM kernel module' >&2; exit 1", "Could not access KVM"),
    ],
)
def test_only_the_guests_own_exit_value_proves_that_it_ran(
    script: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _qemu(tmp_path, monkeypatch, script)
    assert run_guest(X86, ("-accel", "kvm")).startswith(verdict)
    assert bool(run_guest(X86, ("-accel", "kvm"))) == bool(verdict)


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("printf T", ""),
        ("printf T; exit 1", "QEMU ended with status 1"),
        ("exit 0", "QEMU ended with status 0"),
        ("echo 'qemu: error: kvm_init_vcpu failed' >&2; exit 1", "kvm_init_vcpu failed"),
    ],
)
def test_a_guest_without_an_exit_port_writes_what_it_reckoned(
    script: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _qemu(tmp_path, monkeypatch, script)
    assert run_guest(ARM, ("-accel", "kvm")) == verdict


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda row: row.arch)
def test_the_probes_guest_runs_where_guests_run(platform: Platform) -> None:
    if host.which(platform.qemu) is None:
        pytest.skip(f"{platform.qemu} is missing")
    emulated = decide(platform.arch, native=False, device="", guest="", cpus=1)
    assert run_guest(platform, emulated.arguments) == ""


def test_a_guest_that_hangs_is_given_up_and_its_last_words_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "TIMEOUT", 0.3)
    _qemu(tmp_path, monkeypatch, "exec sleep 20")
    assert "did not end within" in run_guest(X86, ())
    _qemu(tmp_path, monkeypatch, "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 20")
    assert run_guest(X86, ()) == "KVM internal error. Suberror: 1"


def test_a_processor_without_fast_copies_has_no_fast_short_ones() -> None:
    """Linux takes a processor with FSRM for one with ERMS: its memmove never ends without."""
    off = [word for word in X86.cpu.split(",") if word.startswith("-")]
    assert ("-erms" in off) is ("-fsrm" in off)
