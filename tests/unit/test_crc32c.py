"""CRC-32C: values that are known, and the library with which Google Cloud is spoken to."""

from __future__ import annotations

import random

import google_crc32c
import pytest

from publisher.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
    ids=["none", "check", "zeros", "ones", "up", "down"],
)
def test_known_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_any_length() -> None:
    draw = random.Random(1)
    for length in (*range(150), 511, 4064, 4099, 16352, 65504, 100_001):
        data = draw.randbytes(length)
        assert crc32c(data) == google_crc32c.value(data), length
