"""LVM: which logical volumes a disk has, and that the proofs look into them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from publisher import provider
from publisher.model import MIB, SECTOR, Extent, Severity
from publisher.proof.compare import compare
from publisher.proof.inspect import lvm
from publisher.proof.inspect.budget import Budget, Damaged, Exhausted, Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.lvm_text import parse
from publisher.proof.inspect.storage import Joined, RawFile
from publisher.proof.inspect.volume import Volume
from publisher.proof.inventory import collect
from publisher.proof.lint import examine, rules_for
from publisher.proof.secrets import Known, search
from publisher.task import detached
from tests.unit import hostile, lvm_disk, rhel_world
from tests.unit import lint_world as world
from tests.unit.lint_world import MODULES, Files, Link
from tests.unit.lvm_disk import AREA, EXTENT, START, group, head
from tests.unit.rhel_world import LVM, LVM_SIZE, rhel

CLOUDS = [provider.load(name).guest(None) for name in ("aws", "gcp", "azure")]  # type: ignore[attr-defined]
KEY = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
)


class Bytes:
    """A disk in memory, zeros behind what is given."""

    def __init__(self, data: bytes, size: int = 0) -> None:
        self.data = data
        self.size = size or len(data)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise Damaged("outside")
        return self.data[offset : offset + length].ljust(length, b"\0")


def member(text: str, *, name: str = "pv0", start: int = 0, at: int = SECTOR) -> lvm.Member:
    size = 40 * MIB
    return lvm.read_member(Bytes(head(name, text, size=size, at=at), size), start, Budget())


def volumes(text: str) -> dict[str, lvm.Logical]:
    return {v.name: v for v in lvm.logical_volumes([member(text)], Budget())}


def opened(disk: Path) -> Inspection:
    budget = Budget()
    return Inspection(RawFile(disk, budget), budget)


def by_name(disk: Path) -> dict[str, Volume]:
    return {volume.name: volume for volume in opened(disk).volumes() if volume.name}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rhel_world.disk_file(tmp_path_factory.mktemp("good"))


@pytest.fixture
def disk(good: Path, tmp_path: Path) -> Path:
    """One to change."""
    subprocess.run(["cp", "--sparse=always", good, tmp_path / "copy.raw"], check=True)
    return tmp_path / "copy.raw"


# -- what the metadata say


def test_linear_volumes_lie_where_their_segments_say() -> None:
    text = group({"pv0": 30}, {"root": [("pv0", 4, 6), ("pv0", 0, 4)], "my-data": [("pv0", 20, 1)]})
    found = {v.name: v for v in lvm.logical_volumes([member(text, start=8 * MIB)], Budget())}
    first = 8 * MIB + START
    assert found["rhel/root"].parts == (
        Extent(first + 4 * EXTENT, 6 * EXTENT),
        Extent(first, 4 * EXTENT),
    )
    assert found["rhel/my-data"].parts == (Extent(first + 20 * EXTENT, EXTENT),)


def test_a_volume_may_be_on_more_than_one_physical_one() -> None:
    text = group({"a": 30, "b": 30}, {"root": [("b", 0, 2), ("a", 0, 1)], "x": [("c", 0, 1)]})
    # only one of them has the metadata
    members = [member(text, name="a"), member("", name="b", start=64 * MIB)]
    assert members[1].group is None
    root, wrong = lvm.logical_volumes(members, Budget())
    assert root.parts == (
        Extent(64 * MIB + START, 2 * EXTENT),
        Extent(START, EXTENT),
    )
    assert isinstance(wrong.fault, Damaged)
    (alone, _) = lvm.logical_volumes(members[:1], Budget())
    assert isinstance(alone.fault, Unreadable)
    assert "a part of it is on another disk" in alone.fault.message


def test_the_newest_metadata_count() -> None:
    old = group({"a": 30, "b": 30}, {"root": [("a", 0, 1)]}, number=3)
    new = group({"a": 30, "b": 30}, {"root": [("b", 5, 1)]}, number=4)
    for members in (
        [member(old, name="a"), member(new, name="b", start=64 * MIB)],
        [member(new, name="a"), member(old, name="b", start=64 * MIB)],
    ):
        (root,) = lvm.logical_volumes(members, Budget())
        assert root.parts == (Extent(64 * MIB + START + 5 * EXTENT, EXTENT),)


def test_metadata_go_on_at_the_start_of_their_area() -> None:
    text = group({"pv0": 30}, {"root": [("pv0", 0, 1)]})
    around = member(text, at=lvm_disk.AREA_SIZE - 100)
    assert around.group is not None
    assert around.group.volumes.keys() == {"root"}


THIN = 'segment1 {\nstart_extent = 0\nextent_count = 4\ntype = "{}"\nthin_pool = "pool"\n}}\n'
STRIPED = (
    'segment1 {\nstart_extent = 0\nextent_count = 4\ntype = "striped"\nstripe_count = 2\n'
    'stripe_size = 128\nstripes = [\n"pv0", 0,\n"pv0", 10\n]\n}\n'
)


@pytest.mark.parametrize("kind", ["thin", "raid1", "mirror", "cache", "vdo"])
def test_what_is_not_linear_is_named(kind: str) -> None:
    text = THIN.replace("{}", kind).replace("}}", "}")
    (found,) = volumes(group({"pv0": 30}, {"root": text})).values()
    assert type(found.fault) is Unreadable
    assert f"of kind {kind}" in found.fault.message


def test_stripes_and_what_a_snapshot_keeps_have_no_reader() -> None:
    snapshot = (
        'segment1 {\nstart_extent = 0\nextent_count = 4\ntype = "snapshot"\nchunk_size = 8\n'
        'origin = "root"\ncow_store = "before"\n}\n'
    )
    text = group(
        {"pv0": 30},
        {
            "two": STRIPED,
            "root": [("pv0", 20, 1)],
            "before": [("pv0", 21, 1)],
            "snapshot0": snapshot,
        },
    )
    hidden = text.rindex('"READ", "WRITE", "VISIBLE"')
    text = text[:hidden] + '"READ", "WRITE"' + text[hidden + 26 :]
    found = volumes(text)
    assert found.keys() == {"rhel/two", "rhel/root", "rhel/before"}, "the last one is lvm's own"
    assert found["rhel/root"].parts
    for name, kind in (("rhel/two", "striped"), ("rhel/before", "snapshot")):
        assert f"of kind {kind}" in str(found[name].fault)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/dev/mapper/rhel-root", "rhel/root"),
        ("/dev/mapper/my--group-a--b", "my-group/a-b"),
        ("/dev/disk/by-id/dm-name-rhel-root", "rhel/root"),
        ("/dev/rhel/root", "rhel/root"),
        ("/dev/mapper/luks", ""),
        ("/dev/disk/by-uuid/x-y", ""),
        ("/dev/sda", ""),
        ("UUID=a-b", ""),
    ],
)
def test_the_paths_of_a_logical_volume(path: str, name: str) -> None:
    assert lvm.named(path) == name


def test_the_text_may_have_comments_escapes_and_lists() -> None:
    text = 'a {\n# b = 1 {\nc = "x\\"}\\\\" # d\ne = [1, "f", []g]\n}\n'
    with pytest.raises(Damaged):
        parse(text, Budget())
    found = parse(text.replace("[]g", "-1.5"), Budget())
    assert found == {"a": {"c": 'x"}\\', "e": [1, "f", "-1.5"]}}


# -- the proofs


def test_volumes_are_probed_like_partitions(good: Path) -> None:
    found = by_name(good)
    assert {name: volume.kind for name, volume in found.items()} == {
        "rhel/root": "xfs",
        "rhel/swap": "swap",
    }
    inspection = opened(good)
    root = inspection.root()
    assert root.name == "rhel/root"
    assert root.partition is None
    assert root.title == "logical volume rhel/root (xfs)"
    assert inspection.tree().text("/etc/os-release").startswith("ID=rhel")
    for device in ("/dev/mapper/rhel-root", "/dev/rhel/root", f"UUID={world.ROOT_UUID}"):
        assert inspection.device(device) is root
    assert inspection.device("/dev/rhel/home") is None
    with pytest.raises(Unreadable):
        inspection.device("/dev/other/root")


def told(disk: Path) -> list[tuple[str, Severity, str]]:
    inspection = opened(disk)
    report = examine(inspection.disk, CLOUDS, (), inspection.budget)
    return [(finding.rule, finding.severity, finding.evidence) for finding in report.findings]


def test_lint_finds_of_a_good_one_that_nothing_grows_its_root(good: Path) -> None:
    found = [what for what in told(good) if what[1] is not Severity.NOTE]
    words = "the root file system is logical volume rhel/root, which cloud-init does not grow"
    assert found == [
        ("azure.swap", Severity.ERROR, "logical volume rhel/swap is 2 MiB of swap space"),
        ("disk.growth", Severity.WARNING, words),
    ]


def broken(tmp_path: Path, change: Callable[[Files], None]) -> list[str]:
    files = rhel()
    change(files)
    found = told(rhel_world.disk_file(tmp_path, files))
    return [f"{rule}: {words}" for rule, severity, words in found if severity is Severity.ERROR]


def replaced(path: str, old: bytes, new: bytes) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        content = files[path]
        assert isinstance(content, bytes)
        assert old in content
        files[path] = content.replace(old, new)

    return change


def initramfs_without(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[rhel_world.INITRD] = rhel_world.initramfs(without=[name])

    return change


def kernel_without_xfs(files: Files) -> None:
    initramfs_without("xfs.ko")(files)
    replaced(f"{MODULES}/modules.dep", world.module("xfs").encode() + b":\n", b"")(files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            initramfs_without("xfs.ko"),
            "initramfs.root: the driver xfs of kernel 6.1.0-9-cloud is a module and not in its",
        ),
        (
            initramfs_without("dm-mod.ko"),
            "initramfs.root: the driver dm_mod of kernel 6.1.0-9-cloud is a module and not in",
        ),
        (
            initramfs_without("/lvm"),
            "initramfs.root: logical volume rhel/root is the root, and the initramfs of kernel "
            "6.1.0-9-cloud has no lvm to find it",
        ),
        (kernel_without_xfs, "initramfs.root: kernel 6.1.0-9-cloud has no driver xfs"),
        (
            replaced("/boot/grub2/grub.cfg", b"rd.lvm.lv=rhel/swap", b"rd.lvm.lv=build/swap"),
            "boot.root: rd.lvm.lv=build/swap names no logical volume of this disk",
        ),
        (
            replaced("/boot/grub2/grub.cfg", b"mapper/rhel-root", b"mapper/rhel-home"),
            "boot.root: root=/dev/mapper/rhel-home names no file system of this disk",
        ),
        (
            replaced("/etc/fstab", b"/dev/rhel/swap none", b"/dev/mapper/rhel-home /home"),
            "fstab.device: /dev/mapper/rhel-home on /home is not on this disk",
        ),
    ],
    ids=["xfs", "dm_mod", "lvm", "no xfs", "rd.lvm.lv", "root", "fstab"],
)
def test_lint_names_what_keeps_the_root_from_being_found(
    tmp_path: Path, change: Callable[[Files], None], words: str
) -> None:
    assert any(line.startswith(words) for line in broken(tmp_path, change))


def test_lint_names_the_list_of_the_installers_disks(tmp_path: Path) -> None:
    path = "/etc/lvm/devices/system.devices"
    text = b"# LVM uses devices listed in this file.\nVERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.5 "
    disk = opened(rhel_world.disk_file(tmp_path, {**rhel(), path: text}))
    rules = {rule.id: rule for rule in rules_for(CLOUDS)}
    (finding,) = world.found(rules["lvm.devices"], disk)
    assert (finding.path, finding.line, finding.severity) == (path, 3, Severity.WARNING)
    without = world.World({**world.good(), path: text})
    assert world.found(rules["lvm.devices"], without) == [], "nothing is on LVM"


@pytest.mark.parametrize(("kind", "program"), [("xfs", "xfs_growfs"), ("btrfs", "btrfs")])
def test_lint_misses_what_grows_the_root(kind: str, program: str) -> None:
    rules = {rule.id: rule for rule in rules_for(CLOUDS)}
    disk = world.World(root=world.Memory(world.good(), kind))
    (finding,) = world.found(rules["disk.growth"], disk)
    assert f"{program} is not installed" in finding.evidence
    files = {**world.good(), f"/usr/sbin/{program}": b""}
    assert world.found(rules["disk.growth"], world.World(root=world.Memory(files, kind))) == []


def test_secrets_on_a_logical_volume_are_named_by_their_file(tmp_path: Path) -> None:
    files: Files = {**rhel(), "/srv/large": bytes(13 * MIB) + KEY}
    disk = rhel_world.disk_file(tmp_path, files)
    with disk.open("r+b") as file:  # in LVM's partition, and in no volume
        file.seek(LVM + START + 11 * EXTENT)
        file.write(KEY)
    found = search(hostile.disk_of(disk), Known(), detached(tmp_path))
    texts = {finding.path: finding.evidence for finding in found}
    assert texts.keys() == {"/srv/large", ""}
    assert "in /srv/large (" in texts["/srv/large"]
    assert f"in byte {START + 11 * EXTENT} of partition 2 (LVM2_member)" in texts[""]


def test_usr_and_home_may_be_volumes_of_their_own(tmp_path: Path) -> None:
    """As in Azure's images of RHEL, where os-release leads to another volume."""
    files = rhel()
    fstab = files["/etc/fstab"]
    assert isinstance(fstab, bytes)
    fstab += b"/dev/mapper/rhel-usr /usr xfs defaults 0 0\n/dev/rhel/home /home xfs defaults 0 0\n"
    usr = {path[4:]: files.pop(path) for path in list(files) if path.startswith("/usr/")}
    files |= {"/etc/fstab": fstab, "/etc/os-release": Link("../usr/lib/os-release")}
    files |= {"/usr/.keep": b"", "/home/.keep": b""}
    usr["/lib/os-release"] = b"ID=rhel\n"
    home: Files = {"/ann/.ssh/id": KEY, "/ann/.bash_history": b"make me a sandwich\n"}
    split = {
        "root": [("pv0", 18, 8), ("pv0", 0, 8)],
        "usr": [("pv0", 8, 10), ("pv0", 26, 6)],
        "home": [("pv0", 32, 16)],
    }
    disk = rhel_world.disk_file(tmp_path, files, split, {"usr": usr, "home": home})
    inspection = opened(disk)
    assert inspection.root().name == "rhel/root"
    assert inspection.tree().text("/etc/os-release") == "ID=rhel\n"
    assert inspection.program("growpart") == "/usr/bin/growpart"
    found = search(hostile.disk_of(disk), Known(), detached(tmp_path))
    assert {finding.path for finding in found} == {"/home/ann/.ssh/id", "/home/ann/.bash_history"}
    for finding in found:
        assert f"rm -rf {finding.path}" in (finding.fix or "")


