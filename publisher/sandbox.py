"""Starts the stand-ins of several providers together."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, cast

from publisher import provider as seam
from publisher.closing import Closing
from publisher.errors import HostError, StateError, UsageError


def emulated(name: str) -> type[seam.Emulated]:
    """The provider of that name, if it brings a stand-in; UsageError otherwise."""
    kind = seam.load(name)
    if getattr(kind, "sandbox", None) is None:
        raise UsageError(f"{name} has no sandbox", hint="leave it out with --only")
    return cast("type[seam.Emulated]", kind)


class Sandboxes(Closing):
    """A context manager; inside it, `os.environ` points every SDK at the stand-ins.

    Their state is kept under STATE/sandbox/NAME, for one process at a time.
    `ports` fixes a provider's port.
    """

    def __init__(
        self, names: Sequence[str], state: Path, ports: Mapping[str, int] | None = None
    ) -> None:
        self._members: dict[str, seam.Sandbox] = {}
        for name in names:
            self._members[name] = emulated(name).sandbox(
                state / "sandbox" / name, (ports or {}).get(name, 0)
            )
        self._before: dict[str, str | None] = {}
        self._directory = state / "sandbox"
        self._locks: list[int] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point the vendors' clients at the stand-ins."""
        merged: dict[str, str] = {}
        for member in self._members.values():
            merged.update(member.environment)
        return merged

    def __getitem__(self, name: str) -> seam.Sandbox:
        return self._members[name]

    def __enter__(self) -> Self:
        started: list[seam.Sandbox] = []

        def start(member: seam.Sandbox) -> None:
            member.start()
            started.append(member)

        try:
            self._lock()
            with ThreadPoolExecutor(max(1, len(self._members))) as pool:
                list(pool.map(start, self._members.values()))
        except BaseException as error:
            for member in started:
                member.stop()
            self._unlock()
            if isinstance(error, OSError):
                raise HostError(
                    f"a sandbox could not start: {error}",
                    hint="is another one running?"
                    if error.errno == errno.EADDRINUSE
                    else "choose another state directory with --state, or free some space",
                ) from error
            raise
        for name, value in self.environment.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        return self

    def close(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        with contextlib.ExitStack() as stack:
            stack.callback(self._unlock)
            for member in self._members.values():
                stack.callback(member.stop)

    def _lock(self) -> None:
        """Two stand-ins that write to one state would each forget what the other one made."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in self._members:
            path = self._directory / f"{name}.lock"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._locks.append(handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"another process runs the stand-in of {name} in {self._directory}",
                    hint="wait until it has ended, or choose another state directory with --state",
                ) from None

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())
