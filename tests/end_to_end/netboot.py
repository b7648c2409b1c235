"""Debian's netboot installers, and whether an archive has the udebs that they will ask for."""

from __future__ import annotations

import functools
import gzip
import hashlib
import lzma
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

HOST = "deb.debian.org"
MIRROR = f"http://{HOST}/debian"
INSIDE = "usr/lib/debian-installer/images/{}/amd64/text/debian-installer/amd64"
Stanza: TypeAlias = Mapping[str, str]

# anna loads these priorities; the rest comes with the sample's answers.
_PRIORITIES = ("required", "important", "standard")
_CHOSEN = (
    *("apt-setup-udeb", "base-installer", "bootstrap-base", "clock-setup", "finish-install"),
    *("grub-installer", "partman-auto", "partman-ext3", "pkgsel", "user-setup-udeb"),
)


@dataclass(frozen=True)
class Netboot:
    """The package of a netboot installer: `release` as in its files, `suite` whose main
    archive it installs, `udebs` under whose names the archive may have its udebs."""

    release: str
    suite: str
    udebs: tuple[str, ...]
    path: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return self.suite

    @functools.cached_property
    def absent(self) -> str:
        """Why there is no such package; empty when there is one."""
        if not self.path:
            there = Path("/", INSIDE.format(self.release)).is_dir()
            return (
                "" if there else f"debian-installer-{self.release}-netboot-amd64 is not installed"
            )
        return "" if has(self.path) else f"the archive has no {self.path} any more"

    def bring(self, directory: Path) -> tuple[Path, Path]:
        """Kernel and initrd."""
        root = Path("/")
        inside = INSIDE.format(self.release)
        if self.path:
            root = directory
            package = directory / "netboot.deb"
            package.write_bytes(get(self.path))
            assert hashlib.sha256(package.read_bytes()).hexdigest() == self.sha256
            _unpack(package, root, f"./{inside}/linux", f"./{inside}/initrd.gz")
            package.unlink()
        return root / inside / "linux", root / inside / "initrd.gz"


NETBOOTS = (
    Netboot("12", "bookworm", ("bookworm",)),
    # While a point release reaches the mirrors, their names of a suite can differ: this
    # is the installer of 13.6, whose kernel's modules 13.7 has, too.
    Netboot(
        "13",
        "trixie",
        ("trixie", "stable"),
        "pool/main/d/debian-installer-netboot-images/"
        "debian-installer-13-netboot-amd64_20250803+deb13u6_all.deb",
        "b14500fba1c068c7d818de1376e46151628d96d8b2f322dfcbe7a16b7b8c2fa4",
    ),
)


@dataclass(frozen=True)
class Udebs:
    """What the archive has for one kernel, under the name `suite`."""

    suite: str
    needed: tuple[str, ...]
    missing: tuple[str, ...]


def look(netboot: Netboot, linux: Path, initrd: Path) -> Udebs | str:
    """What the archive has of the udebs that this installer asks for beside those in its
    initrd; or why it can't begin."""
    why = []
    kernel = version(linux)
    # /var/lib/dpkg/status is the one file in there that has such lines
    there = set(
        re.findall(r"(?m)^Package: (\S+)$", gzip.decompress(initrd.read_bytes()).decode("latin-1"))
    )
    for suite in netboot.udebs:
        path = "main/debian-installer/binary-amd64/Packages.xz"
        packed = get(f"dists/{suite}/{path}")
        signed = re.escape(f"{hashlib.sha256(packed).hexdigest()} {len(packed)} {path}")
        release = get(f"dists/{suite}/Release").decode()
        if not re.search(signed.replace(r"\ ", " +"), release):
            why.append(f"dists/{suite} lists its udebs in a file that its Release does not have")
            continue
        stanzas = {s["Package"]: s for s in parse(lzma.decompress(packed).decode())}
        usable = {n: s for n, s in stanzas.items() if s.get("Kernel-Version", kernel) == kernel}
        if not any("Kernel-Version" in s for s in usable.values()):
            why.append(f"dists/{suite} lists no modules for {kernel}")
            continue
        standard = [n for n, s in usable.items() if s.get("Priority") in _PRIORITIES]
        needed = [n for n in _closure(usable, [*standard, *_CHOSEN]) if n not in there]
        with ThreadPoolExecutor(4) as pool:
            held = pool.map(has, (usable[name]["Filename"] for name in needed))
        missing = [name for name, is_held in zip(needed, held, strict=True) if not is_held]
        return Udebs(suite, tuple(needed), tuple(missing))
    return "; ".join(why)


def packages(suite: str, *names: str) -> list[str]:
    """Where in the archive these packages are."""
    text = lzma.decompress(get(f"dists/{suite}/main/binary-amd64/Packages.xz")).decode()
    paths = {s["Package"]: s["Filename"] for s in parse(text) if s["Package"] in names}
    return [paths[name] for name in names]


def version(kernel: Path) -> str:
    """As `uname -r` tells it: https://docs.kernel.org/arch/x86/boot.html"""
    head = kernel.read_bytes()[:0x8000]
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[at:].split(b" ", 1)[0].decode()


def parse(text: str) -> Iterator[Stanza]:
    for stanza in text.split("\n\n"):
        fields = (line.partition(": ") for line in stanza.splitlines() if line[:1].strip())
        read = {name: value for name, _, value in fields}
        if "Package" in read:
            yield read


def get(path: str) -> bytes:
    with urlopen(f"{MIRROR}/{quote(path)}", timeout=60) as answer:
        content: bytes = answer.read()
        return content


def has(path: str) -> bool:
    try:
        urlopen(Request(f"{MIRROR}/{quote(path)}", method="HEAD"), timeout=60).close()
    except HTTPError as error:
        error.close()
        return False
    return True


def reachable() -> bool:
    try:
        return has("dists/stable/Release")
    except (URLError, TimeoutError):
        return False


def _closure(stanzas: Mapping[str, Stanza], names: Iterable[str]) -> list[str]:
    """These udebs and what they need. A name that is not listed is virtual."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in stanzas and name not in found:
            found[name] = None
            waiting += _names(stanzas[name].get("Depends", ""))
    return list(found)


def _names(depends: str) -> list[str]:
    return [re.split(r"[ (|:]", one.strip(), maxsplit=1)[0] for one in depends.split(",") if one]


def _unpack(package: Path, into: Path, *members: str) -> None:
    unpacked = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", into, *members], stdin=unpacked.stdout, check=True)
    assert unpacked.stdout is not None
    unpacked.stdout.close()
    assert unpacked.wait(60) == 0
