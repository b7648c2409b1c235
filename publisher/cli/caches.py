"""What `publish cache` does: list and remove what builds keep to be faster."""

from __future__ import annotations

import json as jsons
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.build.checkpoints import Checkpoints, cache_limit
from publisher.cli import tables
from publisher.errors import StateError, UsageError
from publisher.model import MIB, Noun
from publisher.section import parse_size

KEEP_DOWNLOADS = 30 * 86400.0
"""Seconds after which `prune` removes a download that no build has used."""


@dataclass(frozen=True, slots=True)
class Entry(Noun):
    """`size` in bytes on disk, `used` in seconds since the epoch."""

    key: str
    kind: str
    what: str
    size: int
    used: float


def run(action: str, keys: Sequence[str], *, limit: str, state: Path, json: bool) -> None:
    store = state / "store"
    if action == "ls":
        _list(store, json=json)
    elif action == "rm":
        if not keys:
            raise UsageError("nothing to remove is named", hint="publish cache ls shows the keys")
        _remove(store, keys)
    elif action == "prune":
        _prune(store, limit)
    else:
        raise UsageError(f"there is no action {action!r}", hint="write ls, rm or prune")


def entries(store: Path) -> Iterator[Entry]:
    """All that is kept, checkpoints first. A layer that several checkpoints share
    counts for the one that was made last."""
    kept = Checkpoints(store)
    counted: set[str] = set()
    for checkpoint in sorted(kept.all(), key=lambda c: -len(c.layers)):
        own = [layer for layer in checkpoint.layers if layer not in counted]
        counted.update(own)
        files = [*kept.place(checkpoint.key).iterdir(), *(kept.layers / name for name in own)]
        yield Entry(
            checkpoint.key[:12],
            "checkpoint",
            f"{checkpoint.name}: {checkpoint.title}",
            sum(_size(file) for file in files),
            kept.used(checkpoint),
        )
    for kind, directory, pattern in (
        ("installation", store / "bootstrap", "*.tar"),
        ("download", store / "downloads", "*"),
    ):
        for file in directory.glob(pattern):
            if file.is_file() and file.suffix != ".lock":
                name = file.name[:12]
                yield Entry(name, kind, file.name, _size(file), file.stat().st_mtime)


def _size(file: Path) -> int:
    return file.stat().st_blocks * 512


def _list(store: Path, *, json: bool) -> None:
    found = list(entries(store))
    if json:
        print(jsons.dumps([entry.to_json() for entry in found], indent=2))  # noqa: T201
        return
    if not found:
        tables.write("nothing is kept")
        return
    rows = [
        (entry.key, entry.kind, f"{entry.size / MIB:.0f} MiB", _ago(entry.used), entry.what)
        for entry in found
    ]
    tables.write_table(("key", "kind", "size", "used", "what"), rows)
    total = sum(entry.size for entry in found)
    tables.write()
    tables.write(f"{total / MIB:.0f} MiB; checkpoints are kept up to {cache_limit() / MIB:.0f} MiB")


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def _remove(store: Path, keys: Sequence[str]) -> None:
    found = list(entries(store))
    for key in keys:
        if not any(entry.key.startswith(key) for entry in found):
            raise UsageError(
                f"nothing is kept under {key!r}", hint="publish cache ls shows the keys"
            )
    wanted = [entry for entry in found if any(entry.key.startswith(key) for key in keys)]
    checkpoints = [entry.key for entry in wanted if entry.kind == "checkpoint"]
    if checkpoints and not Checkpoints(store).remove(checkpoints):
        raise StateError("a build is using the checkpoints", hint="try again when it has ended")
    for entry in wanted:
        if entry.kind != "checkpoint":
            _unlink(store, entry)
        tables.write(f"removed {entry.kind} {entry.key} {entry.what}")


def _unlink(store: Path, entry: Entry) -> None:
    for directory in ("bootstrap", "downloads"):
        (store / directory / entry.what).unlink(missing_ok=True)
    (store / "bootstrap" / entry.what).with_suffix(".json").unlink(missing_ok=True)


def _prune(store: Path, limit: str) -> None:
    try:
        most = parse_size(limit) if limit else None
    except ValueError as error:
        raise UsageError(f"--limit {limit}: {error}") from error
    free = shutil.disk_usage(store).free if store.exists() else 0
    Checkpoints(store).prune(most if isinstance(most, int) else None)
    for entry in list(entries(store)):
        if entry.kind == "download" and time.time() - entry.used > KEEP_DOWNLOADS:
            _unlink(store, entry)
    now = shutil.disk_usage(store).free if store.exists() else 0
    tables.write(f"freed {max(0, now - free) / MIB:.0f} MiB")
