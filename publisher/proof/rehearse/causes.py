"""Why a rehearsal failed, in words: from what the console said, what the guest
asked for, and what stands in the files on its disk."""

from __future__ import annotations

from collections.abc import Mapping

from publisher.proof.rehearse import (
    clues_boot,
    clues_cloud,
    clues_drivers,
    clues_login,
    clues_mount,
    clues_network,
)
from publisher.proof.rehearse.evidence import Cause, Evidence, Rule
from publisher.vm.console import Phase

_CLOUD: tuple[Rule, ...] = (
    clues_cloud.cloud_init_off,
    clues_cloud.datasource_told,
    clues_cloud.datasource_pinned,
    clues_cloud.no_cloud_init,
    clues_cloud.not_enabled,
)
_NETWORK: tuple[Rule, ...] = (
    clues_boot.library,
    clues_boot.PANIC,
    clues_mount.mount_fails,
    clues_drivers.driver_of_card,
    *_CLOUD,
    clues_network.no_dhcp,
    clues_network.network_off_in_cloud_init,
    clues_network.bound_to_card,
    clues_network.own_address,
    clues_login.silent_agent,
)
_LOGIN: tuple[Rule, ...] = (
    clues_boot.starved,
    clues_boot.library,
    clues_boot.PANIC,
    *_CLOUD,
    clues_login.silent_agent,
    clues_mount.mount_fails,
    clues_login.no_sshd,
    clues_login.sshd_fails,
    clues_login.refuses_key,
    *_NETWORK,
)
_RULES: Mapping[str, tuple[Rule, ...]] = {
    "firmware": (
        clues_boot.refused_by_secure_boot,
        clues_boot.nothing_to_boot,
        clues_boot.silent,
    ),
    "kernel": (
        clues_boot.GRUB_NO_FILE,
        clues_boot.GRUB_LOST,
        clues_boot.refused_by_secure_boot,
        clues_boot.nothing_to_boot,
        clues_boot.asks_in_grub,
        clues_boot.library,
        clues_boot.PANIC,
        clues_boot.silent,
    ),
    "root": (
        clues_boot.starved,
        clues_drivers.driver_of_root,
        clues_mount.mount_fails,
        clues_boot.library,
        clues_boot.PANIC,
    ),
    "network": (clues_boot.starved, *_NETWORK),
    "datasource": (*_CLOUD, clues_network.no_dhcp),
    "user-data": _CLOUD,
    "login": _LOGIN,
    "hostname": (clues_cloud.frozen, *_CLOUD),
    "growth": (clues_cloud.growth,),
    "ready": (clues_cloud.agent_stalls,),
    "console": (clues_boot.no_console,),
    "units": (clues_boot.unit_fails,),
    "shutdown": (clues_boot.deaf_to_the_button,),
    "identity": (clues_cloud.frozen, *_CLOUD),
    "rerun": (clues_cloud.frozen, *_CLOUD),
}
"""For each line of a verdict, the most telling first."""
_BROKEN_OFF: Mapping[Phase, str] = {
    Phase.FIRMWARE: "firmware",
    Phase.BOOTLOADER: "kernel",
    Phase.KERNEL: "root",
}
"""The line that a boot would have failed which came so far and was to show another one."""


def likely(evidence: Evidence) -> Cause | None:
    """The first cause that fits the evidence."""
    line = evidence.claim
    if line in ("identity", "rerun") and evidence.seen.facts is None:
        line = _BROKEN_OFF.get(evidence.seen.phase, "login")
    for rule in _RULES.get(line, ()):
        found = rule(evidence)
        if found is not None:
            return found
    return None
