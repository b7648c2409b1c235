"""The identifiers of a disk, derived from its name and version: two versions
never share a file system UUID, two builds of one version always do."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("6f2d3a53-6c0c-5d6e-9d1a-3f0a1d6f0b57")


@dataclass(frozen=True, slots=True)
class Identity:
    """`esp_serial` is the FAT serial number as 8 hex digits."""

    disk: uuid.UUID
    bios_partition: uuid.UUID
    esp_partition: uuid.UUID
    root_partition: uuid.UUID
    root: uuid.UUID
    hash_seed: uuid.UUID
    esp_serial: str

    @property
    def esp(self) -> str:
        """As /dev/disk/by-uuid names it."""
        return f"{self.esp_serial[:4]}-{self.esp_serial[4:]}"


def derive(name: str, version: str) -> Identity:
    def part(what: str) -> uuid.UUID:
        return uuid.uuid5(_NAMESPACE, f"{name}\0{version}\0{what}")

    return Identity(
        disk=part("disk"),
        bios_partition=part("bios partition"),
        esp_partition=part("esp partition"),
        root_partition=part("root partition"),
        root=part("root"),
        hash_seed=part("hash seed"),
        esp_serial=part("esp").hex[:8].upper(),
    )
