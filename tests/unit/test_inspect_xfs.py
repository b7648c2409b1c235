"""The reader of XFS, on what mkfs.xfs made and on what was changed by hand."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from publisher.model import MIB, Extent
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree
from publisher.proof.inspect.volume import Volume, open_volume
from publisher.proof.inspect.xfs import Xfs
from publisher.proof.inventory import collect
from publisher.proof.secrets import Known, search
from publisher.task import detached
from tests.unit import hostile
from tests.unit.lint_world import ROOT_UUID, Files, Link
from tests.unit.xfs_disk import Patch, is_sound, make_xfs, record, xfs

LARGE = random.Random(1).randbytes(3 * MIB + 17)
KEY = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)
LONG = "../" + "./" * 450 + "etc/os-release"
FILES: Files = {
    "/etc/os-release": b"ID=rhel\n",
    "/large": LARGE,
    "/empty": b"",
    "/spare": bytes(64 * 1024),
    "/links/absolute": Link("/etc/os-release"),
    "/links/long": Link(LONG),
    "/links/loop": Link("loop"),
    "/some/one": b"1",
    "/some/two": b"2",
    **{f"/block/{number:03}-{'b' * 40}": b"" for number in range(40)},
    **{f"/leaf/{number:03}-{'l' * 40}": b"" for number in range(150)},
    # each file's block comes between two of the directory's: its fork becomes a tree
    **{f"/node/{number:03}-{'n' * 200}": b"x" for number in range(600)},
}
MADE = {
    "v5": (),
    "v4": ("-m", "crc=0"),
    "v4 without file types": ("-m", "crc=0", "-n", "ftype=0"),
    "large counts": ("-i", "nrext64=1,size=1024"),
    "small blocks": ("-b", "size=1024"),
    "smallest blocks": ("-m", "crc=0", "-b", "size=512", "-i", "size=256"),
    "large directory blocks": ("-n", "size=16384"),
    "v4 with large directory blocks": ("-m", "crc=0", "-b", "size=1024", "-n", "size=8192"),
}


def opened(image: Path, budget: Budget | None = None) -> Volume:
    budget = budget or Budget()
    return open_volume(RawFile(image, budget), None, budget)


def tree_of(image: Path, budget: Budget | None = None) -> Tree:
    budget = budget or Budget()
    return Tree(Xfs(RawFile(image, budget), budget), budget)


@pytest.fixture(scope="module", params=MADE, ids=lambda name: name.replace(" ", "-"))
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_xfs(tmp_path_factory.mktemp("xfs"), FILES, *MADE[request.param])
    assert is_sound(made)
    return made


@pytest.fixture
def copy(image: Path, tmp_path: Path) -> Patch:
    """One to change."""
    xfs("cp", str(image), str(tmp_path / "copy.img"))
    return Patch(tmp_path / "copy.img")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("-L", "root", "-i", "nrext64=0")
    return make_xfs(tmp_path_factory.mktemp("small"), FILES, *options, size=24 * MIB)


@pytest.fixture
def patch(small: Path, tmp_path: Path) -> Patch:
    xfs("cp", str(small), str(tmp_path / "copy.img"))
    return Patch(tmp_path / "copy.img")


# -- what a sound one says


def test_xfs_is_read_whatever_it_was_made_with(image: Path) -> None:
    tree = tree_of(image)
    assert {place.path for place in tree.walk("/")} == {
        *FILES,
        *("/etc", "/links", "/some", "/block", "/leaf", "/node"),
    }
    for path, content in FILES.items():
        if isinstance(content, bytes):
            assert tree.read(path) == content, path
    assert tree.read_at("/large", 2 * MIB + 5, 100) == LARGE[2 * MIB + 5 : 2 * MIB + 105]
    assert tree.link("/links/long") == LONG
    assert tree.text("/links/long") == tree.text("/links/absolute") == "ID=rhel\n"
    assert not tree.exists("/links/loop")
    assert tree.names("/some") == ["one", "two"]


def test_the_directories_of_the_tests_have_all_forms(small: Path) -> None:
    patch = Patch(small)
    local, extents, tree = 1, 2, 3
    forms = {path: patch.inode(path)[1][5] for path in ("/some", "/block", "/leaf", "/node")}
    assert forms == {"/some": local, "/block": extents, "/leaf": extents, "/node": tree}
    assert patch.read(first_of(patch, "/block"), 4) == b"XDB3"
    for path, field, magic in (("/leaf", "lhdr", "0x3df1"), ("/node", "nhdr", "0x3ebe")):
        inode = f"inode {patch.node(path).number}"
        show = f"print {field}.info.hdr.magic"
        said = xfs("xfs_db", "-r", "-c", inode, "-c", "dblock 8388608", "-c", show, str(small))
        assert said.split()[-1] == magic, path


def test_uuid_and_label_are_those_of_blkid(small: Path) -> None:
    volume = opened(small)
    assert (volume.kind, volume.uuid, volume.label) == ("xfs", ROOT_UUID, "root")
    assert volume.files is not None
    assert volume.files.remarks == ()


def test_extents_are_where_the_bytes_are(image: Path) -> None:
    files = opened(image).files
    assert files is not None
    place = Tree(files, Budget()).find("/large")
    assert place is not None
    with image.open("rb") as file:
        pieces = [os.pread(file.fileno(), e.length, e.offset) for e in files.extents(place.node)]
    found = b"".join(pieces)
    assert found[: len(LARGE)] == LARGE
    assert len(found) < len(LARGE) + 65536, "to the ends of blocks"


def test_secrets_are_named_by_their_place(tmp_path: Path) -> None:
    files: Files = {"/srv/key": KEY, "/srv/text": b"no secret\n", "/srv/hole": bytes(4096) + KEY}
    image = make_xfs(tmp_path, files, size=24 * MIB)
    patch = Patch(image)
    patch.write(first_of(patch, "/srv/text") + 100, KEY)
    log = patch.superblock.log
    assert log is not None
    patch.write(log.offset + MIB, KEY)
    patch.write(20 * MIB, KEY)
    found = search(hostile.disk_of(image), Known(), detached(tmp_path))
    told = " ".join(finding.evidence for finding in found)
    assert {finding.path for finding in found} == {"/srv/key", "/srv/hole", "/srv/text", ""}
    assert "in /srv/text, behind its end (" in told
    assert "the journal of the disk (xfs)" in told
    assert f"byte {20 * MIB} of the disk (xfs), in no file" in told


def test_an_inventory_is_that_of_the_root(tmp_path: Path) -> None:
    status = b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
    files: Files = {"/etc/os-release": b"ID=rhel\n", "/var/lib/dpkg/status": status}
    image = make_xfs(tmp_path, {**files, "/usr/bin/a": b""}, size=24 * MIB)
    inventory = collect(hostile.disk_of(image), detached(tmp_path))
    assert [(c.name, c.version) for c in inventory.components] == [("a", "1")]
    assert inventory.system.id == "rhel"
    assert inventory.gaps == ("packages of rpm: rhel keeps a list of them, and it is not there",)
    assert abs(inventory.written - image.stat().st_mtime) < 60


# -- forks that mkfs.xfs makes for no file


class Forest:
    """Gives the file /large a tree of extents, whose blocks are those of /spare."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self.size = patch.superblock.block_size
        self._number = patch.node("/large").number
        (spare,) = patch.files.extents(patch.node("/spare"))
        self._free = iter(range(spare.offset // self.size, spare.end // self.size))
        (large,) = patch.files.extents(patch.node("/large"))
        self.first = large.offset // self.size

    def number(self, block: int) -> int:
        """As the file system names a block of the disk."""
        superblock = self._patch.superblock
        group, within = divmod(block, superblock.ag_blocks)
        return group << superblock.ag_log | within

    def block(
        self, level: int, items: Sequence[bytes], *, block: int | None = None, magic: bytes = b""
    ) -> int:
        """Writes leaf or node, and says its number."""
        block = next(self._free) if block is None else block
        sealed = self._patch.sealed
        magic = magic or (b"BMA3" if sealed else b"BMAP")
        raw = bytearray(struct.pack(">4sHHQQ", magic, level, len(items), 2**64 - 1, 2**64 - 1))
        if sealed:
            raw += struct.pack(">QQ16s", block * self.size // 512, 0, self._patch.superblock.uuid)
            raw += struct.pack(">QII", self._number, 0, 0)
        room = (self.size - len(raw)) // 16
        raw += self.pairs(items, room) if level else b"".join(items)
        self._patch.write(block * self.size, raw.ljust(self.size, b"\0"), check=64)
        return self.number(block)

    @staticmethod
    def pairs(items: Sequence[bytes], room: int) -> bytes:
        """Keys, and behind room for all of them the blocks."""
        keys = b"".join(item[:8] for item in items)
        return keys.ljust(room * 8, b"\0") + b"".join(item[8:] for item in items)

    def root(self, level: int, items: Sequence[bytes], extents: int) -> None:
        at, raw = self._patch.inode("/large")
        start = 176 if self._patch.sealed else 100
        room = (len(raw) - start - 4) // 16
        raw[5] = 3
        raw[82] = 0
        fork = struct.pack(">HH", level, len(items)) + self.pairs(items, room)
        raw[start:] = fork.ljust(len(raw) - start, b"\0")
        if raw[120:128] != bytes(8) and self._patch.sealed and raw[127] & 0x10:
            raw[24:32] = extents.to_bytes(8, "big")
        else:
            raw[76:80] = extents.to_bytes(4, "big")
        self._patch.write(at, raw, check=100)


def test_a_tree_of_extents_is_followed_through_its_levels(copy: Patch) -> None:
    forest = Forest(copy)
    size = forest.size
    # backwards and with gaps: block 3n of the file is block 99-n of what it had, 3n+1 is
    # a hole and 3n+2 not written
    leaves: list[bytes] = []
    for leaf in range(4):
        records: list[bytes] = []
        for n in range(leaf * 6, leaf * 6 + 6):
            records.append(record(3 * n, forest.number(forest.first + 99 - n), 1))
            where = forest.number(forest.first + n)
            records.append(record(3 * n + 2, where, 1, unwritten=True))
        leaves.append(struct.pack(">QQ", leaf * 18, forest.block(0, records)))
    nodes = [
        struct.pack(">QQ", part * 36, forest.block(1, leaves[part * 2 : part * 2 + 2]))
        for part in range(2)
    ]
    forest.root(2, nodes, 48)
    expected = b"".join(
        LARGE[(99 - n) * size :][:size] + bytes(2 * size) for n in range(24)
    ) + bytes(len(LARGE))
    tree = tree_of(copy.image)
    assert tree.read("/large") == expected[: len(LARGE)]
    assert tree.read_at("/large", 9 * size + 7, 4) == LARGE[96 * size + 7 : 96 * size + 11]
    files = opened(copy.image).files
    assert files is not None
    place = tree.find("/large")
    assert place is not None
    assert list(files.extents(place.node)) == [
        Extent((forest.first + 99 - n) * size, size) for n in range(24)
    ]


# -- the log


def dirty(patch: Patch) -> None:
    """As if the machine had been turned off: the last record is not an unmount's."""
    log = patch.superblock.log
    assert log is not None
    raw = patch.read(log.offset, MIB)
    at = next(n for n in range(512, MIB, 512) if raw[n + 8 : n + 10] == b"\xaa\x20")
    patch.write(log.offset + at, raw[at : at + 9] + b"\0")


def test_a_log_with_something_to_replay_is_told(patch: Patch) -> None:
    dirty(patch)
    said = xfs("xfs_logprint", "-t", str(patch.image))
    assert "<DIRTY>" in said
    files = opened(patch.image).files
    assert files is not None
    assert files.remarks == ("its log holds changes that were not written back",)


# -- what is not sound


def change_superblock(patch: Patch, at: int, value: bytes) -> None:
    raw = patch.read(0, 512)
    raw[at : at + len(value)] = value
    patch.write(0, raw, check=224)


@pytest.mark.parametrize(
    ("at", "value", "kind", "words"),
    [
        (216, b"\0\0\1\x0b", Unreadable, r"not known here \(metadir\)"),
        (216, b"\x40\0\4\x0b", Unreadable, r"not known here \(zone-gaps, 0x40000000\)"),
        (216, b"\0\0\0\x1b", Damaged, "marked as needing xfs_repair"),
        (126, b"\1", Damaged, "mkfs did not finish it"),
        (4, b"\0\0\x10\1", Damaged, "its blocks have 4097 bytes"),
        (104, b"\x02\1", Damaged, "its inodes have 513 bytes"),
        (84, b"\xff\xff\xff\xff", Damaged, "allocation groups have 4294967295 blocks"),
        (88, b"\xff\xff\xff\xff", Damaged, "blocks in 4294967295 allocation groups"),
        (88, bytes(4), Damaged, "blocks in 0 allocation groups"),
        (192, b"\x09", Damaged, r"directories' blocks have 2\^21 bytes"),
        (102, b"\0\0", Damaged, "sectors have 0 bytes"),
        (100, b"\xb4\xa3", Unreadable, "XFS of version 3"),
        (96, b"\xff\xff\xff\xff", Damaged, "outside of the file system"),
    ],
)
def test_a_superblock_is_not_believed(
    patch: Patch, at: int, value: bytes, kind: type[Unreadable], words: str
) -> None:
    change_superblock(patch, at, value)
    volume = opened(patch.image)
    assert type(volume.fault) is kind
    with pytest.raises(kind, match=words):
        raise volume.fault
    assert (volume.kind, volume.uuid, volume.label) == ("xfs", ROOT_UUID, "root")


def test_an_old_file_system_with_later_features_is_unreadable(tmp_path: Path) -> None:
    image = make_xfs(tmp_path, {}, "-m", "crc=0", size=24 * MIB)
    change_superblock(Patch(image), 200, b"\x10\0\0\x8a")
    fault = opened(image).fault
    assert isinstance(fault, Unreadable)
    assert not isinstance(fault, Damaged)
    assert "0x1000008a" in fault.message


def flip(patch: Patch, at: int) -> None:
    patch.write(at, bytes([patch.read(at, 1)[0] ^ 1]))


def first_of(patch: Patch, path: str) -> int:
    return next(iter(patch.files.extents(patch.node(path)))).offset


def look(image: Path) -> None:
    """At one of each that a test may have changed."""
    tree = tree_of(image)
    for path in ("/some/one", "/block/x", "/node/x", "/links/absolute", "/links/long"):
        tree.find(path)
    tree.read("/large")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda _: 200, "the checksum of its superblock is wrong"),
        (lambda p: p.inode("/some/one")[0] + 60, r"the checksum of inode \d+ is wrong"),
        (lambda p: first_of(p, "/block") + 100, "checksum of a block of a directory is wrong"),
        (lambda p: first_of(p, "/node") + 100, "checksum of a block of a directory is wrong"),
        (lambda p: first_of(p, "/links/long") + 100, "a block of a symbolic link is wrong"),
    ],
    ids=["superblock", "inode", "directory of one block", "directory", "link"],
)
def test_a_wrong_checksum_is_damage(
    patch: Patch, place: Callable[[Patch], int], words: str
) -> None:
    flip(patch, place(patch))
    with pytest.raises(Damaged, match=words):
        look(patch.image)


