"""Running as root, or as something that is root over its own files: how an
installation gets owners, devices and mounts without privileges on the host."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import HostError
from publisher.vm.process import command


@dataclass(frozen=True, slots=True)
class Namespace:
    """`prefix` goes in front of a command line; killing that command ends all
    that it started, because it is the first process of its PID namespace."""

    kind: str
    prefix: tuple[str, ...]

    def wrap(self, argv: Sequence[str]) -> list[str]:
        return [*self.prefix, *argv]


_OWN = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT = (
    Namespace("root", ("unshare", *_OWN)),
    # inside a chroot "/" is no mount point, whose propagation could be changed
    Namespace("root in a chroot", ("unshare", "--propagation", "unchanged", *_OWN)),
    Namespace("root without a PID namespace", ("unshare", "--mount")),
)
_USER = ("unshare", "--user", "--map-root-user", "--map-auto")
_AS_USER = (
    Namespace("user namespace", (*_USER, *_OWN)),
    Namespace("user namespace without /proc", (*_USER, "--mount")),
)
_TRIAL = (
    'cd "$1"; mkdir tree; mount -t tmpfs none tree; touch tree/file; chown 33:33 tree/file; '
    "umount tree; touch file; chown 33:33 file; rm file; rmdir tree"
)
"""What every candidate must be able to do: mount, and give files away."""


def candidates(uid: int) -> tuple[Namespace, ...]:
    return _AS_ROOT if uid == 0 else _AS_USER


def choose(uid: int, refusal: dict[str, str]) -> Namespace:
    """The first candidate that `refusal` (kind ▶ why not, "" when it works) accepts.

    Raises HostError that says what to allow."""
    for candidate in candidates(uid):
        if not refusal.get(candidate.kind, "not tried"):
            return candidate
    said = next((why for why in refusal.values() if why), "")
    if uid == 0:
        raise HostError(
            f"this root user may not mount, so no Debian can be installed ({said})",
            hint="run outside of the container, or give it CAP_SYS_ADMIN",
        )
    raise HostError(
        f"neither root nor user namespaces: no Debian can be installed ({said})",
        hint="install the Debian package uidmap, give your user a range in /etc/subuid and "
        "/etc/subgid (usermod --add-subuids), allow user namespaces "
        "(sysctl kernel.unprivileged_userns_clone=1), or run as root",
    )


def _refusal(candidate: Namespace, directory: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="namespace-", dir=directory) as trial:
        argv = candidate.wrap(["sh", "-euc", _TRIAL, "sh", trial])
        done = subprocess.run(
            command(argv), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"status {done.returncode}")


@functools.lru_cache(maxsize=4)
def probe(directory: Path) -> Namespace:
    """What works here, tried in `directory`. Raises HostError when nothing does."""
    uid = os.geteuid()
    refusal: dict[str, str] = {}
    for candidate in candidates(uid):
        refusal[candidate.kind] = _refusal(candidate, directory)
        if not refusal[candidate.kind]:
            break
    return choose(uid, refusal)
