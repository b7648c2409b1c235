"""Checkpoints: the whole machine after a step, keyed by all that led to it.

    STATE/store/checkpoints/
        lock                held shared by every build, exclusively to remove something
        layers/ID.raw|qcow2 disk layers, each over another one; frozen ones are never written
        layers/….joined     one of them with all below it, left by a build whose step failed
        KEY/                one machine: memory, seed.img, keys, checkpoint.json
        KEY.ID.partial      one in the making: no build looks into it

The directory is private to its user: a machine's memory and the build's keys are in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from publisher.disks import raw
from publisher.errors import Cancelled, UsageError
from publisher.memory import boot_id
from publisher.model import GIB, Noun

LIMIT = 10 * GIB
"""Bytes of all checkpoints together, unless PUBLISH_CACHE_SIZE says otherwise."""
UNHURRIED = 5.0
"""Seconds. A build that takes less, as after a failed step, is not slowed down by what
earlier ones have left to be synced: meanwhile the host writes it out by itself."""
_DESCRIPTION = "checkpoint.json"
_JOINED = ".joined"


@dataclass(frozen=True, slots=True)
class Level(Noun):
    """One point of a build: `inputs` decide it together with all levels before."""

    title: str
    inputs: Mapping[str, Any]
    key: str

    def changes(self, other: Level) -> list[str]:
        """The names of the inputs that differ."""
        names = sorted({*self.inputs, *other.inputs})
        return [name for name in names if self.inputs.get(name) != other.inputs.get(name)]


def failed_key(level: Level) -> str:
    """A key for a machine in which the step of `level` failed: no build looks for it."""
    return hashlib.sha256(f"failed {level.key} {secrets.token_hex(8)}".encode()).hexdigest()


def chain(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Level, ...]:
    """(title, inputs) of every level ▶ levels with keys."""
    levels: list[Level] = []
    before = ""
    for title, inputs in parts:
        canonical = json.dumps([before, inputs], sort_keys=True, separators=(",", ":"))
        before = hashlib.sha256(canonical.encode()).hexdigest()
        levels.append(Level(title, inputs, before))
    return tuple(levels)


@dataclass(frozen=True, slots=True)
class Checkpoint(Noun):
    """A machine at rest. `layers` are file names from the base to the frozen top,
    `facts` what the builder knows of the disk; `boot` is the host's boot id when
    it was written, and `synced` says that it would survive a loss of power.

    `failed` is the error of its last step: such a one is there for the user to look
    into, and no build goes on from it by itself. One that is not `running` is a disk
    alone, as an installer left it. `aided` is its Hardware's."""

    key: str
    title: str
    name: str
    layers: tuple[str, ...]
    facts: Mapping[str, Any]
    levels: tuple[Mapping[str, Any], ...]
    created: float
    boot: str
    synced: bool = False
    running: bool = True
    failed: str = ""
    aided: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(**{**values, "layers": tuple(data["layers"]), "levels": tuple(data["levels"])})

    def path_of(self) -> tuple[Level, ...]:
        """The levels that led here, this one last."""
        return tuple(Level.from_json(level) for level in self.levels)


