"""What was not searched, or as bytes alone: where no file can be asked for by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from publisher.model import Extent, Finding, Severity
from publisher.proof.inspect.partitions import BIOS_BOOT, PREP
from publisher.proof.inspect.volume import Volume

ACCEPT = ': in [secrets], ignore = [{{ rule = "secrets.{}", reason = "…" }}]'
_LOADERS = (BIOS_BOOT, PREP)
"""Partitions of a boot loader's bytes, without files."""


def unexamined(evidence: str) -> Finding:
    fix = "look into that by other means, and accept it" + ACCEPT.format("unexamined")
    return Finding("secrets.unexamined", Severity.WARNING, evidence, fix)


def unread(volumes: Sequence[Volume], data: Sequence[Extent]) -> Iterator[Finding]:
    """One for each volume whose files can't be listed. `data` is where the disk holds any."""
    if not volumes and data:
        yield unexamined(
            "no file was looked for by its name: the disk has no partition table and no file "
            "system that is known here"
        )
    for volume in volumes:
        if volume.files is not None or volume.kind == "swap":
            continue
        if volume.fault is not None:
            reason = volume.fault.message
        elif volume.kind or _is_loader(volume) or not _holds_data(volume, data):
            continue
        else:
            reason = "no known file system"
        yield unexamined(f"no file of {volume.title} was looked for by its name: {reason}")


def _is_loader(volume: Volume) -> bool:
    return volume.partition is not None and volume.partition.kind in _LOADERS


def _holds_data(volume: Volume, data: Sequence[Extent]) -> bool:
    parts = volume.parts or ()
    return any(one.offset < other.end and other.offset < one.end for one in parts for other in data)
