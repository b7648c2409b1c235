"""Packages of rpm in Berkeley DB: two databases made by its own db5.3_load, with pages of
512 bytes in little endian, and of 4096 in big endian. Each holds what test_inventory's
databases do and a package of 3000 files, the first one 400 small packages more."""

from __future__ import annotations

import lzma
import mmap
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from publisher.disks import raw
from publisher.proof import inventory
from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inventory import berkeley
from publisher.task import detached
from tests.unit.ext_disk import ext_disk

DATA = Path(__file__).with_name("data")
MIB = 1 << 20
OVERFLOW, HASH, OFF_PAGE = 7, 13, 3


def held(order: str) -> bytearray:
    return bytearray(lzma.decompress((DATA / f"rpm-berkeley-{order}.db.xz").read_bytes()))


def values(data: bytes | bytearray, most: int = MIB) -> Sequence[bytes]:
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = bytes(data)
        return list(berkeley.values(mapped, "Packages", most))


@pytest.mark.parametrize(("order", "more"), [("big", 0), ("little", 400)])
def test_packages_in_a_berkeley_db(tmp_path: Path, order: str, more: int) -> None:
    files = {"/etc/os-release": "ID=rhel\nVERSION_ID=8.9\n", "/etc/fstab": ""}
    disk = ext_disk(tmp_path, {**files, "/var/lib/rpm/Packages": bytes(held(order))})
    found = inventory.collect(raw.inspect(disk), detached(tmp_path / "memory"))
    assert found.gaps == ()
    names = [c.name for c in found.components]
    assert sorted(names) == sorted(["bash", "big", *(f"p{n}" for n in range(more))])
    bash = next(c for c in found.components if c.name == "bash")
    assert bash.purl.startswith("pkg:rpm/rhel/bash@5.2.26-3.fc40?arch=x86_64&distro=rhel-8.9")


def first(data: bytes | bytearray, kind: int) -> int:
    """Where the first page of a kind begins that holds something, and leads to another
    one where it is a value's."""
    return next(
        at
        for at in range(512, len(data), 512)
        if data[at + 25] == kind
        and data[at + 20 : at + 22] != b"\0\0"
        and (kind == HASH or data[at + 16 : at + 20] != bytes(4))
    )


def test_what_is_cut_short_or_of_another_kind_is_told() -> None:
    data = held("little")
    with pytest.raises(Damaged, match="cut short"):
        values(data[:-512])
    for at, value in ((24, 1), (25, 9), (26, 1)):  # encrypted, a tree, with checksums
        other = held("little")
        other[at] = value
        with pytest.raises(Unreadable, match="another kind"):
            values(other)
    with pytest.raises(Damaged, match="more than 1000 bytes"):
        values(data, 1000)


def test_a_value_whose_pages_lead_elsewhere_is_told() -> None:
    at = first(held("little"), OVERFLOW)
    for offset, form, value in (
        (16, "<I", at // 512),  # the next page is itself
        (16, "<I", 1 << 30),
        (22, "<H", 0),
        (22, "<H", 60000),
        (25, "<B", HASH),
    ):
        data = held("little")
        struct.pack_into(form, data, at + offset, value)
        with pytest.raises(Damaged, match=r"pages are not there|outside of its page|than it can"):
            values(data)


def test_one_page_is_not_in_two_values() -> None:
    """Else a small file holds packages without end."""
    data, apart = held("little"), []
    for at in range(512, len(data), 512):
        if data[at + 25] == HASH:
            (entries,) = struct.unpack_from("<H", data, at + 20)
            places = struct.unpack_from(f"<{entries}H", data, at + 26)[1::2]
            apart += [at + place for place in places if data[at + place] == OFF_PAGE]
    one, other, *_ = apart
    data[other : other + 12] = data[one : one + 12]
    with pytest.raises(Damaged, match="pages are not there"):
        values(data)


def test_a_page_that_claims_too_much_is_told() -> None:
    at = first(held("little"), HASH)
    for offset, value, told in (
        (20, 60000, "more entries than it can hold"),
        (26, 60000, "outside of its page"),
        (28, 4, "outside of its page"),
    ):
        data = held("little")
        struct.pack_into("<H", data, at + offset, value)
        with pytest.raises(Damaged, match=told):
            values(data)


def test_a_kind_of_value_that_rpm_does_not_make_is_told() -> None:
    data = held("little")
    at = first(data, HASH)
    (entries,) = struct.unpack_from("<H", data, at + 20)
    for value in struct.unpack_from(f"<{entries}H", data, at + 26)[1::2]:
        data[at + value] = 2  # duplicates of one key
    with pytest.raises(Unreadable, match="a kind that rpm does not make"):
        values(data)


def test_whatever_is_damaged_is_unreadable_and_ends() -> None:
    chance = random.Random(4)
    whole = held("big")
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            values(data)
        except (Unreadable, struct.error, ValueError, LookupError):
            continue
