"""LVM2: physical volumes, and which of the logical ones lie on this disk as they are.

Layout: lvm2's lib/format_text/layout.h and lib/label/label.h. A linear volume is read
through its extents; what is striped, thin, a mirror or a snapshot has no reader.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.model import MIB, SECTOR, Extent
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.lvm_text import Section, parse
from publisher.proof.inspect.storage import Storage

_LABEL, _TYPE = b"LABELONE", b"LVM2 001"
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_AREA_HEADER = 512
_IGNORED = 1
_CRC_START = 0xF597A6CF
_AREAS_MOST = 16
_TEXT_MOST = 4 * MIB
_VOLUMES_MOST = 1_000
_SEGMENTS_MOST = 10_000
_MAPPER = re.compile(r"/dev/(?:mapper/|disk/by-id/dm-name-)((?:[^-/]|--)+)-((?:[^-/]|--)+)")
_DIRECTORY = re.compile(r"/dev/([^/]+)/([^/]+)")


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group as one of its physical volumes tells of it; `places` are the
    physical ones: name ▶ (UUID, byte of the first extent, number of extents)."""

    uuid: str
    name: str
    number: int
    """It counts the changes: the highest one is valid."""
    extent_size: int
    places: Mapping[str, tuple[str, int, int]]
    volumes: Mapping[str, Section]


@dataclass(frozen=True, slots=True)
class Member:
    """A physical volume. `group` is None where it has no metadata of one: it belongs to
    none, or others tell."""

    uuid: str
    room: Extent
    """Where it lies on the disk."""
    group: Group | None


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical volume; `parts` of the disk in its order, or why there are none."""

    name: str
    """As lvm names it: group/volume."""
    parts: tuple[Extent, ...] = ()
    fault: Unreadable | None = None


def named(device: str) -> str:
    """The logical volume, as group/volume, that a path in /dev may name; else ""."""
    found = _MAPPER.fullmatch(device)
    if found:
        return "/".join(part.replace("--", "-") for part in found.groups())
    found = _DIRECTORY.fullmatch(device)
    return f"{found[1]}/{found[2]}" if found and found[1] not in ("disk", "mapper") else ""


# -- one physical volume


def read_member(part: Storage, start: int, budget: Budget) -> Member:
    """What is at `start` of the disk. Raises Damaged."""
    head = part.read(0, min(part.size, 4 * SECTOR))
    label = next(
        (head[at : at + SECTOR] for at in range(0, len(head), SECTOR) if _is_label(head, at)), b""
    )
    if not label:
        raise Damaged("its label is damaged")
    at = int.from_bytes(label[20:24], "little")
    if not 32 <= at <= SECTOR - 40:
        raise Damaged("its label is damaged")
    uuid = label[at : at + 32].decode("ascii", "replace")
    locations = list(_locations(label[at + 40 :]))
    faults: list[Damaged] = []
    group = None
    for offset, size in locations:
        try:
            group = _newer(group, _area(part, offset, size, budget))
        except Exhausted:
            raise
        except Damaged as error:
            faults.append(error)
    if group is None and faults:
        raise faults[0]
    return Member(uuid, Extent(start, part.size), group)


def _is_label(head: bytes, at: int) -> bool:
    sector = head[at : at + SECTOR]
    if sector[:8] != _LABEL or sector[24:32] != _TYPE:
        return False
    return _crc(sector[20:]) == int.from_bytes(sector[16:20], "little")


def _locations(raw: bytes) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of the metadata areas. The list of data areas comes first, each
    ends with zeros."""
    lists = 0
    for number, (offset, size) in enumerate(struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16])):
        if number > _AREAS_MOST:
            break
        if not offset:
            lists += 1
            if lists == 2:
                return
        elif lists:
            yield offset, size
    raise Damaged("its label has no end")


def _area(part: Storage, offset: int, size: int, budget: Budget) -> Group | None:
    raw = part.read(offset, _AREA_HEADER)
    start, length = struct.unpack_from("<QQ", raw, 24)
    if (
        raw[4:20] != _AREA_MAGIC
        or _crc(raw[4:]) != int.from_bytes(raw[:4], "little")
        or (start, length) != (offset, size)
    ):
        raise Damaged("the header of its metadata is damaged")
    at, most, check, flags = struct.unpack_from("<QQII", raw, 40)
    if not at or flags & _IGNORED:
        return None
    if not _AREA_HEADER <= at < size or not 0 < most <= min(size - _AREA_HEADER, _TEXT_MOST):
        raise Damaged(f"its metadata have {most} bytes at {at}")
    # the area is a ring behind its header
    first = min(most, size - at)
    text = part.read(offset + at, first) + part.read(offset + _AREA_HEADER, most - first)
    if _crc(text) != check:
        raise Damaged("the checksum of its metadata is wrong")
    return _group(parse(text.rstrip(b"\0").decode(errors="replace"), budget))


def _crc(data: bytes) -> int:
    return zlib.crc32(data, _CRC_START ^ 0xFFFF_FFFF) ^ 0xFFFF_FFFF


