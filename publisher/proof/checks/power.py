"""What a machine does when its cloud tells it to stop."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import WARNING, Evidence, Rule

_LOGIND = ("/usr/lib/systemd/systemd-logind", "/lib/systemd/systemd-logind")
_BUSES = ("dbus-daemon", "dbus-broker")


def _button(disk: Inspection) -> Iterator[Evidence]:
    if disk.program("acpid"):
        return
    for path in _LOGIND:
        if disk.tree().is_file(path):
            if not any(map(disk.program, _BUSES)):
                yield Evidence("systemd-logind does not start: no D-Bus is installed", path)
            return
    yield Evidence("neither systemd-logind nor acpid is installed")


RULES = (
    Rule(
        "power.button",
        WARNING,
        "Something in the image hears the power button",
        "A cloud stops a machine by pressing its ACPI power button, and a short time later cuts "
        "the power: what is not on the disk by then is lost.",
        "https://www.freedesktop.org/software/systemd/man/latest/logind.conf.html#HandlePowerKey=",
        "install dbus, with which systemd-logind starts, or acpid",
        _button,
    ),
)
