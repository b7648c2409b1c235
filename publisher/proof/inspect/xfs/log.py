"""Whether XFS's log has anything to replay.

The log is a ring of sectors, each of which begins with the number of its cycle. It is
clean when the newest record is the one that an unmount writes.
"""

from __future__ import annotations

import struct

from publisher.model import SECTOR
from publisher.proof.inspect.storage import Storage

_MAGIC = b"\xfe\xed\xba\xbe"
_UNMOUNT = 0x20
_RECORD_MOST = 512 + 8
"""Sectors of the largest record (256 KiB) with its headers."""
_HEADER_ROOM = 32 * 1024


def is_clean(log: Storage) -> bool:
    count = log.size // SECTOR
    if count < 2:
        return False
    first, last = _cycle(log, 0), _cycle(log, count - 1)
    if not first:
        return True  # it was never written
    head = count
    if first != last:
        # all before the head is of the first sector's cycle
        low, head = 0, count - 1
        while head - low > 1:
            middle = (low + head) // 2
            if _cycle(log, middle) == first:
                low = middle
            else:
                head = middle
    return _ends_with_unmount(log, head, count)


def _cycle(log: Storage, sector: int) -> int:
    raw = log.read(sector * SECTOR, 8)
    at = 4 if raw[:4] == _MAGIC else 0
    return int.from_bytes(raw[at : at + 4], "big")


def _ends_with_unmount(log: Storage, head: int, count: int) -> bool:
    length = min(_RECORD_MOST, count)
    start = max(0, head - length)
    raw = log.read(start * SECTOR, (head - start) * SECTOR)
    if head < length:  # the end of the ring comes before its start
        raw = log.read((count - length + head) * SECTOR, (length - head) * SECTOR) + raw
    for at in range(len(raw) - 2 * SECTOR, -1, -SECTOR):
        if raw[at : at + 4] != _MAGIC:
            continue
        version, length = struct.unpack_from(">II", raw, at + 8)
        operations = struct.unpack_from(">I", raw, at + 40)[0]
        room = struct.unpack_from(">I", raw, at + 320)[0] if version & 2 else 0
        headers = max(1, -(-room // _HEADER_ROOM))
        data = at + headers * SECTOR
        ends = data + -(-length // SECTOR) * SECTOR == len(raw)
        return length > 0 and ends and operations == 1 and bool(raw[data + 9] & _UNMOUNT)
    return False
