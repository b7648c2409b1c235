"""GRUB for BIOS on a GPT disk, without grub-install: boot.img in the MBR points
to core.img in the BIOS boot partition (GRUB manual, "BIOS installation").

Field offsets: grub-core/boot/i386/pc/boot.S and diskboot.S, include/grub/i386/pc/boot.h.
"""

from __future__ import annotations

import struct

from publisher.errors import BuildError
from publisher.model import SECTOR

_BOOT_CODE = 440
_KERNEL_SECTOR = 0x5C
_DRIVE_CHECK = 0x66
_BLOCKLIST = SECTOR - 12
_CORE_SEGMENT = 0x820


def boot_sector(boot_img: bytes, mbr: bytes, core_sector: int) -> bytes:
    """The MBR with boot.img's code, keeping the partition table of `mbr`."""
    if len(boot_img) != SECTOR or boot_img[-2:] != b"\x55\xaa":
        raise BuildError("GRUB's boot.img is not a boot sector")
    code = bytearray(boot_img)
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_sector)
    # hard disks: trust no BIOS that passes a floppy's drive number (two NOPs)
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    return bytes(code[:_BOOT_CODE]) + mbr[_BOOT_CODE:]


def core_image(core_img: bytes, core_sector: int, room: int) -> bytes:
    """core.img, whose first sector loads the rest from the sectors behind it."""
    if len(core_img) > room:
        raise BuildError(f"GRUB's core.img ({len(core_img)} bytes) does not fit in {room} bytes")
    core = bytearray(core_img + bytes(-len(core_img) % SECTOR))
    sectors = len(core) // SECTOR - 1
    struct.pack_into("<QHH", core, _BLOCKLIST, core_sector + 1, sectors, _CORE_SEGMENT)
    return bytes(core)
