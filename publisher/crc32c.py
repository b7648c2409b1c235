"""CRC-32C (Castagnoli; RFC 3720, B.4), for the few KiB of a format's own headers."""

from __future__ import annotations

import functools
import sys
from array import array

_POLYNOMIAL = 0x82F6_3B78


def crc32c(data: bytes) -> int:
    low, high = _tables()
    rest = len(data) % 4
    words = array("I", data[: len(data) - rest])
    if sys.byteorder == "big":
        words.byteswap()
    check = 0xFFFF_FFFF
    for word in words:
        check ^= word
        check = low[check & 0xFFFF] ^ high[check >> 16]
    for byte in data[len(data) - rest :]:
        check = _shifted(check ^ byte, 8)
    return check ^ 0xFFFF_FFFF


@functools.cache
def _tables() -> tuple[array[int], array[int]]:
    """What the lower and the upper half of a word leave behind: two look-ups for four
    bytes, where tables for bytes would take four."""
    byte = [_shifted(value, 8) for value in range(256)]
    half = [byte[value & 0xFF] ^ value >> 8 for value in range(1 << 16)]
    high = array("I", (byte[value & 0xFF] ^ value >> 8 for value in half))
    low = array("I", (high[value & 0xFFFF] ^ value >> 16 for value in high))
    return low, high


def _shifted(check: int, bits: int) -> int:
    for _ in range(bits):
        check = (check >> 1) ^ (_POLYNOMIAL if check & 1 else 0)
    return check
