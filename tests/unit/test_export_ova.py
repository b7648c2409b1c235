"""The OVA: its descriptor, manifest and archive; and what is refused on import."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args
from xml.etree import ElementTree

import pytest

from publisher.conformance import HastyClock, make_disk
from publisher.disks import foreign, raw
from publisher.disks.formats import ova
from publisher.disks.formats.ovf import Controller, Hardware, Network, Package, descriptor
from publisher.errors import PublishError
from publisher.export import export
from publisher.memory import Memory
from publisher.model import MIB, Arch, Disk, Firmware
from publisher.task import Task

if TYPE_CHECKING:
    import xmlschema

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VMW = "{http://www.vmware.com/schema/ovf}"
DMTF = "http://schemas.dmtf.org/wbem/wscim/1/"
ODD_NAME = 'R&D <web> (1) "ä"'

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", 8 * MIB)


@pytest.fixture(scope="module")
def package(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("ova")
    task = Task("export", Memory(where / "memory"), clock=HastyClock())
    (path,) = export(
        disk,
        "ova",
        where / "web.ova",
        task,
        name="web",
        version="1.2.3",
        arch="x86_64",
        firmware="bios+uefi",
    )
    return path


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("import", Memory(tmp_path / "memory"), clock=HastyClock())


def contents(path: Path) -> Files:
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
        return {m.name: cast("io.BufferedReader", archive.extractfile(m)).read() for m in members}


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def describe(
    firmware: Firmware = "bios+uefi",
    hardware: Hardware | None = None,
    *,
    arch: Arch = "x86_64",
    name: str = "web & co",
    version: str = "1.0",
) -> str:
    return descriptor(
        Package(
            name,
            version,
            arch,
            firmware,
            "web.vmdk",
            100,
            2**30,
            2**20,
            hardware or Hardware(),
        )
    )


def items(text: str) -> list[dict[str, str]]:
    return [
        {child.tag.removeprefix(RASD): child.text or "" for child in item}
        for item in ElementTree.fromstring(text).iter(f"{OVF}Item")
    ]


def test_the_archive_is_ustar_with_the_descriptor_first(package: Path) -> None:
    with tarfile.open(package, "r:") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == ["web.ovf", "web.mf", "web-disk1.vmdk"]
    assert package.read_bytes()[257:265] == b"ustar\x0000"
    assert {(m.uid, m.gid, m.mtime, m.mode) for m in members} == {(0, 0, 0, 0o644)}
    assert package.stat().st_size % tarfile.RECORDSIZE == 0


def test_the_manifest_holds_the_digests_of_what_is_packed(package: Path) -> None:
    files = contents(package)
    listed = dict(line.split("= ") for line in files["web.mf"].decode().splitlines())
    assert listed == {
        f"SHA256({name})": hashlib.sha256(files[name]).hexdigest()
        for name in ("web.ovf", "web-disk1.vmdk")
    }


def test_the_descriptor_tells_of_the_disk_in_the_package(package: Path, disk: Disk) -> None:
    files = contents(package)
    root = ElementTree.fromstring(files["web.ovf"])
    (file,) = root.iterfind(f"{OVF}References/{OVF}File")
    assert file.get(f"{OVF}href") == "web-disk1.vmdk"
    assert file.get(f"{OVF}size") == str(len(files["web-disk1.vmdk"]))
    (held,) = root.iterfind(f"{OVF}DiskSection/{OVF}Disk")
    assert held.get(f"{OVF}capacity") == str(disk.size)
    assert held.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert str(held.get(f"{OVF}format")).endswith("#streamOptimized")
    (system,) = root.iterfind(f"{OVF}VirtualSystem")
    assert system.get(f"{OVF}id") == "web"
    assert root.findtext(f".//{OVF}Version") == "1.2.3"


def test_the_descriptor_has_the_order_and_the_references_that_ovf_demands() -> None:
    """DSP0243 1.1: the order of the sections, of the elements of an item (CIM's,
    alphabetical), and that each reference leads somewhere."""
    text = describe()
    root = ElementTree.fromstring(text)
    assert [child.tag.removeprefix(OVF) for child in root] == [
        "References",
        "DiskSection",
        "NetworkSection",
        "VirtualSystem",
    ]
    for section in root.iter():
        if section.tag.endswith("Section"):
            assert section[0].tag == f"{OVF}Info", f"{section.tag} begins with its Info"
    found = items(text)
    for item in found:
        assert list(item) == sorted(item)
        assert {"ElementName", "InstanceID", "ResourceType"} <= set(item)
    assert len({item["InstanceID"] for item in found}) == len(found)
    by_id = {item["InstanceID"]: item for item in found}
    (hard_disk,) = [item for item in found if item["ResourceType"] == "17"]
    assert by_id[hard_disk["Parent"]]["ResourceType"] in ("5", "6", "20")
    held = root.find(f"{OVF}DiskSection/{OVF}Disk")
    assert held is not None
    assert hard_disk["HostResource"] == f"ovf:/disk/{held.get(f'{OVF}diskId')}"
    (network,) = [item for item in found if item["ResourceType"] == "10"]
    named = root.find(f"{OVF}NetworkSection/{OVF}Network")
    assert named is not None
    assert network["Connection"] == named.get(f"{OVF}name")
    assert root.findtext(f"{OVF}VirtualSystem/{OVF}Name") == "web & co"


def schemas() -> list[str]:
    """Ours, of what DSP0243 demands of the elements that are written here, and the
    DMTF's where OVF_SCHEMA_DIR names a directory that has it with what it imports."""
    official = os.environ.get("OVF_SCHEMA_DIR")
    own = Path(__file__).parent / "schemas" / "ovf" / "envelope.xsd"
    return [str(own), *([str(Path(official) / "dsp8023_1.1.1.xsd")] if official else [])]


