"""Disk files of other tools (qcow2, vmdk, vhd, vhdx, vdi, raw, and OVA), read
through qemu-img."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from publisher.disks import vhd
from publisher.disks.formats import ova
from publisher.errors import HostError, PublishError
from publisher.task import Task

_MARKED = (".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi")
"""Endings of formats that are known by their content; anything else is taken for raw."""


def _qemu_img(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostError(
            "qemu-img is not installed", hint="publish doctor --fix (package qemu-utils)"
        ) from error


def describe(path: Path) -> dict[str, Any]:
    """What qemu-img says of a file: "format", "virtual-size" in bytes and more.

    Raises PublishError when the file is missing, not a disk, or names another
    file that would be read with it (a backing file of somebody else's making).
    """
    return _Source(path).examine()


def is_packed(path: Path) -> bool:
    """Whether the disk is a part of the file (an OVA), which only `convert` reads."""
    return ova.is_ova(path)


def opening(path: Path, check: Callable[[], None]) -> tuple[list[str], dict[str, Any]]:
    """The arguments (`-f FORMAT` and a name) by which qemu's tools open a file for
    reading, and what `describe` says of it, with the same refusals."""
    source = _Source(path, check=check)
    info = source.examine()
    return [*source.options(info["format"]), source.name], info


class _Source:
    """A disk file as qemu-img is to open it: by its name; with the format where
    qemu-img's guess is wrong; as a part of the file for the disk in an OVA."""

    def __init__(
        self, path: Path, kind: str = "", check: Callable[[], None] = lambda: None
    ) -> None:
        if not path.is_file():
            raise PublishError(f"{path} does not exist or is not a file", hint="check the path")
        # Absolute, or qemu-img takes what stands before a colon for a protocol.
        self.path = path = path.absolute()
        self.name = str(path)
        self._kind = kind
        self._packed = not kind and ova.is_ova(path)
        if self._packed:
            inside = ova.find_disk(path, check)
            part = {
                "driver": "raw",
                "offset": inside.extent.offset,
                "size": inside.extent.length,
                "file": {"driver": "file", "filename": str(path)},
            }
            self.name = "json:" + json.dumps({"driver": "vmdk", "file": part})
        elif not kind and _is_fixed_vhd(path):
            self._kind = "vpc"

    def options(self, kind: str = "") -> list[str]:
        """`-f FORMAT` where the name does not say it."""
        kind = self._kind or kind
        return ["-f", kind] if kind and not self._packed else []

    def examine(self) -> dict[str, Any]:
        """What `describe` says, with its refusals."""
        info = self.info()
        if info.get("backing-filename") or info.get("data-file"):
            raise PublishError(
                f"{self.path} needs another file ({info.get('backing-filename')})",
                hint="flatten it first: qemu-img convert",
            )
        if not info["virtual-size"]:
            raise PublishError(f"{self.path} is empty", hint="give a disk image")
        if info["format"] == "raw" and self.path.suffix.lower() in _MARKED:
            raise PublishError(
                f"{self.path} is named {self.path.suffix} but holds no such disk",
                hint="fetch it again; if it holds the disk's plain bytes, name it .raw",
            )
        self.refuse_strangers(info)
        self.refuse_damaged(info["format"])
        return info

    def info(self) -> dict[str, Any]:
        answer = _qemu_img("info", "--output=json", *self.options(), self.name)
        if answer.returncode != 0:
            raise PublishError(
                f"qemu-img cannot read {self.path}: {answer.stderr.strip()}",
                hint="is it a disk image?",
            )
        info: dict[str, Any] = json.loads(answer.stdout)
        return info

    def refuse_strangers(self, info: dict[str, Any]) -> None:
        """A VMDK may be a text that names other files as its extents: those next
        to it belong to it, any other file would be read without being asked for."""
        extents = info.get("format-specific", {}).get("data", {}).get("extents", ())
        for extent in extents:
            name = extent.get("filename", self.name)
            beside = Path(name).parent == self.path.parent and not Path(name).is_symlink()
            if not (name.startswith("json:") if self._packed else name == self.name or beside):
                raise PublishError(f"{self.path} needs another file ({name})")

    def refuse_damaged(self, kind: str) -> None:
        """qemu-img convert reads what a truncated qcow2 lacks as zeros and reports
        success, so its check is asked first (exit codes: qemu-img(1), "check")."""
        answer = _qemu_img("check", "-q", *self.options(kind), self.name)
        sound, only_leaks, not_supported = 0, 3, 63
        if answer.returncode not in (sound, only_leaks, not_supported):
            first, *_ = (answer.stderr or answer.stdout or "no details").strip().splitlines()
            raise PublishError(
                f"{self.path} is damaged or cut short: {first}", hint="fetch or convert it again"
            )


def info(path: Path, kind: str) -> dict[str, Any]:
    """What qemu-img says of a file that is known to be of the format `kind`."""
    return _Source(path, kind).info()


def _is_fixed_vhd(path: Path) -> bool:
    """qemu-img takes a fixed VHD for a raw disk: its mark is at the end."""
    size = path.stat().st_size
    if size < vhd.FOOTER:
        return False
    with path.open("rb") as file:
        file.seek(size - vhd.FOOTER)
        try:
            return vhd.parse(file.read(vhd.FOOTER)) == size - vhd.FOOTER
        except vhd.VhdError:
            return False


def convert(path: Path, into: Path, task: Task) -> Path:
    """Write the virtual bytes of any disk file as a sparse raw file."""
    source = _Source(path, check=task.check)
    info = source.examine()
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(into.name + ".partial")
    task.phase(f"converting {path.name} ({info['format']}) to raw")
    task.check()
    # ends with this program, also when that is killed, and not by a Ctrl-C meant for it
    bound = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
    process = subprocess.Popen(
        [
            *(*bound, "qemu-img", "convert", *source.options(info["format"])),
            *("-O", "raw", "-W", source.name, str(partial)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while True:
            try:
                _, message = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                task.check()
                if partial.exists():
                    task.progress(partial.stat().st_blocks * 512, info["virtual-size"])
    except BaseException:
        process.kill()
        process.wait()
        partial.unlink(missing_ok=True)
        raise
    if process.returncode != 0:
        partial.unlink(missing_ok=True)
        full = shutil.disk_usage(into.parent).free < info["virtual-size"]
        raise HostError(
            f"qemu-img could not convert {path}: {message.strip()}",
            hint="free some space" if full else "check the file with qemu-img check",
        )
    os.replace(partial, into)
    return into