def test_an_inventory_lists_what_is_on_a_logical_volume(tmp_path: Path) -> None:
    status = b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
    disk = rhel_world.disk_file(tmp_path, {**rhel(), "/var/lib/dpkg/status": status})
    found = collect(hostile.disk_of(disk), detached(tmp_path))
    assert [(c.name, c.version) for c in found.components] == [("a", "1")]
    assert found.gaps == ("packages of rpm: rhel keeps a list of them, and it is not there",)
    assert found.system.version == "9.4"
    assert found.written > 1_700_000_000


def test_two_disks_are_compared_by_the_files_of_their_volumes(good: Path, disk: Path) -> None:
    place = opened(disk).tree().find("/etc/fstab")
    assert place is not None
    (extent,) = place.files.extents(place.node)
    with disk.open("r+b") as file:
        file.seek(rhel_world.on_disk(extent.offset))
        file.write(b"#")
    other = replace(hostile.disk_of(disk), sha256="another")
    found = [str(difference) for difference in compare(hostile.disk_of(good), other)]
    assert "logical volume rhel/root (xfs): /etc/fstab: content" in found


# -- what is not sound


def spoiled(text: str, change: Callable[[bytearray], None]) -> lvm.Member:
    raw = bytearray(head("pv0", text, size=40 * MIB))
    change(raw)
    return lvm.read_member(Bytes(bytes(raw), 40 * MIB), 0, Budget())


