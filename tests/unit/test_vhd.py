"""The footer of a fixed VHD, against the specification's layout."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from publisher.disks import raw, vhd
from publisher.model import MIB


def test_the_footer_has_the_fields_of_the_specification() -> None:
    footer = vhd.footer(64 * MIB, "digest")
    assert len(footer) == 512
    assert footer[:8] == b"conectix"
    features, version, offset = struct.unpack(">IIQ", footer[8:24])
    assert (features, version, offset) == (2, 0x10000, 0xFFFF_FFFF_FFFF_FFFF)
    original, current = struct.unpack(">QQ", footer[40:56])
    assert (original, current) == (64 * MIB, 64 * MIB)
    assert struct.unpack(">I", footer[60:64]) == (2,)
    assert footer[85:] == bytes(427)


def test_the_creator_is_one_whose_current_size_readers_trust() -> None:
    """QEMU takes the rounded geometry instead for creators that it does not know."""
    assert vhd.footer(MIB, "x")[28:32] == b"win "


def test_the_checksum_is_the_complement_of_all_other_bytes() -> None:
    footer = vhd.footer(64 * MIB, "digest")
    (stated,) = struct.unpack(">I", footer[64:68])
    assert stated == ~(sum(footer[:64]) + sum(footer[68:])) & 0xFFFF_FFFF


def test_the_same_disk_has_the_same_footer_and_another_disk_another() -> None:
    assert vhd.footer(MIB, "one") == vhd.footer(MIB, "one")
    assert vhd.footer(MIB, "one") != vhd.footer(MIB, "two")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (20 * MIB, (602, 4, 17)),
        (64 * MIB, (963, 8, 17)),
        (1024 * MIB, (2080, 16, 63)),
        (130 * 1024 * MIB, (65535, 16, 255)),
    ],
)
def test_the_geometry_follows_the_appendix(size: int, expected: tuple[int, int, int]) -> None:
    assert vhd.geometry(size) == expected
    cylinders, heads, sectors = expected
    assert cylinders * heads * sectors * 512 <= size


def test_parse_gives_the_size_back() -> None:
    assert vhd.parse(vhd.footer(21 * MIB, "x")) == 21 * MIB


@pytest.mark.parametrize(
    ("at", "message"), [(0, "conectix"), (48, "checksum"), (80, "checksum"), (64, "checksum")]
)
def test_a_damaged_footer_is_refused(at: int, message: str) -> None:
    footer = bytearray(vhd.footer(21 * MIB, "x"))
    footer[at] ^= 0xFF
    with pytest.raises(vhd.VhdError, match=message):
        vhd.parse(bytes(footer))


def test_a_dynamic_vhd_and_a_short_footer_are_refused() -> None:
    footer = bytearray(vhd.footer(21 * MIB, "x"))
    footer[63] = 3
    footer[64:68] = struct.pack(">I", vhd.checksum(bytes(footer)))
    with pytest.raises(vhd.VhdError, match="type 3"):
        vhd.parse(bytes(footer))
    with pytest.raises(vhd.VhdError, match="511"):
        vhd.parse(bytes(511))


def test_a_disk_streams_as_its_bytes_and_the_footer(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(3 * MIB)
        file.seek(MIB)
        file.write(b"data")
    disk = raw.inspect(path)
    streamed = b"".join(vhd.stream(disk, chunk=65536))
    assert streamed[: 3 * MIB] == path.read_bytes()
    assert streamed[3 * MIB :] == vhd.footer(3 * MIB, disk.sha256)
