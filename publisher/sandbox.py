"""Starts the stand-ins of several providers together."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from publisher import provider as seam
from publisher.errors import HostError, UsageError


def emulated(name: str) -> type[seam.Emulated]:
    """The provider of that name, if it brings a stand-in; UsageError otherwise."""
    kind = seam.load(name)
    if getattr(kind, "sandbox", None) is None:
        raise UsageError(f"{name} has no sandbox", hint="leave it out with --only")
    return cast("type[seam.Emulated]", kind)


class Sandboxes:
    """A context manager; inside it, `os.environ` points every SDK at the stand-ins.

    Their state is kept under STATE/sandbox/NAME. `ports` fixes a provider's port.
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
            with ThreadPoolExecutor(max(1, len(self._members))) as pool:
                list(pool.map(start, self._members.values()))
        except BaseException as error:
            for member in started:
                member.stop()
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        with contextlib.ExitStack() as stack:
            for member in self._members.values():
                stack.callback(member.stop)