def _group(top: Section) -> Group:
    found = [(name, value) for name, value in top.items() if isinstance(value, dict)]
    if len(found) != 1:
        raise Damaged(f"its metadata tell of {len(found)} volume groups")
    [(name, section)] = found
    extent = _number(section, "extent_size") * SECTOR
    if not extent:
        raise Damaged("its extents have 0 bytes")
    places = {
        key: (
            _text(place, "id").replace("-", ""),
            _number(place, "pe_start") * SECTOR,
            _number(place, "pe_count"),
        )
        for key, place in _sections(section, "physical_volumes").items()
    }
    volumes = _sections(section, "logical_volumes")
    if len(volumes) > _VOLUMES_MOST:
        raise Damaged(f"it has more than {_VOLUMES_MOST} logical volumes")
    return Group(_text(section, "id"), name, _number(section, "seqno"), extent, places, volumes)


def _newer(one: Group | None, other: Group | None) -> Group | None:
    if one is None or other is None:
        return one or other
    return one if one.number >= other.number else other


# -- logical volumes


def logical_volumes(members: Sequence[Member], budget: Budget) -> Iterator[Logical]:
    """Those that an administrator sees, of all groups on the disk."""
    groups: dict[str, Group] = {}
    rooms: dict[str, list[Extent]] = {}
    for member in members:
        rooms.setdefault(member.uuid, []).append(member.room)
        group = member.group
        if group is not None:
            groups[group.uuid] = _newer(groups.get(group.uuid), group) or group
    for group in groups.values():
        yield from _apart(_of_group(group, rooms, budget))


def _of_group(
    group: Group, rooms: Mapping[str, Sequence[Extent]], budget: Budget
) -> Iterator[Logical]:
    stores = set(_snapshot_stores(group))
    for name, section in group.volumes.items():
        whole = f"{group.name}/{name}"
        try:
            if "VISIBLE" not in _list(section, "status"):
                continue
            if name in stores:
                raise _no_reader("snapshot")
            yield Logical(whole, tuple(_parts(group, section, rooms, budget)))
        except Exhausted:
            raise
        except Unreadable as error:
            yield Logical(whole, fault=error)


def _parts(
    group: Group, section: Section, rooms: Mapping[str, Sequence[Extent]], budget: Budget
) -> Iterator[Extent]:
    segments = [value for value in section.values() if isinstance(value, dict)]
    if not 0 < len(segments) <= _SEGMENTS_MOST:
        raise Damaged(f"it has {len(segments)} segments")
    position = 0
    for segment in sorted(segments, key=lambda segment: _number(segment, "start_extent")):
        budget.charge()
        kind, stripes = _text(segment, "type"), _list(segment, "stripes")
        if kind not in ("striped", "linear") or len(stripes) > 2:
            raise _no_reader(kind)
        count = _number(segment, "extent_count")
        if _number(segment, "start_extent") != position or not count or len(stripes) != 2:
            raise Damaged("its segments are not one behind the other")
        position += count
        name, first = stripes
        if not isinstance(name, str) or not isinstance(first, int) or name not in group.places:
            raise Damaged(f"it is on a physical volume {name} that its group does not have")
        uuid, start, extents = group.places[name]
        found = rooms.get(uuid, ())
        if len(found) != 1:
            raise _elsewhere(uuid, len(found))
        part = Extent(
            found[0].offset + start + first * group.extent_size, count * group.extent_size
        )
        if first + count > extents or part.end > found[0].end:
            raise Damaged("it reaches beyond its physical volume")
        yield part


def _no_reader(kind: str) -> Unreadable:
    return Unreadable(f"there is no reader for LVM volumes of kind {kind}")


def _elsewhere(uuid: str, count: int) -> Unreadable:
    if count:
        return Damaged(f"the physical volume {uuid} is on this disk {count} times")
    return Unreadable(f"a part of it is on another disk (physical volume {uuid})")


def _snapshot_stores(group: Group) -> Iterator[object]:
    """The volumes that hold what a snapshot keeps: linear, and no file systems."""
    for section in group.volumes.values():
        for segment in section.values():
            if isinstance(segment, dict) and segment.get("type") == "snapshot":
                yield segment.get("cow_store", segment.get("merging_store"))


def _apart(volumes: Iterable[Logical]) -> Iterator[Logical]:
    """The volumes; those that share bytes are damaged."""
    found = list(volumes)
    parts = sorted(
        ((part, volume.name) for volume in found for part in volume.parts),
        key=lambda item: item[0].offset,
    )
    shared: set[str] = set()
    end, owner = 0, ""
    for part, name in parts:
        if part.offset < end:
            shared |= {name, owner}
        if part.end > end:
            end, owner = part.end, name
    for volume in found:
        fault = Damaged("it shares extents with another logical volume")
        yield Logical(volume.name, fault=fault) if volume.name in shared else volume


# -- values of the metadata


def _number(section: Section, key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int):
        raise Damaged(f"its metadata have no number {key}")
    return value


def _text(section: Section, key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str):
        raise Damaged(f"its metadata have no text {key}")
    return value


def _list(section: Section, key: str) -> list[int | str]:
    value = section.get(key, [])
    if not isinstance(value, list):
        raise Damaged(f"its metadata have no list {key}")
    return value


def _sections(section: Section, key: str) -> dict[str, Section]:
    value = section.get(key, {})
    if not isinstance(value, dict):
        raise Damaged(f"its metadata have no section {key}")
    return {name: inner for name, inner in value.items() if isinstance(inner, dict)}
