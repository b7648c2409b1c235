"""LZO1X as Btrfs writes it (https://docs.kernel.org/staging/lzo.html)."""

from __future__ import annotations

from publisher.proof.inspect.budget import Damaged

_LENGTH = 4


def decompress(data: bytes, most: int, sector: int) -> bytes:
    """At most `most` bytes of what an extent holds: its whole length, then pieces of up
    to a sector each, with their lengths, which no end of a sector splits."""
    end = int.from_bytes(data[:_LENGTH], "little")
    if not _LENGTH <= end <= len(data):
        raise Damaged("a file that LZO packed is cut short")
    out, at = bytearray(), _LENGTH
    while at + _LENGTH <= end and len(out) < most:
        length = int.from_bytes(data[at : at + _LENGTH], "little")
        at += _LENGTH
        if not length or at + length > end:
            raise Damaged("a file that LZO packed is cut short")
        out += _piece(data[at : at + length], sector)
        at += length
        left = -at % sector
        at += left if left < _LENGTH else 0
    return bytes(out[:most])


def _piece(data: bytes, most: int) -> bytearray:
    try:
        return _instructions(data, most)
    except IndexError as error:
        raise Damaged("what LZO packed ends too early") from error


def _instructions(data: bytes, most: int) -> bytearray:
    out = bytearray()
    # how many literals the instruction before has brought; 4 stands for more
    at, before = 0, 0
    if data[0] > 17:
        at, before = 1, min(data[0] - 17, 4)
        at = _literals(data, at, data[0] - 17, out, most)
    while True:
        code, at = data[at], at + 1
        if code < 16 and not before:
            length, at = _long(data, at, code, 15)
            at, before = _literals(data, at, length + 3, out, most), 4
            continue
        if code < 16:
            low = code
            length, distance = 2, (data[at] << 2) + (code >> 2) + 1
            if before == 4:
                length, distance = 3, distance + 2048
            at += 1
        elif code < 64:
            mask, base = (7, 16384 + ((code & 8) << 11)) if code < 32 else (31, 1)
            length, at = _long(data, at, code & mask, mask)
            low = data[at]
            length, distance = length + 2, base + (low >> 2 | data[at + 1] << 6)
            at += 2
            if distance == 16384 and code < 32:
                return out
        else:
            low = code
            length = (code >> 5) + 1 if code >= 128 else 3 + (code >> 5 & 1)
            distance = (data[at] << 3) + (code >> 2 & 7) + 1
            at += 1
        if distance > len(out) or len(out) + length > most:
            raise Damaged("what LZO packed leads outside of itself")
        source = out[-distance:]
        out += (source * (length // distance + 1))[:length]
        before = low & 3
        at = _literals(data, at, before, out, most)


def _long(data: bytes, at: int, length: int, base: int) -> tuple[int, int]:
    """A length whose field is zero goes on behind it."""
    if length:
        return length, at
    while data[at] == 0:
        at, base = at + 1, base + 255
    return base + data[at], at + 1


def _literals(data: bytes, at: int, count: int, out: bytearray, most: int) -> int:
    if at + count > len(data) or len(out) + count > most:
        raise Damaged("what LZO packed leads outside of itself")
    out += data[at : at + count]
    return at + count