def test_a_tree_with_a_wrong_checksum_is_damaged(patch: Patch) -> None:
    _, raw = patch.inode("/node")
    superblock = patch.superblock
    room = ((raw[82] * 8 or superblock.inode_size - 176) - 4) // 16
    (below,) = struct.unpack_from(">Q", raw, 176 + 4 + 8 * room)
    flip(patch, superblock.block(below) * superblock.block_size + 72)
    with pytest.raises(Damaged, match="checksum of a block of a tree of extents is wrong"):
        tree_of(patch.image).names("/node")


def test_another_inodes_block_is_damage(patch: Patch) -> None:
    """With its own checksum right: as a write to a wrong place leaves it."""
    whole = patch.superblock.directory_block
    raw = patch.read(first_of(patch, "/node"), whole)
    patch.write(first_of(patch, "/block"), raw)
    with pytest.raises(Damaged, match="a block of a directory is another's"):
        tree_of(patch.image).names("/block")
    at, _ = patch.inode("/some/one")
    _, other = patch.inode("/some/two")
    patch.write(at, other)
    with pytest.raises(Damaged, match=r"inode \d+ is another's"):
        tree_of(patch.image).read("/some/one")


HUGE = struct.pack(">Q", 1 << 62)


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ("/large", [(76, b"\xff\xff\xff\xff")], "4294967295 extents has no room"),
        ("/large", [(176, record(0, 0, 1))], "outside of the file system"),
        ("/large", [(176, record(0, 100, 0))], "not in order"),
        ("/large", [(176, record(0, (1 << 52) - 1, 5))], "outside of the file system"),
        ("/large", [(56, struct.pack(">Q", 1 << 63))], "is damaged"),
        ("/large", [(5, b"\x09")], "its content in form 9"),
        ("/large", [(5, b"\x03"), (176, b"\0\x20")], "32 levels"),
        ("/large", [(2, b"\0\0")], "is free, and a directory names it"),
        ("/large", [(82, b"\xff")], "is damaged"),
        ("/block", [(56, HUGE)], "a directory has 4611686018427387904 bytes"),
        ("/block", [(56, struct.pack(">Q", 4097))], "a directory has 4097 bytes"),
        ("/some", [(176, b"\xff")], "an entry of a directory is damaged"),
        ("/some", [(177, b"\x01")], "an entry of a directory is damaged"),
        ("/some", [(56, HUGE)], "is not in the inode"),
        ("/links/absolute", [(56, HUGE)], "a symbolic link has 4611686018427387904 bytes"),
        ("/links/absolute", [(56, bytes(8))], "a symbolic link has 0 bytes"),
    ],
)
def test_a_hostile_inode_is_damage(
    patch: Patch, path: str, changes: Sequence[tuple[int, bytes]], words: str
) -> None:
    patch.change_inode(path, *changes)
    with pytest.raises(Damaged, match=words):
        look(patch.image)


