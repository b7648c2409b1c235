"""What a program does with disks that somebody hostile has made: run as a process of its
own, which may take only so much memory and processor time.

python -m tests.unit.hostile DISK…
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from publisher import provider
from publisher.disks import extents
from publisher.errors import PublishError
from publisher.model import MIB, Disk, Finding
from publisher.proof.guest import Rehearsable
from publisher.proof.inspect import initramfs
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inventory import collect
from publisher.proof.lint import examine
from publisher.proof.secrets import Known, search
from publisher.task import Task, detached

MEMORY = 1536 * MIB
"""Address space: Python, all that is imported, the secret engine's threads and tables."""
UNPACKED = 256 * MIB
"""What a disk of these tests may make a reader unpack."""
PACKAGES = 2000
"""What an inventory lists at most here."""


PROOFS = ("lint", "secrets", "inventory")


def prove(
    path: Path, task: Task, seconds: float = 60.0, proofs: Sequence[str] = PROOFS
) -> Mapping[str, Any]:
    """What each proof says of a disk, and the seconds that it took."""
    told: dict[str, Any] = {}
    for name in proofs:
        started = time.monotonic()
        told[name] = _PROOFS[name](path, task, seconds)
        told[f"{name}_seconds"] = round(time.monotonic() - started, 2)
    return told


def _lint(path: Path, _: Task, seconds: float) -> list[dict[str, Any]]:
    guests = []
    for name in ("aws", "azure", "gcp"):
        kind = provider.load(name)
        assert issubclass(kind, Rehearsable)
        guests.append(kind.guest(None))
    budget = Budget(seconds=seconds, size=UNPACKED)
    file = RawFile(path, budget)
    try:
        return _shown(examine(file, guests, (), budget).findings)
    finally:
        file.close()


def _secrets(path: Path, task: Task, _: float) -> list[dict[str, Any]]:
    return _shown(search(disk_of(path), Known(), task))


def _inventory(path: Path, task: Task, _: float) -> dict[str, Any]:
    found = collect(disk_of(path), task)
    return {"packages": [c.purl for c in found.components], "gaps": list(found.gaps)}


_PROOFS: Mapping[str, Callable[[Path, Task, float], Any]] = {
    "lint": _lint,
    "secrets": _secrets,
    "inventory": _inventory,
}


def _shown(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [dict(finding.to_json()) for finding in findings]


def disk_of(path: Path) -> Disk:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Disk(path, size, "", extents.merge(extents.of_file(file.fileno(), size)))


def bounded(*arguments: str, seconds: int, module: str = __name__) -> str:
    """The output of a module in a process of its own, which may have so many seconds of
    processor time and MEMORY. Fails where it needs more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        timeout=20 * seconds,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def _main(paths: Sequence[str]) -> None:
    initramfs.UNPACKED_MOST = UNPACKED // 4
    vars(import_module("publisher.proof.inventory.collect"))["PACKAGES_MOST"] = PACKAGES
    with tempfile.TemporaryDirectory() as memory:
        task = detached(Path(memory))
        for path in paths:
            try:
                told = prove(Path(path), task)
            except PublishError as error:
                told = {"error": str(error)}
            print(json.dumps({"disk": path, **told}))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1:])