@pytest.fixture(scope="module", params=schemas(), ids=lambda path: Path(path).stem)
def schema(request: pytest.FixtureRequest) -> xmlschema.XMLSchema10:
    import xmlschema

    path = Path(request.param)
    return xmlschema.XMLSchema10(
        str(path), allow="local", uri_mapper=lambda uri: uri.replace(DMTF, f"{path.parent}/")
    )


@pytest.mark.parametrize("firmware", ["bios", "uefi", "bios+uefi"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_descriptor_keeps_the_schema(
    schema: xmlschema.XMLSchema10, firmware: Firmware, arch: Arch
) -> None:
    for controller in (None, *get_args(Controller)):
        for network in get_args(Network):
            hardware = Hardware(controller=controller, network=network)
            schema.validate(describe(firmware, hardware, arch=arch))


@pytest.mark.parametrize(("name", "version"), [("web", "1.0"), ("web", ""), (ODD_NAME, "<&>")])
def test_a_descriptor_of_any_name_and_version_keeps_the_schema(
    schema: xmlschema.XMLSchema10, name: str, version: str
) -> None:
    schema.validate(describe(name=name, version=version))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<rasd:InstanceID>3</rasd:InstanceID>", ""),
        (
            "<rasd:ResourceType>17</rasd:ResourceType>",
            "<rasd:ResourceType>disk</rasd:ResourceType>",
        ),
        ("<Info>Networks</Info>", ""),
        ("<vssd:InstanceID>0</vssd:InstanceID>", ""),
        (' ovf:id="101"', ""),
        (' ovf:capacity="1073741824"', ""),
        (' ovf:size="100"', ' ovf:size="-1"'),
        (' ovf:userConfigurable="true"', ' ovf:userConfigurable="perhaps"'),
        ("<Name>", "<Title/><Name>"),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    schema: xmlschema.XMLSchema10, old: str, new: str
) -> None:
    text = describe()
    assert old in text
    assert schema.is_valid(text)
    assert not schema.is_valid(text.replace(old, new, 1))


def test_a_package_of_any_name_keeps_schema_and_manifest(
    disk: Disk, tmp_path: Path, task: Task, schema: xmlschema.XMLSchema10
) -> None:
    (path,) = export(
        disk, "ova", tmp_path / "a.ova", task, name=ODD_NAME, arch="aarch64", firmware="uefi"
    )
    files = contents(path)
    assert list(files) == ["R-D-web-1.ovf", "R-D-web-1.mf", "R-D-web-1-disk1.vmdk"]
    text = files["R-D-web-1.ovf"].decode()
    schema.validate(text)
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{OVF}VirtualSystem/{OVF}Name") == ODD_NAME
    back = raw.inspect(foreign.convert(path, tmp_path / "back.raw", task))
    assert back.sha256 == disk.sha256
    for changed in ("R-D-web-1.ovf", "R-D-web-1-disk1.vmdk"):
        digest = hashlib.sha256(files[changed]).hexdigest()
        wrong = files["R-D-web-1.mf"].replace(digest.encode(), digest[::-1].encode())
        assert wrong != files["R-D-web-1.mf"]
        lying = pack(tmp_path / "lying.ova", {**files, "R-D-web-1.mf": wrong})
        refused(lying, tmp_path, task, f"{changed} is not what its manifest says")


@pytest.mark.parametrize(
    ("arch", "controller", "kind", "shared"),
    [
        ("x86_64", None, "5", False),
        ("x86_64", "ide", "5", True),
        ("x86_64", "ahci", "5", False),
        ("aarch64", None, "20", False),
        ("aarch64", "ahci", "20", True),
    ],
)
def test_a_drive_is_there_for_the_properties(
    arch: Arch, controller: Controller | None, kind: str, shared: bool
) -> None:
    """The transport "iso" puts them on a CD. ESXi on aarch64 has no IDE."""
    text = describe("uefi", Hardware(controller=controller), arch=arch)
    found = items(text)
    (drive,) = [item for item in found if item["ResourceType"] == "15"]
    (hard_disk,) = [item for item in found if item["ResourceType"] == "17"]
    (parent,) = [item for item in found if item["InstanceID"] == drive["Parent"]]
    assert parent["ResourceType"] == kind
    assert (drive["Parent"] == hard_disk["Parent"]) is shared
    places = {(item["Parent"], item["AddressOnParent"]) for item in (drive, hard_disk)}
    assert len(places) == 2
    (element,) = [
        item
        for item in ElementTree.fromstring(text).iter(f"{OVF}Item")
        if item.findtext(f"{RASD}ResourceType") == "15"
    ]
    assert element.get(f"{OVF}required") == "false", "an importer may leave it out"


@pytest.mark.parametrize(
    ("firmware", "setting", "kind", "sub_type"),
    [
        ("bios", "bios", "5", None),
        ("uefi", "efi", "20", "vmware.nvme.controller"),
        ("bios+uefi", "efi", "20", "vmware.nvme.controller"),
    ],
)
def test_the_controller_boots_by_the_firmware_of_the_disk(
    firmware: Firmware, setting: str, kind: str, sub_type: str | None
) -> None:
    text = describe(firmware)
    (config,) = ElementTree.fromstring(text).iter(f"{VMW}Config")
    assert (config.get(f"{VMW}key"), config.get(f"{VMW}value")) == ("firmware", setting)
    (controller,) = [item for item in items(text) if item["InstanceID"] == "3"]
    assert (controller["ResourceType"], controller.get("ResourceSubType")) == (kind, sub_type)


@pytest.mark.parametrize(
    ("controller", "network", "sub_types"),
    [
        ("pvscsi", "vmxnet3", {"VirtualSCSI", "VmxNet3"}),
        # VirtualBox knows "VirtioNet" and "virtio-net", and not "virtio".
        ("ide", "virtio", {"VirtioNet"}),
        ("ahci", "e1000", {"vmware.sata.ahci", "E1000"}),
    ],
)
def test_the_hardware_can_be_chosen(
    controller: Controller, network: Network, sub_types: set[str]
) -> None:
    hardware = Hardware(cpus=4, memory=4096, controller=controller, network=network)
    found = [i for i in items(describe("bios", hardware)) if i["ResourceType"] != "15"]
    assert {i["ResourceSubType"] for i in found if "ResourceSubType" in i} == sub_types
    quantities = {i["ResourceType"]: i["VirtualQuantity"] for i in found if "VirtualQuantity" in i}
    assert quantities == {"3": "4", "4": "4096"}


# -- import


def test_a_package_of_others_is_read_whatever_its_order(
    package: Path, disk: Disk, tmp_path: Path, task: Task
) -> None:
    files = contents(package)
    manifest = files.pop("web.mf")
    late = pack(tmp_path / "late.ova", {**files, "web.mf": manifest})
    back = raw.inspect(foreign.convert(late, tmp_path / "back.raw", task))
    assert back.sha256 == disk.sha256
    bare = pack(tmp_path / "bare.ova", files)
    assert raw.inspect(foreign.convert(bare, tmp_path / "b.raw", task)).sha256 == disk.sha256


def refused(path: Path, tmp_path: Path, task: Task, match: str) -> None:
    with pytest.raises(PublishError, match=match):
        foreign.convert(path, tmp_path / "into" / "back.raw", task)
    assert not list((tmp_path / "into").glob("*"))


def test_a_flipped_bit_is_told_by_the_manifest(package: Path, tmp_path: Path, task: Task) -> None:
    data = bytearray(package.read_bytes())
    data[-50_000] ^= 1
    damaged = tmp_path / "damaged.ova"
    damaged.write_bytes(data)
    refused(damaged, tmp_path, task, "not what its manifest says")


@pytest.mark.parametrize("kind", ["SHA1", "SHA256", "SHA512"])
def test_manifests_of_others_are_believed_and_checked(
    package: Path, disk: Disk, tmp_path: Path, task: Task, kind: str
) -> None:
    """As VirtualBox writes them, for a machine whose name has brackets."""
    files = contents(package)
    name = "web (1).vmdk"
    text = files["web.ovf"].replace(b"web-disk1.vmdk", name.encode())
    digest = hashlib.new(kind, files["web-disk1.vmdk"]).hexdigest()
    for said, sound in ((digest, True), (digest[::-1], False)):
        told = f"{kind} ({name}) = {said}\r\n".encode()
        theirs = {"web.ovf": text, "web.mf": told, name: files["web-disk1.vmdk"]}
        path = pack(tmp_path / "theirs.ova", theirs)
        if sound:
            back = raw.inspect(foreign.convert(path, tmp_path / "back.raw", task))
            assert back.sha256 == disk.sha256
        else:
            refused(path, tmp_path, task, "is not what its manifest says")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_package_that_is_cut_short_is_refused(
    package: Path, tmp_path: Path, task: Task, keep: float
) -> None:
    short = tmp_path / "short.ova"
    data = package.read_bytes()
    short.write_bytes(data[: int(len(data) * keep)])
    refused(short, tmp_path, task, "cut short|damaged")


def test_links_and_devices_are_refused(package: Path, tmp_path: Path, task: Task) -> None:
    files = contents(package)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        path = pack(tmp_path / "link.ova", {"web.ovf": files["web.ovf"]})
        with tarfile.open(path, "a") as archive:
            member = tarfile.TarInfo("web-disk1.vmdk")
            member.type = kind
            member.linkname = "/etc/passwd"
            archive.addfile(member)
        refused(path, tmp_path, task, "no plain file")


def test_nothing_outside_the_package_is_reached(package: Path, tmp_path: Path, task: Task) -> None:
    files = contents(package)
    (tmp_path / "outside.vmdk").write_bytes(files["web-disk1.vmdk"])
    escaped = files["web.ovf"].replace(b"web-disk1.vmdk", b"../outside.vmdk")
    refused(pack(tmp_path / "out.ova", {"web.ovf": escaped}), tmp_path, task, "lacks the disk")
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 2048 FLAT "{tmp_path / "outside.vmdk"}" 0\n'
    ).encode()
    trap = pack(tmp_path / "t.ova", {"web.ovf": files["web.ovf"], "web-disk1.vmdk": text})
    refused(trap, tmp_path, task, "needs another file|cannot read")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"<Envelope", b"<!DOCTYPE x><Envelope", "document type"),
        (b"</Envelope>", b"", "no XML"),
        (b'ovf:fileRef="file1"', b"", "holds 0 disks"),
        (b'ovf:id="file1"', b'ovf:id="file1" ovf:compression="gzip"', "is compressed"),
    ],
)
def test_a_descriptor_that_cannot_be_trusted_is_refused(
    package: Path, tmp_path: Path, task: Task, old: bytes, new: bytes, match: str
) -> None:
    files = contents(package)
    assert old in files["web.ovf"]
    changed = {
        "web.ovf": files["web.ovf"].replace(old, new),
        "web-disk1.vmdk": files["web-disk1.vmdk"],
    }
    refused(pack(tmp_path / "odd.ova", changed), tmp_path, task, match)


def test_only_archives_that_begin_with_a_descriptor_are_taken_for_ovas(
    package: Path, disk: Disk, tmp_path: Path
) -> None:
    assert ova.is_ova(package)
    assert not ova.is_ova(disk.path)
    assert not ova.is_ova(pack(tmp_path / "plain.tar", {"readme": b"x"}))