def test_a_tree_in_a_circle_is_damage(patch: Patch) -> None:
    forest = Forest(patch)
    block = forest.first
    for level in (1, 2):  # it names itself, and says that it is below
        own = struct.pack(">QQ", 0, forest.number(block))
        forest.block(level, [own], block=block)
        forest.root(2, [own], 1)
        with pytest.raises(Damaged, match="a block of a tree of extents has no header"):
            tree_of(patch.image).read("/large")


def test_a_tree_with_one_leaf_twice_is_damage(patch: Patch) -> None:
    forest = Forest(patch)
    leaf = forest.block(0, [record(0, forest.number(forest.first), 1)])
    forest.root(1, [struct.pack(">QQ", start, leaf) for start in range(2)], 2)
    with pytest.raises(Damaged, match="not in order"):
        tree_of(patch.image).read("/large")
    forest.root(1, [struct.pack(">QQ", 0, forest.block(0, []))], 0)
    with pytest.raises(Damaged, match="has 0 extents"):
        tree_of(patch.image).read("/large")


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"nope", "has no header"),
        (64, b"\xff\xff\0\0", "an entry of a directory is damaged"),
        (64, b"\xff\xff\xff\xf8", "an entry of a directory is damaged"),
        (72, b"\xff", "an entry of a directory is damaged"),
        (4088, b"\xff\xff\xff\xff", "a block of a directory is damaged"),
    ],
    ids=["magic", "no length", "beyond", "long name", "leaf"],
)
def test_a_hostile_directory_block_is_damage(
    patch: Patch, at: int, value: bytes, words: str
) -> None:
    start = first_of(patch, "/block")
    raw = patch.read(start, 4096)
    raw[at : at + len(value)] = value
    patch.write(start, raw, check=4)
    with pytest.raises(Damaged, match=words):
        tree_of(patch.image).names("/block")


