"""Disk files of other tools (qcow2, vmdk, vhd, vhdx, vdi, raw), read through qemu-img."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from publisher.errors import HostError, PublishError
from publisher.task import Task


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
    if not path.is_file():
        raise PublishError(f"{path} does not exist or is not a file", hint="check the path")
    answer = _qemu_img("info", "--output=json", str(path))
    if answer.returncode != 0:
        raise PublishError(
            f"qemu-img cannot read {path}: {answer.stderr.strip()}", hint="is it a disk image?"
        )
    info: dict[str, Any] = json.loads(answer.stdout)
    if info.get("backing-filename") or info.get("data-file"):
        raise PublishError(
            f"{path} needs another file ({info.get('backing-filename')})",
            hint="flatten it first: qemu-img convert",
        )
    _refuse_damaged(path, info["format"])
    return info


def _refuse_damaged(path: Path, kind: str) -> None:
    """qemu-img convert reads what a truncated qcow2 lacks as zeros and reports
    success, so its check is asked first (exit codes: qemu-img(1), "check")."""
    answer = _qemu_img("check", "-q", "-f", kind, str(path))
    sound, only_leaks, not_supported = 0, 3, 63
    if answer.returncode not in (sound, only_leaks, not_supported):
        first, *_ = (answer.stderr or answer.stdout or "no details").strip().splitlines()
        raise PublishError(
            f"{path} is damaged or cut short: {first}", hint="fetch or convert it again"
        )


def convert(path: Path, into: Path, task: Task) -> Path:
    """Write the virtual bytes of any disk file as a sparse raw file."""
    info = describe(path)
    partial = into.with_name(into.name + ".partial")
    into.parent.mkdir(parents=True, exist_ok=True)
    task.phase(f"converting {path.name} ({info['format']}) to raw")
    task.check()
    process = subprocess.Popen(
        ["qemu-img", "convert", "-f", info["format"], "-O", "raw", "-W", str(path), str(partial)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
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
