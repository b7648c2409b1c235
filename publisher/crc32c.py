"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), with which formats of disks and file
systems guard their own data.

A loop over bytes takes more than a millisecond for a block of metadata. A CRC is
linear, so the first half of the data is folded onto the second by operations on whole
byte strings: some twenty times as fast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

_POLYNOMIAL = 0x82F63B78
_SHORT = 64


def crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    if len(data) > _SHORT:
        # a state acts as if it was added to the next four bytes
        data = (int.from_bytes(data, "little") ^ state).to_bytes(len(data), "little")
        state = 0
    while len(data) > _SHORT:
        data = _fold(data)
    table = _table()
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def _fold(data: bytes) -> bytes:
    """About half as many bytes with the same checksum, if that starts with zero: what
    a byte leaves behind `distance` bytes on is added there."""
    power = (len(data) - 4).bit_length() - 1
    distance = 1 << power
    first = len(data) - distance - 3
    head = data[:first]
    rest = int.from_bytes(data[first:], "little")
    for number, plane in enumerate(_planes(power)):
        shift = 8 * (distance - first + number)
        rest ^= int.from_bytes(head.translate(plane), "little") << shift
    return rest.to_bytes(distance + 3, "little")


@functools.cache
def _table() -> Sequence[int]:
    """What each byte leaves in the state right behind it."""
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


@functools.cache
def _planes(power: int) -> Sequence[bytes]:
    """The four bytes that each byte leaves in the state 2^power bytes on."""
    step = _step(power)
    states = [_apply(step, value) for value in range(256)]
    return [bytes(state >> shift & 0xFF for state in states) for shift in (0, 8, 16, 24)]


@functools.cache
def _step(power: int) -> Sequence[int]:
    """What becomes of each bit of the state while 2^power zeros pass."""
    if power == 0:
        return [1 << bit >> 8 ^ _table()[(1 << bit) & 0xFF] for bit in range(32)]
    half = _step(power - 1)
    return [_apply(half, state) for state in half]


def _apply(step: Sequence[int], state: int) -> int:
    found = 0
    while state:
        lowest = state & -state
        found ^= step[lowest.bit_length() - 1]
        state ^= lowest
    return found
