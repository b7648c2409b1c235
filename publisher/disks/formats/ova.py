"""OVA: an OVF package in one ustar archive, the descriptor first (DSP0243, 5.3).

Reading extracts nothing: the disk is found by its place in the archive.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from xml.etree import ElementTree

from publisher.errors import HostError, PublishError
from publisher.model import MIB, Extent

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 4 * MIB
_TEXT_MAX = 4 * MIB
_MEMBERS_MAX = 1000
_DIGEST = re.compile(r"^(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*$")


def write(
    into: Path, texts: dict[str, bytes], disk: Path, name: str, advance: Callable[[int], None]
) -> None:
    """Pack `texts` (in order, the descriptor first) and then the disk file as `name`.

    Owner, time and mode are fixed. `advance` hears of the bytes written and may
    raise to stop. Raises HostError when the file system is full.
    """
    try:
        with into.open("wb") as file, disk.open("rb") as content:
            for text_name, text in texts.items():
                file.write(_header(text_name, len(text)) + text + bytes(-len(text) % _BLOCK))
            size = os.fstat(content.fileno()).st_size
            file.write(_header(name, size))
            done = 0
            while done < size:
                piece = content.read(min(_CHUNK, size - done))
                if not piece:
                    raise PublishError(f"{disk.name} became shorter while it was read")
                file.write(piece)
                done += len(piece)
                advance(done)
            file.write(bytes(-size % _BLOCK + 2 * _BLOCK))
            file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
    except OSError as error:
        raise HostError(
            f"cannot write {into.name}: {error.strerror}", hint="free some space"
        ) from error


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    # ustar holds 8 GiB; more goes into GNU's base-256 field, which VMware and
    # VirtualBox read.
    form: Literal[0, 1] = tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT
    try:
        return member.tobuf(form)
    except ValueError as error:
        raise PublishError(f"{name} is too long a name for an OVA") from error


@dataclass(frozen=True, slots=True)
class Inside:
    """The disk file of an OVA: its name and where in the archive its bytes lie."""

    name: str
    extent: Extent


def is_ova(path: Path) -> bool:
    """True for a tar archive whose first member is an OVF descriptor."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            return first is not None and first.isreg() and first.name.lower().endswith(".ovf")
    except (tarfile.TarError, OSError, EOFError):
        return False


def find_disk(path: Path, check: Callable[[], None]) -> Inside:
    """The one disk of the package, its digests compared with the manifest.

    Raises PublishError for a package that is damaged, holds several disks,
    names a file that is not a plain member, or compresses it.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            members = _members(archive)
            ovf = next(iter(members.values()))
            descriptor = _read(file, ovf)
            name = _disk_name(descriptor)
            member = members.get(name)
            if member is None:
                raise PublishError(f"{path.name} lacks the disk {name!r} that it describes")
            inside = Inside(name, Extent(member.offset_data, member.size))
            if inside.extent.end > os.fstat(file.fileno()).st_size:
                raise PublishError(f"{path.name} is cut short", hint="fetch it again")
            for digest_name, kind, digest in _manifest(file, members, ovf.name):
                if digest_name in (name, ovf.name):
                    found = _digest(file, members[digest_name], kind, check)
                    if found != digest:
                        raise PublishError(
                            f"{path.name}: {digest_name} is not what its manifest says",
                            hint="fetch it again",
                        )
            return inside
    except (tarfile.TarError, EOFError) as error:
        raise PublishError(f"{path.name} is damaged: {error}", hint="fetch it again") from error


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Plain files by name; a link, a device or a second file of a name is refused."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if not member.isreg() or member.issparse():
            raise PublishError(f"the OVA holds {member.name!r}, which is no plain file")
        if member.name in found or len(found) == _MEMBERS_MAX:
            raise PublishError(f"the OVA holds {member.name!r} twice, or too many files")
        found[member.name] = member
    if not found or not next(iter(found)).lower().endswith(".ovf"):
        raise PublishError("the OVA does not begin with an OVF descriptor")
    return found


def _read(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    if member.size > _TEXT_MAX:
        raise PublishError(f"{member.name} is larger than a descriptor or manifest may be")
    file.seek(member.offset_data)
    return file.read(member.size)


def _disk_name(descriptor: bytes) -> str:
    if b"<!DOCTYPE" in descriptor or b"<!ENTITY" in descriptor:
        raise PublishError("the OVF descriptor has a document type, which OVF does not allow")
    try:
        root = ElementTree.fromstring(descriptor)  # noqa: S314 - no entities: refused above
    except ElementTree.ParseError as error:
        raise PublishError(f"the OVF descriptor is no XML: {error}") from error
    disks = root.findall(f"{_OVF}DiskSection/{_OVF}Disk")
    files = {f.get(f"{_OVF}id"): f for f in root.findall(f"{_OVF}References/{_OVF}File")}
    used = [files[ref] for d in disks if (ref := d.get(f"{_OVF}fileRef")) in files]
    if len(used) != 1:
        raise PublishError(
            f"the OVA holds {len(used)} disks", hint="extract the one to publish: tar -xf FILE"
        )
    if used[0].get(f"{_OVF}compression", "identity") not in ("identity", ""):
        raise PublishError("the disk in the OVA is compressed", hint="tar -xf FILE; gunzip DISK")
    return used[0].get(f"{_OVF}href", "")


def _manifest(
    file: BinaryIO, members: dict[str, tarfile.TarInfo], ovf: str
) -> list[tuple[str, str, str]]:
    """(file name, algorithm, hex digest) of what the manifest lists and the archive holds."""
    member = members.get(re.sub(r"(?i)\.ovf$", ".mf", ovf))
    if member is None:
        return []
    found = []
    for line in _read(file, member).decode(errors="replace").splitlines():
        match = _DIGEST.match(line)
        if match and match[2] in members:
            found.append((match[2], match[1].lower(), match[3].lower()))
    return found


def _digest(file: BinaryIO, member: tarfile.TarInfo, kind: str, check: Callable[[], None]) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    file.seek(member.offset_data)
    left = member.size
    while left:
        check()
        piece = file.read(min(_CHUNK, left))
        if not piece:
            raise PublishError(f"the OVA ends within {member.name}", hint="fetch it again")
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()
