"""How far a boot has come, from what the guest prints on its serial console."""

from __future__ import annotations

import enum
import re
import threading
import time
from collections import deque
from collections.abc import Callable


class Phase(enum.IntEnum):
    """The phases of a boot, in order."""

    FIRMWARE = 0
    BOOTLOADER = 1
    KERNEL = 2
    INIT = 3
    NETWORK = 4
    CLOUD_INIT = 5
    SSHD = 6
    READY = 7

    @property
    def title(self) -> str:
        return self.name.lower().replace("_", "-")


_MARKS: tuple[tuple[Phase, re.Pattern[str]], ...] = tuple(
    (phase, re.compile(pattern))
    for phase, pattern in (
        (Phase.BOOTLOADER, r"GRUB |Booting `|BdsDxe: starting Boot|systemd-boot|SYSLINUX"),
        (Phase.KERNEL, r"Linux version \d|EFI stub: |\[    0\.000000\]|Loading, please wait"),
        (
            Phase.INIT,
            r"systemd\[1\]: |Welcome to (?!GRUB)|Running /scripts/init-bottom|INIT: version",
        ),
        (
            Phase.NETWORK,
            r"Cloud-init v\. \S+ running 'init-local'|Network Configuration|network-pre\.target"
            r"|Reached target Preparation for Network|Starting Raise network",
        ),
        (Phase.CLOUD_INIT, r"Cloud-init v\. \S+ running 'init'|Reached target Cloud-config"),
        (
            Phase.SSHD,
            r"Started ssh\.service|Started (sshd\.service|OpenBSD Secure Shell server|OpenSSH)",
        ),
    )
)

_FATAL = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (
            r"No bootable device|Boot failed: not a bootable disk",
            "the firmware found nothing to boot",
        ),
        (r"BdsDxe: No bootable option|UEFI Interactive Shell", "UEFI found nothing to boot"),
        (r"Access Denied$|bad shim signature|Security Violation", "secure boot refused the loader"),
        (r"Kernel panic - not syncing: (.*)", "kernel panic: {}"),
        (r"ALERT!\s+(.*)", "the initramfs did not find the root file system: {}"),
        (r"Gave up waiting for root", "the initramfs did not find the root file system"),
        (r"You are in (emergency|rescue) mode", "systemd stopped in {} mode"),
    )
)
_PROMPTS = (
    (re.compile(r"^Shell> ?$"), "UEFI found nothing to boot"),
    (re.compile(r"^grub( rescue)?> ?$"), "GRUB did not find its configuration"),
)
"""Questions that nobody will answer; they end without a line break."""

_LOGIN = re.compile(r"\blogin: ?$")

_ESCAPES = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|c)|[\x00-\x08\x0e-\x1a]")


def plain(text: str) -> str:
    """Without terminal control sequences."""
    return _ESCAPES.sub("", text).replace("\r", "")


class Tracker:
    """Fed the console's bytes; thread-safe. Phases only go forward, until
    `restart` says that another boot begins."""

    def __init__(
        self,
        on_phase: Callable[[Phase], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        keep: int = 40,
    ) -> None:
        self._on_phase = on_phase
        self._clock = clock
        self._lock = threading.Lock()
        self._rest = ""
        self._lines: deque[str] = deque(maxlen=keep)
        self._phase = Phase.FIRMWARE
        self._started = clock()
        self._entered: dict[Phase, float] = {Phase.FIRMWARE: 0.0}
        self.fatal = ""
        """Why this boot can't succeed any more, in words; empty while it can."""
        self.heard = clock()
        """When the guest last printed something, by `clock`."""
        self.prompted: float | None = None
        """When this boot first asked for a login on its console, by `clock`."""

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds from the start until each phase that was reached."""
        with self._lock:
            return {phase.title: round(at, 1) for phase, at in self._entered.items()}

    def last_lines(self, count: int = 20) -> str:
        with self._lock:
            rest = plain(self._rest)
            lines = [*self._lines, *([rest] if rest.strip() else [])]
        return "\n".join(lines[-count:])

    def feed(self, data: bytes) -> None:
        self.heard = self._clock()
        with self._lock:
            *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
            self._rest = self._rest[-4096:]
            lines = [plain(line) for line in lines]
            self._lines.extend(line for line in lines if line.strip())
            rest = plain(self._rest)
        for line in lines:
            self._judge(line)
        for pattern, reason in _PROMPTS:
            if not self.fatal and pattern.search(rest):
                self.fatal = reason
        if self.prompted is None and _LOGIN.search(rest):
            self.prompted = self._clock()

    def _judge(self, line: str) -> None:
        for phase, pattern in _MARKS:
            if phase > self._phase and pattern.search(line):
                self.enter(phase)
        for pattern, reason in _FATAL:
            match = pattern.search(line)
            if match and not self.fatal:
                self.fatal = reason.format(*match.groups()).strip(" :")

    def restart(self) -> None:
        """The guest boots again, from its firmware on."""
        with self._lock:
            again = self._phase is Phase.FIRMWARE  # one restart may be several resets
            self._rest = ""
            self._phase = Phase.FIRMWARE
            self._started = self.heard = self._clock()
            self._entered = {Phase.FIRMWARE: 0.0}
            self.fatal = ""
            self.prompted = None
        if not again:
            self._on_phase(Phase.FIRMWARE)

    def enter(self, phase: Phase) -> None:
        """Note that the boot has come this far (also from other evidence)."""
        with self._lock:
            if phase <= self._phase and phase in self._entered:
                return
            self._phase = phase
            self._entered[phase] = self._clock() - self._started
        self._on_phase(phase)
