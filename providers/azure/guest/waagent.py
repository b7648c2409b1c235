"""Azure's Linux agent: whether it runs, and sets an instance up.

/etc/waagent.conf: https://github.com/Azure/WALinuxAgent, azurelinuxagent/common/conf.py
and azurelinuxagent/pa/provision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher.proof.checks import agents, cloud_init
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import Evidence

PATH = "/usr/sbin/waagent"
_UNITS = ("walinuxagent.service", "waagent.service")
_CONF = "/etc/waagent.conf"
_LEAST = (2, 2, 41)
_BY_AGENT = (2, 2, 45)
"""From here on Provisioning.Agent decides, and Provisioning.Enabled means nothing:
https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-centos"""


def sets_up(disk: Inspection) -> Iterator[Evidence]:
    """An instance is set up, by the agent or by cloud-init."""
    if not disk.tree().exists(PATH):
        yield from agents.provisioned()(disk)
        return
    found = agents.python_version(disk, "azurelinuxagent/common/version.py", "AGENT_VERSION")
    if found and found < _LEAST:
        yield Evidence(f"waagent is {'.'.join(map(str, found))}, not 2.2.41 or newer", PATH)
    if cloud_init.enabled(disk):
        return
    if not any(disk.unit(unit) == "enabled" for unit in _UNITS):
        yield Evidence("neither waagent's unit nor cloud-init is enabled", PATH)
        return
    without = "which is not " + ("installed" if cloud_init.version(disk) is None else "enabled")
    settings = _settings(disk)
    by, line = settings.get("Provisioning.Agent", ("auto", 0))
    if by == "cloud-init":
        yield Evidence(f"waagent leaves it to cloud-init, {without}", _CONF, line)
    elif by not in ("auto", "waagent"):
        yield Evidence(f"waagent is told Provisioning.Agent={by}", _CONF, line)
    elif found < _BY_AGENT and "Provisioning.Agent" not in settings:
        enabled, line = settings.get("Provisioning.Enabled", ("y", 0))
        if enabled.lower() != "y":
            yield Evidence(f"waagent is told Provisioning.Enabled={enabled}", _CONF, line)


def _settings(disk: Inspection) -> Mapping[str, tuple[str, int]]:
    """Key ▶ value and line; the last one counts."""
    found: dict[str, tuple[str, int]] = {}
    for number, text in disk.tree().lines(_CONF):
        key, equals, value = text.partition("=")
        if equals:
            found[key.strip()] = (value.partition("#")[0].strip('" '), number)
    return found