def flip(at: int) -> Callable[[bytearray], None]:
    def change(raw: bytearray) -> None:
        raw[at] ^= 1

    return change


def put(at: int, value: bytes, *, start: int, end: int, check: int) -> Callable[[bytearray], None]:
    """Change the bytes, and make the checksum right that goes from start to end."""

    def change(raw: bytearray) -> None:
        raw[at : at + len(value)] = value
        raw[check : check + 4] = lvm_disk.checksum(bytes(raw[start:end])).to_bytes(4, "little")

    return change


def in_label(at: int, value: bytes) -> Callable[[bytearray], None]:
    return put(SECTOR + at, value, start=SECTOR + 20, end=2 * SECTOR, check=SECTOR + 16)


def in_area(at: int, value: bytes) -> Callable[[bytearray], None]:
    return put(AREA + at, value, start=AREA + 4, end=AREA + SECTOR, check=AREA)


MANY = b"\xff" * 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip(SECTOR + 40), "its label is damaged"),
        (in_label(20, b"\xff\xff\xff\xff"), "its label is damaged"),
        (in_label(72, b"\1" * 400), "its label has no end"),
        (in_label(104, MANY), "outside"),
        (flip(AREA + 30), "the header of its metadata is damaged"),
        (in_area(24, bytes(8)), "the header of its metadata is damaged"),
        (in_area(40, MANY), "bytes at 18446744073709551615"),
        (in_area(48, MANY), "metadata have 18446744073709551615 bytes"),
        (flip(AREA + SECTOR + 5), "the checksum of its metadata is wrong"),
    ],
)
def test_damaged_metadata_are_told(change: Callable[[bytearray], None], words: str) -> None:
    text = group({"pv0": 30}, {"root": [("pv0", 0, 1)]})
    with pytest.raises(Damaged, match=words):
        spoiled(text, change)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a {" * 20, "more than 8 sections deep"),
        ("a {", "end too early"),
        ("a = [1", "end too early"),
        ("a = ", "a value of its metadata is damaged"),
        ('a = "open', "damaged at '\"open'"),
        ("a { } b { }", "tell of 2 volume groups"),
        ("rhel { extent_size = 0 }", "its extents have 0 bytes"),
        ("rhel { extent_size = x }", "no number extent_size"),
        ("rhel { extent_size = 8 physical_volumes { a { id = 1 } } }", "no text id"),
        ("a = 1 a = 2", "damaged at 'a'"),
    ],
)
def test_hostile_metadata_are_damage(text: str, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        member(text)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("extent_count = 4", "extent_count = 99", "reaches beyond its physical volume"),
        ("pe_count = 30", "pe_count = 3", "reaches beyond its physical volume"),
        ("pe_start = 2048", "pe_start = 999999999", "reaches beyond its physical volume"),
        ("start_extent = 0", "start_extent = 1", "not one behind the other"),
        ("extent_count = 4", "extent_count = 0", "not one behind the other"),
        ('"pv0", 0', '"pv9", 0', "physical volume pv9 that its group does not have"),
        ('"pv0", 0', '"pv0", -1', "physical volume pv0"),
        ('type = "striped"', "type = 5", "no text type"),
        ("segment1 {", "no_segment = [] } other {", "has 0 segments"),
    ],
)
def test_a_hostile_volume_is_damage(old: str, new: str, words: str) -> None:
    text = group({"pv0": 30}, {"bad": [("pv0", 0, 4)]})
    assert old in text
    text = text.replace(old, new)
    if new.startswith("no_segment"):
        text = text.replace('[\n"pv0", 0\n]\n}', "[]", 1)
    found = volumes(text)["rhel/bad"]
    assert isinstance(found.fault, Damaged)
    assert words in found.fault.message


