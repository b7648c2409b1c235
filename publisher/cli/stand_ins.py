"""What `publish sandbox` does: the stand-ins in the foreground, for other clients."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from publisher import provider
from publisher.cli.signals import cancelling
from publisher.cli.words import chosen
from publisher.errors import UsageError
from publisher.provider import Emulated
from publisher.sandbox import Sandboxes


def parse_ports(texts: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """NAME=PORT texts. Raises UsageError."""
    ports: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            raise UsageError(f"--port {text}: not of the form NAME=PORT", hint="such as aws=5000")
        chosen(name, names, "sandbox")
        ports[name] = int(number)
    return ports


def serve(*, only: str, ports: Sequence[str], state: Path) -> None:
    """Print `export NAME=value` lines for a shell, then wait for a signal."""
    known = [name for name in provider.names() if isinstance(provider.load(name), Emulated)]
    names = chosen(only, known, "sandbox") or known
    fixed = parse_ports(ports, names)
    with cancelling() as cancellation, Sandboxes(names, state, fixed) as sandboxes:
        for name, value in sandboxes.environment.items():
            print(f"export {name}={shlex.quote(value)}", flush=True)  # noqa: T201
        listed = ", ".join(names)
        print(f"{listed}: ready, state in {state / 'sandbox'}; Ctrl-C stops", file=sys.stderr)  # noqa: T201
        while not cancellation.wait(3600):
            pass
