"""A boot as it might have been seen, for the tests of verdicts and causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from publisher.errors import BootError
from publisher.model import GIB
from publisher.proof.guest import Instance, Look, Report
from publisher.proof.rehearse.boot import Seen
from publisher.proof.rehearse.observe import Facts
from publisher.vm.console import Tracker

LOOK = Look(
    title="Nimbus n1, UEFI",
    boot="uefi",
    disk="nvme",
    smbios=(),
    datasource="Nimbus",
    agents=("stratus-agent.service",),
    reports_ready=True,
    unproven=("the driver stratus",),
)
SIZE = 2 * GIB
BOOTED = "\n".join(
    (
        "BdsDxe: starting Boot0001",
        "[    0.000000] Linux version 6.1",
        "systemd[1]: Hello",
        "Cloud-init v. 22.4.2 running 'init-local'",
        "Cloud-init v. 22.4.2 running 'init'",
        "",
    )
)


FRESH: Mapping[str, Any] = {
    "hostname": "rehearsal-2",
    "begun": "token-2",
    "instance": "n-2",
    "host_keys": ("ssh-ed25519 B",),
    "machine_id": "4567",
}
"""What another instance says of itself."""


def facts(**changed: Any) -> Facts:
    values: dict[str, Any] = {
        "kernel": "6.1",
        "name": "Debian 12",
        "firmware": "uefi",
        "root": "/dev/nvme0n1p1",
        "root_end": 4 * GIB,
        "root_size": 4 * GIB - 2**28,
        "filesystem": 4 * GIB - 2**29,
        "hostname": "rehearsal-1",
        "address": "ens2 10.77.0.15/24",
        "cmdline": "root=UUID=1 console=ttyS0",
        "consoles": ("tty0", "ttyS0"),
        "system": "running",
        "cloud_init": True,
        "datasource": "Nimbus",
        "instance": "n-1",
        "begun": "token-1",
        "done": "token-1",
        "host_keys": ("ssh-ed25519 A1",),
        "machine_id": "0123",
        "machine_id_age": -9,
    }
    return Facts(**{**values, **changed})


def seen(
    directory: Path,
    *,
    console: str = BOOTED,
    error: str = "",
    known: Facts | None = None,
    reports: Sequence[Report] = (),
    number: int = 1,
    look: Look = LOOK,
    pressed: bool = True,
    down: float | None = 2.0,
) -> Seen:
    log = directory / f"console-{number}.log"
    log.write_text(console)
    tracker = Tracker()
    tracker.feed(console.encode())
    made = Seen(
        look,
        Instance(f"{number:032x}", f"rehearsal-{number}", "visitor", "ssh-ed25519 A"),
        f"n-{number}",
        f"token-{number}",
        log,
        directory / "overlay.qcow2",
        tracker,
        reports=reports,
        facts=known,
        phases=tracker.seconds,
        pressed=pressed and not error,
        down=down if pressed and not error else None,
    )
    if error:
        made.error = BootError(f"{error}; its console said last:\n…", phase=tracker.phase.title)
    return made


class Tree:
    """Files of a guest: path ▶ text; a link's text starts with "-> ". `faults` are why
    a firmware can't start the disk, `drivers` where the kernel finds them."""

    def __init__(
        self,
        texts: Mapping[str, str],
        *,
        arch: str = "",
        faults: Mapping[str, str] | None = None,
        drivers: Mapping[str, str] | None = None,
    ) -> None:
        self._texts = {"/etc/os-release": "ID=debian", **texts}
        self._arch = arch
        self._faults = faults or {}
        self._drivers = drivers or {}

    def arch(self) -> str:
        return self._arch

    def boot_fault(self, boot: str) -> str:
        return self._faults.get(boot, "")

    def driver(self, module: str) -> str:
        return self._drivers.get(module, "")

    def text(self, path: str) -> str:
        return self._texts.get(path, "")

    def exists(self, path: str) -> bool:
        return any(own == path or own.startswith(f"{path}/") for own in self._texts)

    def glob(self, pattern: str) -> list[str]:
        depth = pattern.count("/")
        return sorted(p for p in self._texts if fnmatch(p, pattern) and p.count("/") == depth)

    def link(self, path: str) -> str:
        text = self._texts.get(path, "")
        return text.removeprefix("-> ") if text.startswith("-> ") else ""
