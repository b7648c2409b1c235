"""Disk files of other tools (qcow2, vmdk, vhd, vhdx, vdi, raw, and OVA), read
through qemu-img."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from publisher.disks import bounded
from publisher.disks.detect import Part, detect
from publisher.disks.formats import ova
from publisher.disks.references import references
from publisher.errors import HostError, PublishError
from publisher.model import Extent
from publisher.task import Task

_MARKED = (".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi")
"""Endings of formats that are known by their content; anything else is taken for raw."""


def _unchecked() -> None:
    pass


def describe(path: Path, check: Callable[[], None] = _unchecked) -> dict[str, Any]:
    """What qemu-img says of a file: "format", "virtual-size" in bytes and more.

    Raises PublishError when the file is missing, not a disk, or names another
    file that would be read with it, before anything opens that.
    """
    return _Source(path, check).examine()


def is_packed(path: Path) -> bool:
    """Whether the disk is a part of the file (an OVA), which only `convert` reads."""
    return ova.is_ova(path)


def opening(path: Path, check: Callable[[], None]) -> tuple[list[str], dict[str, Any]]:
    """The arguments (`-f FORMAT` and a name) by which qemu's tools open a file for
    reading, and what `describe` says of it, with the same refusals."""
    source = _Source(path, check)
    info = source.examine()
    return source.arguments, info


class _Source:
    """A disk file as qemu-img is to open it: by its name and format; as a part of the
    file for the disk in an OVA. Never one that names files of somebody else's choice."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        if not path.is_file():
            raise PublishError(f"{path} does not exist or is not a file", hint="check the path")
        # Absolute, or qemu-img takes what stands before a colon for a protocol.
        self.path = path = path.absolute()
        self._check = check
        inside = ova.find_disk(path, check).extent if ova.is_ova(path) else None
        self.kind = self._detect(inside)
        if inside is None:
            self.arguments = ["-f", self.kind, str(path)]
        else:
            part = {
                "driver": "raw",
                "offset": inside.offset,
                "size": inside.length,
                "file": {"driver": "file", "filename": str(path)},
            }
            self.arguments = ["json:" + json.dumps({"driver": self.kind, "file": part})]

    def _detect(self, inside: Extent | None) -> str:
        with self.path.open("rb") as file:
            part = Part(file, inside)
            try:
                kind = "vmdk" if inside is not None else detect(part)
                named = next(references(kind, part, None if inside else self.path), None)
            except PublishError as error:
                raise PublishError(f"{self.path}: {error.message}", hint=error.hint) from error
        if named is not None:
            raise PublishError(
                f"{self.path} needs another file ({named})",
                hint="flatten it where you trust both: qemu-img convert -O qcow2 FILE disk.qcow2",
            )
        return kind

    def examine(self) -> dict[str, Any]:
        """What `describe` says, with its refusals."""
        info = _info(self.path, self.arguments, self._check)
        if not info["virtual-size"]:
            raise PublishError(f"{self.path} is empty", hint="give a disk image")
        if self.kind == "raw" and self.path.suffix.lower() in _MARKED:
            raise PublishError(
                f"{self.path} is named {self.path.suffix} but holds no such disk",
                hint="fetch it again; if it holds the disk's plain bytes, name it .raw",
            )
        self.refuse_damaged()
        return info

    def refuse_damaged(self) -> None:
        """qemu-img convert reads what a truncated qcow2 lacks as zeros and reports
        success, so its check is asked first (exit codes: qemu-img(1), "check")."""
        answer = bounded.qemu_img("check", "-q", *self.arguments, check=self._check)
        sound, only_leaks, not_supported = 0, 3, 63
        if answer.stopped or answer.status not in (sound, only_leaks, not_supported):
            raise PublishError(
                f"{self.path} is damaged or cut short: {answer.complaint}",
                hint="fetch or convert it again",
            )


def info(path: Path, kind: str) -> dict[str, Any]:
    """What qemu-img says of a file of our own, of the format `kind`."""
    return _info(path, ["-f", kind, str(path.absolute())], _unchecked)


def _info(path: Path, arguments: list[str], check: Callable[[], None]) -> dict[str, Any]:
    answer = bounded.qemu_img("info", "--output=json", *arguments, check=check)
    if answer.stopped or answer.status != 0:
        raise PublishError(
            f"qemu-img cannot read {path}: {answer.complaint}", hint="is it a disk image?"
        )
    info: dict[str, Any] = json.loads(answer.out)
    return info


def convert(path: Path, into: Path, task: Task) -> Path:
    """Write the virtual bytes of any disk file as a sparse raw file."""
    source = _Source(path, task.check)
    info = source.examine()
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(into.name + ".partial")
    task.phase(f"converting {path.name} ({source.kind}) to raw")

    def check() -> None:
        task.check()
        with contextlib.suppress(FileNotFoundError):
            task.progress(partial.stat().st_blocks * 512, info["virtual-size"])

    try:
        answer = bounded.qemu_img(
            *("convert", "-O", "raw", "-W", *source.arguments, str(partial)),
            check=check,
            endless=True,
        )
        if answer.stopped or answer.status != 0:
            full = shutil.disk_usage(into.parent).free < info["virtual-size"]
            raise HostError(
                f"qemu-img could not convert {path}: {answer.complaint}",
                hint="free some space" if full else "check the file with qemu-img check",
            )
        os.replace(partial, into)
    finally:
        partial.unlink(missing_ok=True)
    return into