class Checkpoints:
    """The store of them. As a context it may be read and added to: nothing is
    removed meanwhile, by whichever process."""

    def __init__(self, store: Path) -> None:
        self.directory = store / "checkpoints"
        self.layers = self.directory / "layers"
        self._lock = -1
        self._changing = threading.Lock()
        self._syncing = threading.Lock()
        self._pausing = threading.Event()
        self._background: ThreadPoolExecutor | None = None

    # -- locking

    def __enter__(self) -> Self:
        self.layers.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._pausing.clear()
        self._lock = self._open_lock()
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pausing.set()
        if self._background is not None:
            self._background.shutdown(wait=False, cancel_futures=True)
            self._background = None
        os.close(self._lock)
        self._lock = -1

    def _open_lock(self) -> int:
        return os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """True while no build of any process uses the store."""
        if not self.directory.is_dir():
            yield False
            return
        handle = self._open_lock()
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    # -- reading

    def get(self, key: str) -> Checkpoint | None:
        """The checkpoint of that key, if it is whole."""
        try:
            found = Checkpoint.from_json(json.loads((self.place(key) / _DESCRIPTION).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = all((self.layers / layer).is_file() for layer in found.layers)
        safe = found.synced or found.boot == boot_id()
        complete = not found.running or self.memory(found).is_file()
        return found if whole and safe and complete else None

    def place(self, key: str) -> Path:
        return self.directory / key[:40]

    def memory(self, checkpoint: Checkpoint) -> Path:
        return self.place(checkpoint.key) / "memory"

    def along(self, levels: Sequence[Level]) -> Iterator[tuple[int, Checkpoint]]:
        """The levels that have a checkpoint, with their indices, the last one first."""
        for index in reversed(range(len(levels))):
            found = self.get(levels[index].key)
            if found is not None:
                yield index, found

    def deepest(self, levels: Sequence[Level]) -> tuple[int, Checkpoint] | None:
        """The last level that has a checkpoint, with its index."""
        return next(self.along(levels), None)

    def failures(self, name: str) -> list[Checkpoint]:
        """The machines of that image in which a step failed, the newest first."""
        return [c for c in self.all() if c.failed and c.name == name]

    def all(self) -> list[Checkpoint]:
        """The newest use first, also machines in which a step failed."""
        found = [
            checkpoint
            for path in self.directory.glob(f"*/{_DESCRIPTION}")
            if (checkpoint := self.get(path.parent.name)) is not None
        ]
        return sorted(found, key=self.used, reverse=True)

    def used(self, checkpoint: Checkpoint) -> float:
        """When it was made or last resumed, in seconds since the epoch."""
        with contextlib.suppress(OSError):
            return (self.place(checkpoint.key) / _DESCRIPTION).stat().st_mtime
        return 0.0

    def why(self, name: str, levels: Sequence[Level]) -> list[str]:
        """For each level: "" if it has a checkpoint, otherwise why it has none."""
        reasons = ["" if self.get(level.key) else "not built yet" for level in levels]
        missing = next((i for i, reason in enumerate(reasons) if reason), None)
        if missing is None:
            return reasons
        for known in (c for c in self.all() if c.name == name and c.running):
            path = known.path_of()
            if len(path) <= missing:
                continue
            if path[missing].key == levels[missing].key:
                if known.failed and len(path) == missing + 1:
                    reasons[missing] = "failed the last time"
                    break
                continue
            if missing and path[missing - 1].key != levels[missing - 1].key:
                continue
            changed = path[missing].changes(levels[missing])
            reasons[missing] = f"changed: {', '.join(changed)}"
            break
        for index in range(missing + 1, len(levels)):
            if reasons[index]:
                reasons[index] = f"{levels[missing].title} is done again"
        return reasons

    # -- writing

    def new_layer(self, suffix: str) -> Path:
        """A path for a layer; what no checkpoint names is removed by `prune`."""
        return self.layers / f"{secrets.token_hex(8)}.{suffix}"

    def joined(self, layer: str) -> Path:
        """Where a build whose step failed leaves a layer joined with all below it. The host's
        boot is in its name, because nobody waits until it would survive a loss of power."""
        return self.layers / f"{layer}.{boot_id()}{_JOINED}"

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """A private directory to be filled; it is gone again unless `publish` was called."""
        place = self.place(key)
        partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}.partial")
        partial.mkdir(mode=0o700)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def publish(self, partial: Path, checkpoint: Checkpoint) -> None:
        """Make a filled directory the checkpoint; whoever comes second keeps the first one."""
        (partial / _DESCRIPTION).write_text(json.dumps(checkpoint.to_json()))
        target = self.place(checkpoint.key)
        if self.get(checkpoint.key) is None:
            shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rename(partial, target)

    def touch(self, checkpoint: Checkpoint) -> None:
        with self._changing, contextlib.suppress(OSError):
            os.utime(self.place(checkpoint.key) / _DESCRIPTION)

    def discard(self, checkpoint: Checkpoint) -> None:
        """Let nobody use it any more; `prune` removes its files."""
        with self._changing, contextlib.suppress(OSError):
            (self.place(checkpoint.key) / _DESCRIPTION).unlink()

    def sync(self) -> None:
        """Make what was written survive a loss of power. Raises OSError when it can't."""
        self._sync_all(lambda: False)

    def sync_soon(self) -> None:
        """Do that beside a build that has been busy for a while and waits for none of
        it: a machine's memory is much to write. What is not done when the store is left
        counts until the host restarts, and the next build goes on with it."""
        self._pausing.clear()

        def quietly() -> None:
            if self._pausing.wait(UNHURRIED):
                return
            with contextlib.suppress(OSError, Cancelled):  # the next one meets it again
                self._sync_all(self._pausing.is_set)

        if self._background is None:
            self._background = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._background.submit(quietly)

    def pause(self) -> None:
        """Leave the host's disk to others until the next `sync_soon`."""
        self._pausing.set()

    def _sync_all(self, stop: Callable[[], bool]) -> None:
        with self._syncing:
            for checkpoint in self.all():
                if not checkpoint.synced:
                    self._sync(checkpoint, stop)

    def _sync(self, checkpoint: Checkpoint, stop: Callable[[], bool]) -> None:
        def check() -> None:
            if stop():
                raise Cancelled()

        place = self.place(checkpoint.key)
        for file in (*place.iterdir(), *(self.layers / name for name in checkpoint.layers)):
            if file.is_file():
                raw.write_out(file, check)
        safe = Checkpoint.from_json({**checkpoint.to_json(), "synced": True})
        partial = place / f"{_DESCRIPTION}.{secrets.token_hex(4)}"
        with self._changing:
            if stop() or not (place / _DESCRIPTION).exists():  # it was discarded
                return
            partial.write_text(json.dumps(safe.to_json()))
            used = self.used(checkpoint)
            os.utime(partial, (used, used))
            os.replace(partial, place / _DESCRIPTION)

    # -- removing

    def size(self) -> int:
        """Bytes on disk of all that the store holds."""
        return sum(
            file.stat().st_blocks * 512 for file in self.directory.rglob("*") if file.is_file()
        )

    def prune(self, limit: int | None = None) -> int:
        """Remove leavings, and the least recently used checkpoints until at most
        `limit` bytes are held; returns the bytes freed. Nothing is removed while
        a build of any process uses the store."""
        with self._alone() as alone:
            if not alone:
                return 0
            before = self.size()
            for leaving in self.directory.glob("*.partial"):
                shutil.rmtree(leaving, ignore_errors=True)
            kept = self.all()
            most = cache_limit() if limit is None else limit
            self._sweep(kept)
            joined = list(self.layers.glob(f"*{_JOINED}"))
            while (joined or kept) and self.size() > most:
                if joined:
                    joined.pop().unlink()
                else:
                    self._forget(kept.pop())
                    self._sweep(kept)
            return before - self.size()

    def remove(self, keys: Sequence[str]) -> list[str]:
        """Remove checkpoints by (the start of) their keys; returns the keys removed."""
        with self._alone() as alone:
            if not alone:
                return []
            found = self.all()
            gone = [c for c in found if any(c.key.startswith(key) for key in keys)]
            for checkpoint in gone:
                self._forget(checkpoint)
            self._sweep([c for c in found if c not in gone])
            return [c.key for c in gone]

    def _forget(self, checkpoint: Checkpoint) -> None:
        place = self.place(checkpoint.key)
        (place / _DESCRIPTION).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)

    def _sweep(self, kept: Sequence[Checkpoint]) -> None:
        """Remove what belongs to no checkpoint that is kept."""
        wanted = {layer for checkpoint in kept for layer in checkpoint.layers}
        joined = [path for layer in wanted if (path := self.joined(layer)).exists()]
        joined.sort(key=lambda path: path.stat().st_mtime)
        wanted |= {path.name for path in joined[-1:]}
        for layer in self.layers.iterdir():
            if layer.name not in wanted:
                layer.unlink(missing_ok=True)
        names = {self.place(checkpoint.key).name for checkpoint in kept} | {"layers", "lock"}
        for entry in self.directory.iterdir():
            if entry.name not in names:
                shutil.rmtree(entry, ignore_errors=True)


def cache_limit() -> int:
    """Bytes, from PUBLISH_CACHE_SIZE ("20GiB", "0" for none) where it is set.

    Raises UsageError."""
    from publisher.section import parse_size

    given = os.environ.get("PUBLISH_CACHE_SIZE", LIMIT)
    try:
        value = parse_size(given)
    except ValueError as error:
        raise UsageError(f"PUBLISH_CACHE_SIZE={given}: {error}") from None
    return value if isinstance(value, int) else LIMIT
