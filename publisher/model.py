"""The nouns: frozen, without I/O, and each one JSON both ways (`to_json`, `from_json`)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

SECTOR = 512
MIB = 1024**2
GIB = 1024**3

Arch: TypeAlias = Literal["x86_64", "aarch64"]
Firmware: TypeAlias = Literal["bios", "uefi", "bios+uefi"]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


class Noun:
    """Base of the nouns. Unknown keys in `from_json` are ignored, so that an
    older program reads a newer journal."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: v for k, v in data.items() if k in names})


@dataclass(frozen=True, slots=True)
class Extent(Noun):
    """A run of bytes that hold data; what lies between extents reads as zeros."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Disk(Noun):
    """A local virtual disk as a sparse raw file.

    `size` is the virtual size in bytes; `sha256` is the hex digest of all
    `size` bytes, holes read as zeros; `extents` ascend and do not touch.
    """

    path: Path
    size: int
    sha256: str
    extents: tuple[Extent, ...]
    format: str = "raw"

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        extents = tuple(
            Extent(**e) if isinstance(e, Mapping) else Extent(*e) for e in data["extents"]
        )
        return cls(
            Path(data["path"]), data["size"], data["sha256"], extents, data.get("format", "raw")
        )


@dataclass(frozen=True, slots=True)
class Spec(Noun):
    """What a provider is asked to publish: the same for every cloud.

    `digest` is the disk's sha256 and empty before the disk exists; `size` is
    its virtual size in bytes; `run` identifies the run that creates resources.
    `tags` are the user's own, besides the identity that every resource carries.
    `abilities` is what the disk bears of what this cloud can be told of an image, in
    the words of its Guest; None where nobody looked.
    """

    name: str
    version: str
    arch: Arch = "x86_64"
    firmware: Firmware = "bios+uefi"
    size: int = 0
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    run: str = ""
    abilities: tuple[str, ...] | None = None

    def bears(self, ability: str) -> bool:
        """What nobody looked for is taken to be there."""
        return self.abilities is None or ability in self.abilities

    def to_json(self) -> dict[str, Any]:
        # a step's key is made of it before there is a disk
        plain = Noun.to_json(self)
        if self.abilities is None:
            del plain["abilities"]
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        given = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        if given.get("abilities") is not None:
            given["abilities"] = tuple(given["abilities"])
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Upload(Noun):
    """Bytes in a cloud, not bootable yet. `ref` is the vendor's id."""

    provider: str
    region: str
    ref: str
    digest: str
    details: Mapping[str, str] = field(default_factory=dict)


AudienceKind: TypeAlias = Literal["private", "shared", "public"]


@dataclass(frozen=True, slots=True)
class Audience(Noun):
    """Who may use an image. `accounts` (vendor account, project or subscription
    ids, principals) only where `kind` is "shared"."""

    kind: AudienceKind = "private"
    accounts: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["kind"], tuple(data.get("accounts", ())))


ImageState: TypeAlias = Literal["pending", "available", "failed"]


@dataclass(frozen=True, slots=True)
class Image(Noun):
    """A registered image in one region.

    `ref` is what `migrate` accepts after "PROVIDER:", such as
    "us-east-1/ami-0123"; `details` holds the vendor's other ids as text.
    `audience` is what the cloud says, not what was asked for. `digest` is that of
    the disk which the image's own tags state. `uid` is what the cloud gave this image
    when it was made, and gives to no other one under the same `ref`, nor lets anybody
    set; empty where `ref` is such a thing itself, or where there is none.
    """

    provider: str
    region: str
    ref: str
    name: str
    version: str
    digest: str
    state: ImageState = "available"
    audience: Audience = Audience()
    details: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""

    @property
    def reference(self) -> str:
        return f"{self.provider}:{self.ref}"

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from all others of its cloud: one reference may stand for
        an image in several regions."""
        return self.ref, self.region

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        given = {k: v for k, v in data.items() if k in known}
        given["audience"] = Audience.from_json(given.get("audience", {"kind": "private"}))
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Query(Noun):
    """What to look for among the resources that this program made; empty fields match all."""

    name: str = ""
    version: str = ""
    digest: str = ""
    run: str = ""

    def matches(self, *, name: str, version: str, digest: str, run: str = "") -> bool:
        return (
            self.name in ("", name)
            and self.version in ("", version)
            and self.digest in ("", digest)
            and self.run in ("", run)
        )


class Severity(enum.StrEnum):
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding(Noun):
    """A result of a check: `rule` is its id, `evidence` what was seen and where,
    `fix` the next action, `key` the pipeline's key path if one is to blame; `path`
    and `line` are the place within the disk's file systems that `evidence` tells of."""

    rule: str
    severity: Severity
    evidence: str
    fix: str = ""
    key: str = ""
    path: str = ""
    line: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            data["rule"],
            Severity(data["severity"]),
            data["evidence"],
            data.get("fix", ""),
            data.get("key", ""),
            data.get("path", ""),
            data.get("line", 0),
        )