def test_volumes_that_share_bytes_are_damaged() -> None:
    shared = {"a": [("pv0", 0, 4)], "b": [("pv0", 3, 1)], "c": [("pv0", 4, 1)]}
    found = volumes(group({"pv0": 30}, shared))
    assert {name: v.fault is not None for name, v in found.items()} == {
        "rhel/a": True,
        "rhel/b": True,
        "rhel/c": False,
    }
    itself = volumes(group({"pv0": 30}, {"a": [("pv0", 0, 2), ("pv0", 1, 2)]}))
    assert isinstance(itself["rhel/a"].fault, Damaged)


def test_a_physical_volume_that_is_there_twice_is_not_chosen_from() -> None:
    text = group({"pv0": 30}, {"root": [("pv0", 0, 1)]})
    members = [member(text), member(text, start=64 * MIB)]
    (root,) = lvm.logical_volumes(members, Budget())
    assert isinstance(root.fault, Damaged)
    assert "is on this disk 2 times" in root.fault.message


def test_endless_metadata_end_by_the_budget() -> None:
    with pytest.raises(Exhausted):
        parse("".join(f"a{n} = 1\n" for n in range(1000)), Budget(steps=500))
    many = {f"v{n}": [("pv0", 0, 1)] for n in range(1001)}
    with pytest.raises(Damaged, match="more than 1000 logical volumes"):
        member(group({"pv0": 30}, many))


