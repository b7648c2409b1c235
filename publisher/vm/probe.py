"""Guests of a few instructions, without firmware: whoever runs one to its end can run guests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from publisher.model import Arch


@dataclass(frozen=True, slots=True)
class Guest:
    """`rom` goes where the processor starts; `arguments` are QEMU's. QEMU's exit
    status and standard output prove that the guest came to its end."""

    rom: bytes
    arguments: tuple[str, ...]
    status: int
    output: bytes = b""


_EXIT_VALUE = 0x2A
_EXIT_STATUS = _EXIT_VALUE << 1 | 1
"""QEMU's exit status after the guest wrote _EXIT_VALUE to isa-debug-exit."""

# 64 KiB of ROM. From the reset vector through protected mode to long mode,
# where an SSE2 addition proves that the processor itself executes: some hosts
# emulate KVM and stop at the first instruction that their emulator does not know.
_X86 = bytes.fromhex(
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


def _x86_rom() -> bytes:
    rom = bytearray(65536)
    rom[0xFF00 : 0xFF00 + len(_X86)] = _X86
    rom[0xFFF0 : 0xFFF0 + len(_RESET_VECTOR)] = _RESET_VECTOR
    return bytes(rom)


# A SIMD addition, whose result is written to the UART; then PSCI's SYSTEM_OFF
# (Arm DEN0022). Addresses: QEMU's hw/arm/virt.c.
_A64 = (
    0xD2A00600,  # mov x0, 3 << 20
    0xD5181040,  # msr cpacr_el1, x0: SIMD instructions do not trap
    0xD5033FDF,  # isb
    0x52800541,  # mov w1, 0x2a
    0x9E670020,  # fmov d0, x1
    0x5EE08400,  # add d0, d0, d0
    0x9E660002,  # fmov x2, d0
    0xD2A12003,  # mov x3, 0x09000000: PL011
    0x52806024,  # mov w4, 0x301
    0xB9003064,  # str w4, [x3, 0x30]: UARTCR = enable, transmit, receive
    0xB9000062,  # str w2, [x3]
    0x52800100,  # mov w0, 8
    0x72B08000,  # movk w0, 0x8400, lsl 16
    0xD4000002,  # hvc 0
    0x14000000,  # b .
)

GUESTS: Mapping[Arch, Guest] = {
    "x86_64": Guest(
        _x86_rom(),
        ("-machine", "q35", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        _EXIT_STATUS,
    ),
    "aarch64": Guest(
        struct.pack(f"<{len(_A64)}I", *_A64),
        ("-machine", "virt,gic-version=max", "-serial", "stdio"),
        0,
        bytes([2 * _EXIT_VALUE]),
    ),
}
