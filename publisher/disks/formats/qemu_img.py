"""qemu-img with progress, cancellation and errors that say what to do."""

from __future__ import annotations

import re
import selectors
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from publisher.errors import HostError, PublishError
from publisher.model import Disk
from publisher.task import Task

_PERCENT = re.compile(rb"\(([0-9.]+)/100%\)")
_NO_CHECK = 63
_LEAKS = 3


def run(arguments: Sequence[str], task: Task, total: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a qemu-img command that knows `-p`; `total` is what its 100 % are in bytes.

    The process ends with the task's cancellation. Raises HostError where
    qemu-img is missing; the exit code is the caller's to judge.
    """
    task.check()
    try:
        process = subprocess.Popen(
            ["qemu-img", arguments[0], *(["-p"] if total else []), *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise HostError(
            "qemu-img is not installed", hint="publish doctor --fix (package qemu-utils)"
        ) from error
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {process.stdout: b"", process.stderr: b""}
    with process, selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)
        try:
            while selector.get_map():
                task.check()
                for key, _ in selector.select(0.2):
                    stream = process.stdout if key.fileobj is process.stdout else process.stderr
                    piece = stream.read1(65536)  # type: ignore[attr-defined]
                    if not piece:
                        selector.unregister(stream)
                    texts[stream] = texts[stream][-65536:] + piece
                    percents = _PERCENT.findall(piece)
                    if percents and total:
                        task.progress(round(float(percents[-1]) / 100 * total), total)
        except BaseException:
            process.kill()
            raise
    out, err = (texts[s].decode(errors="replace") for s in (process.stdout, process.stderr))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def convert(disk: Disk, into: Path, format: str, options: Sequence[str], task: Task) -> None:  # noqa: A002
    """Write the disk as a file of qemu's `format`.

    In order and by one writer (no `-W`), so that the same disk gives the same
    layout. Raises HostError when the disk is full.
    """
    task.phase(f"converting to {format}")
    answer = run(
        ["convert", "-f", "raw", "-O", format, *options, str(disk.path), str(into)],
        task,
        disk.size,
    )
    if answer.returncode != 0:
        full = shutil.disk_usage(into.parent).free < disk.data_bytes
        raise HostError(
            f"qemu-img could not write {into.name}: {answer.stderr.strip()}",
            hint="free some space" if full else "check the source with qemu-img check",
        )


def verify(disk: Disk, path: Path, format: str, task: Task) -> None:  # noqa: A002
    """Read a written file back: its structure is sound, its size and bytes are
    the disk's. Raises PublishError."""
    from publisher.disks import foreign

    task.phase(f"comparing {path.name} with the disk")
    checked = run(["check", "-q", "-f", format, str(path)], task)
    if checked.returncode not in (0, _LEAKS, _NO_CHECK):
        raise PublishError(f"{path.name} is not sound: {checked.stderr.strip()}")
    size = foreign.info(path, format)["virtual-size"]
    if size != disk.size:
        raise PublishError(f"{path.name} has {size} virtual bytes, the disk has {disk.size}")
    compared = run(
        ["compare", "-f", "raw", "-F", format, str(disk.path), str(path)], task, disk.size
    )
    if compared.returncode != 0:
        detail = (compared.stderr or compared.stdout).strip().splitlines() or ["no details"]
        raise PublishError(f"{path.name} differs from the disk: {detail[-1]}")
