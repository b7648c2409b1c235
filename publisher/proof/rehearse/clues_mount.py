"""Why a file system was not mounted: what systemd waited for, and which line names that."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publisher.proof.inspect import fstab
from publisher.proof.rehearse.evidence import Cause, Evidence, Files, lines_of

_WAITED = re.compile(r"Timed out waiting for device (\S.*?)\.?\s*$", re.MULTILINE)
_BY = ("uuid", "label", "partuuid", "partlabel")
_TAIL_LEAST = 6


def mount_fails(at: Evidence) -> Cause | None:
    """What a boot can do without (nofail, swap, a terminal, a TPM) is no cause of its end."""
    waited = [_device(found[1]) for found in _WAITED.finditer(at.seen.printed)]
    mounts = list(_needed(at.files))
    for device in waited:
        for mount in mounts:
            if _same(mount.device, device):
                return Cause(
                    f"{fstab.PATH}, line {mount.line} names a device that the machine has not: "
                    f"{mount.device}",
                    f"remove the line from {fstab.PATH}, or add nofail to its options",
                )
    if "emergency mode" not in at.seen.tracker.fatal:
        return None
    if waited:
        return Cause(
            f"the system waits for a device that the machine has not: {waited[0]}",
            f"look for what names it in {fstab.PATH}, /etc/crypttab and the kernel command line",
        )
    return Cause(
        "systemd stopped in emergency mode, without having waited for a device",
        f"the console tells above it what failed: often a file system of {fstab.PATH} whose check, "
        "type or options are wrong",
    )


def _needed(files: Files) -> Iterator[fstab.Mount]:
    """What must be mounted for a boot to go on (systemd.mount(5))."""
    for _, number, line in lines_of(files, [fstab.PATH]):
        mount = fstab.read_line(number, line)
        if mount and mount.kind != "swap" and not {"nofail", "noauto"} & set(mount.options):
            yield mount


def _device(text: str) -> str:
    """The path in a message, which names the unit, the path, or first one and then the
    other; as it is where systemd has cut out its middle for the width of a terminal."""
    path = re.search(r"/dev/\S+", text)
    if path or "…" in text:
        return path[0] if path else text
    return _path(text.split()[0])


def _path(unit: str) -> str:
    """The path that a unit is named by (systemd.unit(5))."""
    unit = unit.removesuffix(".device").removeprefix("-")
    slashed = "/" + unit.replace("-", "/")
    return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), slashed)


def _same(name: str, device: str) -> bool:
    """Whether a line's name is that device."""
    key, _, value = name.partition("=")
    if key.lower() in _BY:
        name = f"/dev/disk/by-{key.lower()}/" + value.strip('"')
    _, cut, tail = device.rpartition("…")
    if not cut:
        return name == device
    return len(tail) >= _TAIL_LEAST and name.endswith((tail, _path(tail)[1:]))
