"""From the addresses of Btrfs (logical) to those of the device: the chunks."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inspect.storage import Storage

CHUNK_TREE, CHUNK_ITEM = 256, 228
_HEAD, _STRIPE = 48, 32
_CHUNKS_MOST = 200_000
"""Those of file data have 1 GiB each."""
_DUP = 0x20
_PROFILES = {
    0x8: "RAID0",
    0x10: "RAID1",
    0x40: "RAID10",
    0x80: "RAID5",
    0x100: "RAID6",
    0x200: "RAID1C3",
    0x400: "RAID1C4",
}


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    length: int
    copies: tuple[int, ...]
    """Where it is on the device; none, if it lies on several ones."""
    profile: str


class Chunks:
    """All chunks of a file system whose one device has the number `device`."""

    def __init__(self, storage: Storage, device: int) -> None:
        self._storage = storage
        self._device = device
        self._starts: list[int] = []
        self._chunks: list[_Chunk] = []

    def add(self, start: int, item: bytes) -> int:
        """Note a chunk; how many bytes of `item` it took."""
        if len(item) < _HEAD:
            raise Damaged("a chunk is cut short")
        length, _, _, kind = struct.unpack_from("<4Q", item)
        stripes: int = struct.unpack_from("<H", item, 44)[0]
        end = _HEAD + stripes * _STRIPE
        if not stripes or len(item) < end or not length or start + length >= 1 << 64:
            raise Damaged("a chunk is damaged")
        profile = next((name for bit, name in _PROFILES.items() if kind & bit), "")
        places = [struct.unpack_from("<QQ", item, at) for at in range(_HEAD, end, _STRIPE)]
        copies: tuple[int, ...] = ()
        # RAID0 of one device is that device
        if (not profile or (profile == "RAID0" and stripes == 1)) and (
            stripes == (2 if kind & _DUP else 1)
        ):
            if any(device != self._device for device, _ in places):
                raise Unreadable(f"it needs a device that is not here (number {places[0][0]})")
            copies = tuple(offset for _, offset in places)
        at = bisect.bisect_left(self._starts, start)
        for near in self._chunks[max(0, at - 1) : at + 1]:
            if near.start == start and near.length == length:
                return end  # of the superblock's list, which the tree repeats
            if near.start < start + length and start < near.start + near.length:
                raise Damaged("its chunks overlap")
        if len(self._chunks) == _CHUNKS_MOST:
            raise Damaged(f"it has more than {_CHUNKS_MOST} chunks")
        self._starts.insert(at, start)
        self._chunks.insert(at, _Chunk(start, length, copies, profile))
        return end

    def add_all(self, listed: bytes) -> None:
        """Those of the superblock: keys with chunks."""
        while listed:
            if len(listed) < 17:
                raise Damaged("its list of system chunks is damaged")
            owner, kind, start = struct.unpack_from("<QBQ", listed)
            if (owner, kind) != (CHUNK_TREE, CHUNK_ITEM):
                raise Damaged("its list of system chunks is damaged")
            listed = listed[17 + self.add(start, listed[17:]) :]

    def copies(self, logical: int) -> int:
        """How often the bytes there are on the device."""
        return len(self._at(logical).copies)

    def places(self, logical: int, length: int, copy: int = 0) -> Iterator[Extent]:
        """Where the bytes are on the device, in order."""
        while length > 0:
            chunk = self._at(logical)
            within = logical - chunk.start
            piece = min(length, chunk.length - within)
            yield Extent(chunk.copies[copy % len(chunk.copies)] + within, piece)
            logical, length = logical + piece, length - piece

    def read(self, logical: int, length: int, copy: int = 0) -> bytes:
        return b"".join(
            self._storage.read(place.offset + at, min(MIB, place.length - at))
            for place in self.places(logical, length, copy)
            for at in range(0, place.length, MIB)
        )

    def first_copies(self, offsets: Iterable[int]) -> Mapping[int, int]:
        """Bytes of the device ▶ the same ones in the first copy of what is there twice."""
        seconds = sorted(
            (second, chunk.length, chunk.copies[0])
            for chunk in self._chunks
            for second in chunk.copies[1:]
        )
        found: dict[int, int] = {}
        for offset in offsets:
            found[offset] = offset
            number = bisect.bisect_left(seconds, (offset + 1,)) - 1
            if number >= 0:
                second, length, first = seconds[number]
                if offset < second + length:
                    found[offset] = first + offset - second
        return found

    def _at(self, logical: int) -> _Chunk:
        number = bisect.bisect_right(self._starts, logical) - 1
        if number >= 0:
            chunk = self._chunks[number]
            if logical < chunk.start + chunk.length:
                if not chunk.copies:
                    name = chunk.profile or "an unknown number of"
                    raise Unreadable(f"it keeps data as {name} over several devices")
                return chunk
        raise Damaged(f"no chunk holds byte {logical}")