def test_a_directory_with_one_block_twice_is_damage(patch: Patch) -> None:
    first = next(iter(patch.files.extents(patch.node("/leaf")))).offset // 4096
    pair = record(0, first, 1) + record(1, first, 1)
    patch.change_inode("/leaf", (56, struct.pack(">Q", 8192)), (76, b"\0\0\0\2"), (176, pair))
    with pytest.raises(Damaged, match="a directory has one block twice"):
        tree_of(patch.image).names("/leaf")


@pytest.mark.parametrize(
    ("name", "words"),
    [(b"000/", "an entry named b'000/bbb"), (b"001-", "two entries named '001-bbb")],
)
def test_a_name_that_can_not_be_is_damage(patch: Patch, name: bytes, words: str) -> None:
    start = first_of(patch, "/block")
    raw = patch.read(start, 4096)
    at = raw.index(b"000-bbb")
    raw[at : at + 4] = name
    patch.write(start, raw, check=4)
    with pytest.raises(Damaged, match=words):
        tree_of(patch.image).names("/block")


def test_a_directory_below_itself_is_damage(patch: Patch) -> None:
    number = patch.node("/").number.to_bytes(4, "big")
    one = patch.node("/some/one").number.to_bytes(4, "big")
    _, raw = patch.inode("/some")
    at = raw.index(one, 180)
    patch.change_inode("/some", (at, number))
    with pytest.raises(Damaged, match="/some/one is in more than one place"):
        list(tree_of(patch.image).walk("/"))


def test_a_hole_without_end_ends_by_the_budget(patch: Patch) -> None:
    patch.change_inode("/large", (56, HUGE))
    with pytest.raises(Exhausted, match="more bytes"):
        max(map(len, tree_of(patch.image, Budget(size=64 * MIB)).stream("/large")))
    with pytest.raises(Exhausted, match="more steps"):
        tree_of(patch.image, Budget(steps=200)).names("/node")


def test_an_image_cut_short_is_damaged_where_it_ends(patch: Patch) -> None:
    os.truncate(patch.image, 16 * MIB)
    files = opened(patch.image).files
    assert files is not None
    assert (
        files.remarks[0] == f"it has {24 * MIB} bytes, more than its partition of {16 * MIB} bytes"
    )