def test_a_damaged_physical_volume_is_told_by_lint(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(LVM + AREA + SECTOR + 5)
        file.write(b"\0")
    found = told(disk)
    words = "the checksum of its metadata is wrong"
    assert (
        "disk.root",
        Severity.ERROR,
        f"partition 2 (LVM2_member), where the root directory may be, can't be read: {words}",
    ) in found


def test_a_thin_root_is_told_as_what_can_not_be_read(tmp_path: Path) -> None:
    thin = THIN.replace("{}", "thin").replace("}}", "}")
    found = told(rhel_world.disk_file(tmp_path, {}, {"root": thin}))
    words = "logical volume rhel/root (unknown content): there is no reader for LVM volumes of "
    assert ("disk.not-readable", Severity.WARNING, f"{words}kind thin") in found


def test_joined_parts_are_read_across_their_borders() -> None:
    whole = Bytes(bytes(range(100)))
    joined = Joined(whole, [Extent(50, 10), Extent(0, 5), Extent(90, 10)])
    expected = bytes([*range(50, 60), *range(5), *range(90, 100)])
    assert joined.size == 25
    for start in range(25):
        for end in range(start, 25):
            assert joined.read(start, end - start) == expected[start:end]
    with pytest.raises(Damaged):
        joined.read(20, 6)


def test_the_disk_of_these_tests_has_what_it_says(good: Path) -> None:
    assert good.stat().st_size == rhel_world.SIZE
    (volume,) = [v for v in opened(good).volumes() if v.kind == "LVM2_member"]
    assert volume.fault is None
    assert volume.parts == (Extent(LVM, LVM_SIZE),)
