"""The programs that make a machine of an image an instance of a cloud."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from publisher.model import MIB
from publisher.proof.checks import cloud_init
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import WARNING, Check, Evidence, Rule

_OTHERS = ("/usr/bin/ignition", "/usr/lib/dracut/modules.d/30ignition", "/usr/bin/afterburn")
"""What CoreOS and its like provision with."""


def provisioned(*programs: str, units: Sequence[str] = ()) -> Check:
    """One of the cloud's own programs (absolute paths) is installed and one of its
    `units` is enabled (where there is any), or cloud-init runs."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        tree = disk.tree()
        if any(map(tree.exists, _OTHERS)) or cloud_init.enabled(disk):
            return
        names = " or ".join(path.rpartition("/")[2] for path in programs)
        state = "installed" if cloud_init.version(disk) is None else "enabled"
        if not any(map(tree.exists, programs)):
            yield Evidence(f"cloud-init is not {state}{names and f', nor {names} installed'}")
            return
        states = {unit: disk.unit(unit) for unit in units}
        there = [unit for unit in units if states[unit] != "absent"]
        if there and "enabled" not in states.values():
            stopped = ", ".join(f"{unit} is {states[unit]}" for unit in there)
            yield Evidence(f"cloud-init is not {state}, and {stopped}")

    return check


def foreign(cloud: str, title: str, paths: Sequence[str]) -> Check:
    """Nothing of another cloud's agent is there; `cloud` is that one's provider."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for path in paths:
            if disk.tree().exists(path):
                yield Evidence(f"{title} is installed", path, belongs_to=cloud)
                return

    return check


def only_own(provider: str, reference: str, *others: Check) -> Rule:
    """A provider's rule against the agents of other clouds, each told by `foreign`."""
    return Rule(
        f"{provider}.foreign-agent",
        WARNING,
        "No other cloud's agent is installed",
        "An agent looks for its own cloud's metadata, and changes users and the network.",
        reference,
        "remove the package",
        both(*others),
    )


def both(*checks: Check) -> Check:
    """Several checks as one."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        for one in checks:
            yield from one(disk)

    return check


def python_version(disk: Inspection, module: str, name: str) -> tuple[int, ...]:
    """The version that a Python package states as `name` in one of its files; () if
    there is none."""
    tree = disk.tree()
    for pattern in ("/usr/lib/python3*/*-packages", "/usr/local/lib/python3*/*-packages"):
        for path in tree.glob(f"{pattern}/{module}"):
            found = re.search(
                rf"^{name} = ['\"](\d+(?:\.\d+)*)", tree.text(path, MIB), re.MULTILINE
            )
            if found:
                return tuple(map(int, found[1].split(".")))
    return ()
