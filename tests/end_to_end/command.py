"""The program as a user runs it, in a process of its own, with its events read as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Event: TypeAlias = Mapping[str, Any]
PUBLISH = [sys.executable, "-m", "publisher"]
ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "pipelines" / "demo.toml")
_ASKED = (
    "{run = '! getent hosts deb.debian.org', name = 'other names do not exist'}",
    "{run = \"! timeout 20 bash -c '</dev/tcp/1.1.1.1/80'\", name = 'no way leads out'}",
    "{run = 'getent hosts $(hostname)', name = 'it knows its own name'}",
    "{run = 'cat /sys/class/dmi/id/chassis_asset_tag', output = '^7783-7084-', on = ['azure']}",
    "{run = 'cat /sys/class/dmi/id/product_name', output = '^Google Compute E', on = ['gcp']}",
    "{run = 'cat /run/cloud-init/status.json', output = 'DataSourceGCELocal', on = ['gcp']}",
    "{run = '! grep google.internal /etc/hosts', on = ['aws', 'azure']}",
    "{run = 'ls /sys/class/nvme', output = '^nvme0$', on = ['aws']}",
)
_SETTINGS = (f"rehearse.checks=[{', '.join(_ASKED)}]", "rehearse.rerun=false")
RUN_DEMO = ("run", DEMO, "--sandbox", *(word for text in _SETTINGS for word in ("--set", text)))
"""The demo, whose rehearsals look at more than a user's do."""

ARCHIVE_AT_REST = {"http_proxy": "http://127.0.0.1:9"}
"""Environment in which the archive does not answer, so that the earlier installation is
used: Debian renews its archive at any time, and a machine of an older one is of no use then."""


class Ended:
    """How a command ended: exit code, events, what it said to people."""

    def __init__(self, code: int, events: Sequence[Event], errors: str) -> None:
        self.code = code
        self.events = events
        self.errors = errors

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.get("event") == name]

    def steps(self, name: str) -> list[str]:
        return [event["step"] for event in self.named(name)]

    @property
    def finished(self) -> Event:
        (event,) = self.named("RunFinished")
        return event

    def images(self, provider: str = "") -> list[Event]:
        images = self.finished["images"]
        return [image for image in images if provider in ("", image["provider"])]


def publish(
    *arguments: str,
    until: Callable[[Event], bool] | None = None,
    then: signal.Signals = signal.SIGKILL,
    environ: Mapping[str, str] | None = None,
    ok: bool = True,
) -> Ended:
    """Run `publish … --json`. With `until`, send the signal `then` at the first
    event for which it is true."""
    events: list[Event] = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*PUBLISH, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
        )
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                events.append(json.loads(line))
                if until is not None and until(events[-1]):
                    process.send_signal(then)
                    until = None
        code = process.wait(timeout=60)
        errors.seek(0)
        said = errors.read()
    if ok:
        assert code == 0, said
    return Ended(code, events, said)
