"""The inventory: packages of every manager, in documents that the official tools accept."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.cli.main import run
from publisher.disks import raw
from publisher.errors import UsageError
from publisher.proof import inventory
from publisher.proof.inventory import Inventory
from publisher.proof.inventory.languages import Unread
from publisher.proof.inventory.licenses import identifier, parts
from publisher.task import detached
from tests.unit.ext_disk import ext_disk

RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
STATUS = """\
Package: hello
Status: install ok installed
Maintainer: Santiago Vila <sanvila@debian.org>
Architecture: amd64
Version: 2:2.10-3+b1
Source: hello-src (2.10-3)
Description: example
 Package: not-a-package
Homepage: https://www.gnu.org/software/hello/

Package: gone
Status: deinstall ok config-files
Version: 1

Package: python3-owned
Status: install ok installed
Version: 1.0-1
Architecture: all
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: GPL-3+

Files: debian/*
License: Expat, and beerware

License: GPL-3+
 The text.
"""
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: 1.5\nLicense: MIT\n\nText\n"
SITE = "/usr/lib/python3/dist-packages"
DEBIAN: Mapping[str, str] = {
    "/etc/os-release": RELEASE,
    "/var/lib/dpkg/status": STATUS,
    "/usr/share/doc/hello/copyright": COPYRIGHT,
    "/var/lib/dpkg/info/python3-owned.list": f"{SITE}/owned-1.5.dist-info/METADATA\n",
    f"{SITE}/owned-1.5.dist-info/METADATA": METADATA.format("owned"),
    "/usr/local/lib/python3.11/dist-packages/Own_Thing-1.5.dist-info/METADATA": METADATA.format(
        "Own_Thing"
    ),
    "/srv/app/venv/lib/python3.11/site-packages/old.egg-info/PKG-INFO": METADATA.format("old"),
    "/srv/app/node_modules/@me/left/package.json": json.dumps(
        {"name": "@me/left", "version": "1.0.0", "license": "ISC", "author": {"name": "Me"}}
    ),
    "/srv/app/node_modules/nameless/package.json": '{"type": "module"}',
    "/srv/app/package.json": json.dumps({"name": "the-app-itself", "version": "1.0.0"}),
}


def listed(tmp_path: Path, files: Mapping[str, str | bytes]) -> Inventory:
    disk = raw.inspect(ext_disk(tmp_path, files))
    return inventory.collect(disk, detached(tmp_path / "memory"))


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return listed(tmp_path_factory.mktemp("debian"), DEBIAN)


def test_packages_of_dpkg_with_their_source_and_distribution(debian: Inventory) -> None:
    hello = next(c for c in debian.components if c.name == "hello")
    assert hello.purl == (
        "pkg:deb/debian/hello@2:2.10-3%2Bb1?arch=amd64&distro=debian-12&upstream=hello-src%402.10-3"
    )
    assert hello.licenses == ("GPL-3.0-or-later", "MIT", "beerware")
    assert (hello.supplier, hello.homepage) == (
        "Santiago Vila",
        "https://www.gnu.org/software/hello/",
    )


def test_what_is_removed_is_not_listed(debian: Inventory) -> None:
    assert [c.name for c in debian.components if c.kind == "deb"] == ["hello", "python3-owned"]


def test_python_and_node_wherever_they_are_but_not_twice(debian: Inventory) -> None:
    others = [c.purl for c in debian.components if c.kind != "deb"]
    assert others == ["pkg:npm/%40me/left@1.0.0", "pkg:pypi/old@1.5", "pkg:pypi/own-thing@1.5"]
    assert debian.counts == {"deb": 2, "npm": 1, "pypi": 2}
    assert debian.gaps == ()


STATES = (
    "install ok installed",
    "hold ok installed",
    "install ok unpacked",
    "install ok half-configured",
    "install reinstreq half-installed",
    "install ok triggers-awaited",
    "install ok triggers-pending",
    "deinstall ok config-files",
    "purge ok not-installed",
)


def test_what_dpkg_has_not_finished_is_on_the_disk_too(tmp_path: Path) -> None:
    status = "".join(
        f"Package: p{number}\nStatus: {state}\nVersion: 1\n\n"
        for number, state in enumerate(STATES)
    )
    found = listed(tmp_path, {"/etc/os-release": RELEASE, "/var/lib/dpkg/status": status})
    assert [c.name for c in found.components] == [f"p{number}" for number in range(7)]


def test_packages_of_python_and_node_in_all_their_forms(tmp_path: Path) -> None:
    conda = {"name": "numpy", "version": "2.0", "build": "py312_0", "license": "BSD-3-Clause"}
    left = json.dumps({"name": "left", "version": "1.0.0"})
    found = listed(
        tmp_path,
        {
            **{name: DEBIAN[name] for name in ("/etc/os-release", "/var/lib/dpkg/status")},
            "/opt/Old-1.5-py3.11.egg/EGG-INFO/PKG-INFO": METADATA.format("old"),
            "/opt/conda/conda-meta/numpy-2.0.json": json.dumps(conda),
            "/opt/conda/conda-meta/history": "==>",
            "/opt/app/node_modules/left/package.json": b"\xef\xbb\xbf" + left.encode(),
        },
    )
    assert [c.purl for c in found.components if c.kind != "deb"] == [
        "pkg:conda/numpy@2.0?build=py312_0",
        "pkg:npm/left@1.0.0",
        "pkg:pypi/old@1.5",
    ]
    assert found.gaps == ()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/opt/app/node_modules/x/package.json", b"{"),
        ("/opt/app/node_modules/x/package.json", b"[1]"),
        ("/opt/app/node_modules/x/package.json", "{}".encode("utf-16")),
        ("/opt/app/node_modules/x/package.json", b"[" * 100_000),
        ("/opt/v/site-packages/x-1.dist-info/METADATA", b"Name: x\n\n"),
        ("/opt/zipped-1.0-py3.11.egg", b"PK\3\4 whatever"),
        ("/opt/conda/conda-meta/x-1.json", b'{"name": "x"}'),
    ],
)
def test_what_should_describe_a_package_and_does_not_is_a_gap(
    tmp_path: Path, path: str, content: bytes
) -> None:
    system = {name: DEBIAN[name] for name in ("/etc/os-release", "/var/lib/dpkg/status")}
    found = listed(tmp_path, {**system, path: content})
    assert found.gaps == (f"no package can be read from {path}",)


def test_a_gap_does_not_name_files_without_end() -> None:
    unread = Unread()
    for number in range(30):
        unread.add(f"/{number}")
    (told,) = unread.told()
    assert told.endswith(", /19 and 10 more")


def test_every_place_of_a_package_is_told(tmp_path: Path) -> None:
    places = tuple(f"/opt/{n}/site-packages/x-1.5.dist-info/METADATA" for n in ("a", "b"))
    found = listed(tmp_path, {**DEBIAN, **dict.fromkeys(places, METADATA.format("x"))})
    (one,) = (c for c in found.components if c.name == "x")
    assert one.paths == places
    bom = json.loads(inventory.document(found, "cyclonedx"))
    (shown,) = (c for c in bom["components"] if c["name"] == "x")
    assert shown["evidence"]["occurrences"] == [{"location": place} for place in places]
    spdx = json.loads(inventory.document(found, "spdx"))
    (shown,) = (p for p in spdx["packages"] if p["name"] == "x")
    assert shown["sourceInfo"] == f"described in {', '.join(places)}"


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("ID=debian\n", "packages of dpkg: debian keeps a list"),
        ('ID=rocky\nID_LIKE="rhel centos fedora"\n', "packages of rpm: rocky keeps a list"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "packages of rpm: opensuse-leap keeps"),
        ("ID=alpine\n", "packages of apk: alpine keeps a list"),
        ("ID=arch\n", "there is no list of packages of dpkg, rpm or apk"),
    ],
)
def test_a_system_whose_list_of_packages_is_gone_is_not_complete(
    tmp_path: Path, release: str, told: str
) -> None:
    found = listed(tmp_path, {"/etc/os-release": release, "/etc/fstab": ""})
    assert found.components == ()
    (gap,) = found.gaps
    assert gap.startswith(told)
    bom = json.loads(inventory.document(found, "cyclonedx"))
    assert bom["compositions"][0]["aggregate"] == "incomplete"


def test_the_list_of_another_manager_does_not_stand_for_the_distributions_own(
    tmp_path: Path,
) -> None:
    found = listed(tmp_path, {**DEBIAN, "/etc/os-release": "ID=fedora\n"})
    assert found.counts["deb"] == 2
    assert [gap.partition(":")[0] for gap in found.gaps] == ["packages of rpm"]


APK = """\
P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
m:Timo <timo@example.org>
F:lib
R:ld-musl-x86_64.so.1

P:py3-x
V:1.0-r0
A:noarch
L:GPL-2.0-or-later AND MIT
F:usr/lib/python3.11/site-packages/x-1.5.dist-info
R:METADATA
"""


@pytest.mark.parametrize("database", ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"])
def test_packages_of_apk(tmp_path: Path, database: str) -> None:
    found = listed(
        tmp_path,
        {
            "/etc/os-release": "ID=alpine\nVERSION_ID=3.19.1\n",
            database: APK,
            "/usr/lib/python3.11/site-packages/x-1.5.dist-info/METADATA": METADATA.format("x"),
        },
    )
    assert [c.purl for c in found.components] == [
        "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19.1",
        "pkg:apk/alpine/py3-x@1.0-r0?arch=noarch&distro=alpine-3.19.1",
    ]
    assert found.components[1].licenses == ("GPL-2.0-or-later", "MIT")


# -- rpm


def header(fields: Mapping[int, str | int | list[str]]) -> bytes:
    """A header as rpm keeps it in its databases."""
    index, data = b"", b""
    for tag, value in fields.items():
        if isinstance(value, int):
            data += bytes(-len(data) % 4)
            kind, count, piece = 4, 1, struct.pack(">i", value)
        elif isinstance(value, list):
            kind, count, piece = 8, len(value), b"".join(v.encode() + b"\0" for v in value)
        else:
            kind, count, piece = 6, 1, value.encode() + b"\0"
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += piece
    return struct.pack(">II", len(fields), len(data)) + index + data


BASH = header(
    {
        1000: "bash",
        1001: "5.2.26",
        1002: "3.fc40",
        1003: 1,
        1011: "Fedora Project",
        1014: "GPL-3.0-or-later",
        1022: "x86_64",
        1044: "bash-5.2.26-3.fc40.src.rpm",
        1116: 0,
        1117: ["METADATA"],
        1118: ["/usr/lib/python3.12/site-packages/y.dist-info/"],
    }
)
KEY = header({1000: "gpg-pubkey", 1001: "a15b79cc", 1002: "63d04c2c"})
FEDORA = {
    "/etc/os-release": "ID=fedora\nVERSION_ID=40\n",
    "/usr/lib/python3.12/site-packages/y.dist-info/METADATA": METADATA.format("y"),
}


def sqlite(tmp_path: Path) -> bytes:
    path = tmp_path / "rpmdb.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(BASH,), (KEY,)])
    database.close()
    return path.read_bytes()


def ndb(_: Path) -> bytes:
    pages, blobs = bytearray(4096), b""
    pages[:16] = struct.pack("<4sIII", b"RpmP", 0, 1, 1)
    for number, blob in enumerate((BASH, KEY), 1):
        block = (4096 + len(blobs)) // 16
        slot = struct.pack("<4sIII", b"Slot", number, block, -(-(len(blob) + 28) // 16))
        pages[16 * (number + 1) : 16 * (number + 2)] = slot
        whole = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        blobs += whole + bytes(-len(whole) % 16)
    return bytes(pages) + blobs


def test_what_rpm_has_only_written_into_the_log_of_its_database_counts(tmp_path: Path) -> None:
    """A write-ahead log, as a machine leaves it that was not shut down."""
    path = tmp_path / "rpmdb.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("INSERT INTO Packages (blob) VALUES (?)", (BASH,))
    database.commit()
    files = {f"/var/lib/rpm/{p.name}": p.read_bytes() for p in tmp_path.glob("rpmdb.sqlite*")}
    database.close()
    assert len(files["/var/lib/rpm/rpmdb.sqlite-wal"]) > 0
    found = listed(tmp_path, {**FEDORA, **files})
    assert [c.name for c in found.components if c.kind == "rpm"] == ["bash"]


@pytest.mark.parametrize(
    ("path", "content"),
    [("/usr/lib/sysimage/rpm/rpmdb.sqlite", sqlite), ("/var/lib/rpm/Packages.db", ndb)],
)
def test_packages_of_rpm(tmp_path: Path, path: str, content: Any) -> None:
    found = listed(tmp_path, {**FEDORA, path: content(tmp_path)})
    [bash] = found.components
    assert bash.purl == (
        "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&distro=fedora-40&epoch=1"
        "&upstream=bash-5.2.26-3.fc40.src.rpm"
    )
    assert (bash.licenses, bash.supplier) == (("GPL-3.0-or-later",), "Fedora Project")


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("/var/lib/rpm/Packages", b"\0" * 64, "is no hash of Berkeley DB"),
        ("/var/lib/rpm/Packages", b"", "packages of rpm"),
        ("/var/lib/rpm/rpmdb.sqlite", b"SQLite format 3\0" + b"\xff" * 500, "can't be read"),
        ("/var/lib/rpm/Packages.db", b"RpmP" + b"\xff" * 5000, "no database of rpm"),
        ("/var/lib/rpm/Packages.db", b"RpmP", "packages of rpm"),
    ],
    ids=["no Berkeley DB", "empty", "damaged SQLite", "damaged ndb", "cut short"],
)
def test_what_can_not_be_read_is_a_gap_and_never_silence(
    tmp_path: Path, path: str, content: bytes, why: str
) -> None:
    found = listed(tmp_path, {**FEDORA, path: content})
    assert len(found.gaps) == 1
    assert why in found.gaps[0]
    bom = json.loads(inventory.document(found, "cyclonedx"))
    assert bom["compositions"][0]["aggregate"] == "incomplete"
    spdx = json.loads(inventory.document(found, "spdx"))
    assert why in spdx["creationInfo"]["comment"]


def test_a_disk_without_an_installation_is_one_gap(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"x" * 1_000_000)
    found = inventory.collect(raw.inspect(disk), detached(tmp_path / "memory"))
    assert found.components == ()
    assert len(found.gaps) == 1


# -- documents


@pytest.mark.long
def test_cyclonedx_is_valid_by_its_official_schema(debian: Inventory) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = inventory.document(debian, "cyclonedx", name="web", version="1.0.0").decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert bom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": debian.digest}]
    assert {c["bom-ref"] for c in bom["components"]} >= {c.purl for c in debian.components}
    assert bom["compositions"][0]["aggregate"] == "complete"


@pytest.mark.long
def test_spdx_is_valid_by_the_official_tools(debian: Inventory) -> None:
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    data = json.loads(inventory.document(debian, "spdx", name="web", version="1.0.0"))
    parsed = JsonLikeDictParser().parse(data)  # type: ignore[no-untyped-call]
    assert [message.validation_message for message in validate_full_spdx_document(parsed)] == []
    purls = {ref.locator for package in parsed.packages for ref in package.external_references}
    assert purls == {component.purl for component in debian.components}


def test_the_same_disk_gives_the_same_bytes_and_another_one_another_serial(
    debian: Inventory, tmp_path: Path
) -> None:
    again = listed(tmp_path, DEBIAN)
    for kind in inventory.FORMATS:
        assert inventory.document(again, kind, created=1) != inventory.document(debian, kind)
        twice = [inventory.document(debian, kind, created=1) for _ in range(2)]
        assert twice[0] == twice[1]
    serials = [
        json.loads(inventory.document(one, "cyclonedx"))["serialNumber"] for one in (again, debian)
    ]
    assert serials[0] != serials[1]


def test_the_time_is_when_the_disk_was_written_or_what_is_given(debian: Inventory) -> None:
    assert debian.written > 1_700_000_000
    bom = json.loads(inventory.document(debian, "cyclonedx", created=86400))
    assert bom["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"


def test_both_are_stored_with_their_digests(debian: Inventory, tmp_path: Path) -> None:
    stored = inventory.store(debian, tmp_path / "sbom", name="web", version="1.0.0")
    assert [(d.format, Path(d.path).name) for d in stored] == [
        ("cyclonedx", "sbom.cdx.json"),
        ("spdx", "sbom.spdx.json"),
    ]
    for document in stored:
        assert hashlib.sha256(Path(document.path).read_bytes()).hexdigest() == document.sha256
    assert len(list((tmp_path / "sbom").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("public-domain", ""),
    ],
)
def test_licences_get_the_identifiers_of_spdx(name: str, expected: str) -> None:
    assert identifier(name) == expected


def test_an_expression_names_its_parts() -> None:
    assert parts("GPL-2+ or (Artistic, and Expat)") == [
        "GPL-2.0-or-later",
        "Artistic-1.0-Perl",
        "MIT",
    ]


# -- the command


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    disk, into = ext_disk(tmp_path, DEBIAN), tmp_path / "sbom.json"
    assert run(["inventory", str(disk), "--format", "spdx", "-o", str(into)]) == 0
    assert json.loads(into.read_text())["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    assert "2 deb, 1 npm, 2 pypi" in capsys.readouterr().err
    assert run(["inventory", str(disk), "--format", "csv"]) == UsageError.exit_code
