"""The journal of one release: append-only, fsynced, one writer, a torn tail is cut off.

A cache of what the clouds hold: losing it costs time, never correctness.

    STATE/releases/NAME/VERSION/journal   one checked line per fact
    STATE/releases/NAME/VERSION/lock      held while a run writes
    STATE/releases/NAME/VERSION/memory/   one directory a step
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.closing import Closing
from publisher.errors import HostError, StateError
from publisher.memory import Memory, append_line, open_appending, read_lines
from publisher.model import Noun


def release_directory(state: Path, name: str, version: str) -> Path:
    return state / "releases" / name / version


@dataclass(frozen=True, slots=True)
class Outcome(Noun):
    """What a step left behind, as JSON, and how long it took."""

    step: str
    key: str
    value: Mapping[str, Any]
    seconds: float = 0.0
    finished: float = 0.0


def read_outcomes(directory: Path) -> dict[str, Outcome]:
    """The newest outcome of every step key, without locking or writing."""
    return _replay(directory)[0]


def _replay(directory: Path) -> tuple[dict[str, Outcome], str, set[str]]:
    """The outcomes, the run that has not finished, and the keys of what that one did."""
    outcomes: dict[str, Outcome] = {}
    run = ""
    fresh: set[str] = set()
    for line in read_lines(directory / "journal"):
        fact = json.loads(line)
        match fact.pop("fact", ""):
            case "run":
                run = fact["run"]
                fresh.clear()
            case "finished":
                run = ""
                fresh.clear()
            case "done":
                outcome = Outcome.from_json(fact)
                outcomes[outcome.key] = outcome
                fresh.add(outcome.key)
            case "undone":
                outcomes.pop(fact["key"], None)
                fresh.discard(fact["key"])
    return outcomes, run, fresh


class Journal(Closing):
    """Open for writing; raises StateError while another process has it open."""

    def __init__(self, state: Path, name: str, version: str) -> None:
        self.directory = release_directory(state, name, version)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise StateError(
                f"another publish of {name} {version} is running (process {holder or '?'})",
                hint="wait until it has ended, or stop it: the next run continues its work",
            ) from error
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            self._handle = open_appending(self.directory / "journal")
        except OSError as error:
            os.close(self._lock)
            raise self._not_writable(error) from error
        self.outcomes, self.run, self.fresh = _replay(self.directory)
        """`fresh`: the keys of what this run did, also before it was interrupted."""
        self.resumed = bool(self.run)
        """True when an earlier run of this release did not finish."""
        if not self.run:
            self.run = uuid.uuid4().hex[:12]

    def _not_writable(self, error: OSError) -> HostError:
        return HostError(
            f"cannot write the state directory {self.directory}: {error.strerror}",
            hint="choose another with --state, or free some space",
        )

    def _append(self, fact: str, **values: Any) -> None:
        append_line(self._handle, json.dumps({"fact": fact, **values}, sort_keys=True))
        os.fsync(self._handle)

    def begin(self) -> None:
        """Note that work begins; a run that does not finish keeps its id for the next."""
        if not self.resumed:
            self._append("run", run=self.run, at=time.time())

    def done(self, outcome: Outcome) -> None:
        """The outcome is on disk when this returns."""
        self._append("done", **outcome.to_json())
        self.outcomes[outcome.key] = outcome
        self.fresh.add(outcome.key)

    def undone(self, key: str) -> None:
        """Forget an outcome that holds no longer."""
        self.fresh.discard(key)
        if self.outcomes.pop(key, None) is not None:
            self._append("undone", key=key)

    def finish(self) -> None:
        self._append("finished", at=time.time())

    def memory(self, key: str) -> Memory:
        """The memory of the step with that key."""
        return Memory(self.directory / "memory" / key[:32])

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            os.close(self._lock)
            self._handle = -1
