"""Installs Debian packages, as root or through a sudo that asks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from publisher.errors import HostError
from publisher.vm.host import which


def command(packages: Sequence[str]) -> str:
    """What a person types to install them."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install {' '.join(packages)}"


def install(packages: Sequence[str]) -> None:
    """apt-get install; its output goes to stderr. Raises HostError with the
    command to type when it cannot be done from here."""
    advice = f"run: {command(packages)}"
    if which("apt-get") is None:
        raise HostError(
            "this machine has no apt-get", hint=f"install by other means: {' '.join(packages)}"
        )
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and (which("sudo") is None or _run([*prefix, "true"], quiet=True)):
        raise HostError("installing packages needs root, and sudo wants a password", hint=advice)
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    # Without a package index (a fresh root) nothing can be found; with one, a
    # mirror that does not answer need not stop what is cached.
    _run([*apt, "update"])
    status = _run([*apt, "install", "--no-install-recommends", *packages])
    if status:
        raise HostError(f"apt-get install ended with status {status}", hint=advice)


def _run(argv: Sequence[str], *, quiet: bool = False) -> int:
    target = subprocess.DEVNULL if quiet else sys.stderr.fileno()
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=target, stderr=target, check=False
    ).returncode
