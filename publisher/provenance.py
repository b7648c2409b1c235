"""Which versions of which tools made a release."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Iterable

from publisher import provider as seam
from publisher.model import Arch
from publisher.vm import host
from publisher.vm.arch import platform_of

DISTRIBUTION = "cloud-image-publisher"


def tools(providers: Iterable[str]) -> dict[str, str]:
    """Versions by name: this program, Python, and the SDKs of the providers used."""
    found = {
        DISTRIBUTION: _version(DISTRIBUTION),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name in providers:
        for package in _requirements(seam.load(name).traits.extra):
            found[package] = _version(package)
    return {name: version for name, version in found.items() if version}


def host_tools(*archs: Arch) -> dict[str, str]:
    """Versions of the tools of this machine that made the disk."""
    return {
        name: version
        for name in (*(platform_of(arch).qemu for arch in archs), "qemu-img", "mmdebstrap")
        if (version := _asked(name))
    }


def _asked(command: str) -> str:
    path = host.which(command)
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _requirements(extra: str) -> list[str]:
    """The packages that an extra of this distribution names."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
    return [re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in lines if wanted.search(line)]
