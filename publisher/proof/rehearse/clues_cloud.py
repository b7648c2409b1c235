"""Why cloud-init, or whatever sets up a new machine, did not: from its files."""

from __future__ import annotations

import re

from publisher.proof.checks.cloud_init import listed_sources
from publisher.proof.rehearse.evidence import Cause, Evidence, cloud_configs, lines_of
from publisher.proof.rehearse.remedies import renew_grub

_INSTANCE = "makes cloud-init keep its first instance"


def cloud_init_off(at: Evidence) -> Cause | None:
    files = at.files
    if files.exists("/etc/cloud/cloud-init.disabled"):
        return Cause(
            "cloud-init is switched off by /etc/cloud/cloud-init.disabled", "delete that file"
        )
    for unit in ("cloud-init-local.service", "cloud-init.service", "cloud-init-main.service"):
        if files.link(f"/etc/systemd/system/{unit}") == "/dev/null":
            return Cause(
                f"cloud-init is switched off: {unit} is masked", f"systemctl unmask {unit}"
            )
    for path, number, line in lines_of(files, ["/etc/cloud/ds-identify.cfg"]):
        if re.match(r"policy\s*:\s*disabled\b", line):
            return Cause(f"cloud-init is switched off in {path}, line {number}", "remove the line")
    if re.search(r"\bcloud-init=disabled\b", _command_line(at)):
        return Cause(
            "cloud-init is switched off by cloud-init=disabled on the kernel command line",
            f"remove it from /etc/default/grub and run {renew_grub(files)}",
        )
    return None


def _command_line(at: Evidence) -> str:
    """The kernel's, as far as anything tells it."""
    facts = at.seen.facts
    if facts and facts.cmdline:
        return facts.cmdline
    found = re.search(r"(?:[Cc]ommand line: |BOOT_IMAGE)(.*)$", at.seen.printed, re.MULTILINE)
    if found:
        return found[1]
    entries = lines_of(at.files, ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"))
    return next((line for _, _, line in entries if line.startswith("linux")), "")


def datasource_told(at: Evidence) -> Cause | None:
    """cloud-init, or what looks for its datasource early, is told another one."""
    wanted = at.seen.look.datasource
    for path, number, line in lines_of(at.files, ["/etc/cloud/ds-identify.cfg"]):
        key, _, value = line.partition(":")
        if key.strip() == "datasource" and value.strip(" \"'") not in ("", wanted):
            return Cause(
                f"cloud-init is told to use {value.strip()} in {path}, line {number}",
                "remove the line",
            )
    for word in re.findall(
        r"(?:^|\s)((?:ds|ci\.ds|ci\.datasource)=[^\s;\\\"']+)", _command_line(at)
    ):
        name = word.partition("=")[2].lower().removesuffix("-net")
        if name != wanted.lower():
            return Cause(
                f"cloud-init is told to use {name} by {word} on the kernel command line",
                f"remove it from /etc/default/grub and run {renew_grub(at.files)}",
            )
    return None


def datasource_pinned(at: Evidence) -> Cause | None:
    configs = ((path, at.files.text(path)) for path in cloud_configs(at.files))
    pinned = listed_sources(configs)
    wanted = at.seen.look.datasource
    if pinned is None or wanted in pinned[0]:
        return None
    names, path, number = pinned
    return Cause(
        "cloud-init saw no datasource: datasource_list is pinned to "
        f"{', '.join(names) or 'nothing'} in {path}, line {number}",
        f"remove the line, or add {wanted}",
    )


def no_cloud_init(at: Evidence) -> Cause | None:
    files = at.files
    places = ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init")
    units = ("/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system")
    agents = (f"{place}/{agent}" for place in units for agent in at.seen.look.agents)
    if any(files.exists(path) for path in (*places, *agents)):
        return None
    if not files.exists("/etc/os-release"):
        return None
    return Cause(
        "nothing in the image sets up a new machine: neither cloud-init nor a cloud's agent",
        "install the package cloud-init",
    )


def not_enabled(at: Evidence) -> Cause | None:
    files = at.files
    if not files.exists("/usr/bin/cloud-init"):
        return None
    generators = files.glob("/*/systemd/system-generators/cloud-init-generator") + files.glob(
        "/usr/lib/systemd/system-generators/cloud-init-generator"
    )
    wants = files.glob("/etc/systemd/system/*.wants/cloud-init*.service")
    if generators or wants or not files.exists("/etc/systemd/system"):
        return None
    return Cause(
        "cloud-init is installed and no unit of it is enabled",
        "systemctl enable cloud-init-local cloud-init cloud-config cloud-final",
    )


def agent_stalls(at: Evidence) -> Cause | None:
    told = [r for r in at.seen.reports if r.kind == "not-ready"]
    if told:
        return Cause(f"the guest says why: {told[-1].text}", "see /var/log/cloud-init.log")
    files = at.files
    for agent in at.seen.look.agents:
        if files.link(f"/etc/systemd/system/{agent}") == "/dev/null":
            return Cause(f"the agent is switched off: {agent} is masked", f"unmask {agent}")
    for path, number, line in lines_of(files, files.glob("/etc/*agent.conf")):
        if re.match(r"Provisioning\.(Agent|Enabled)\s*=\s*(disabled|n)\b", line, re.IGNORECASE):
            return Cause(
                f"the agent may not set up machines ({path}, line {number}), and cloud-init "
                "did not",
                "set Provisioning.Agent=auto",
            )
    return Cause(
        "no agent in the guest told the cloud that it is up; the cloud would wait for 20 to 40 "
        "minutes and then count the machine as failed",
        "install cloud-init or the cloud's agent, and see their logs in the console log",
    )


def growth(at: Evidence) -> Cause | None:
    files, facts = at.files, at.seen.facts
    if facts and facts.behind:
        return Cause(
            f"the partition of the root has no room to grow: {facts.behind} is behind it",
            "lay the disk out so that the root is its last partition",
        )
    for path, number, line in lines_of(files, cloud_configs(files)):
        if re.match(
            r"(mode\s*:\s*(off|false)|resize_rootfs\s*:\s*(false|noblock\s*:\s*off))", line
        ):
            return Cause(f"growing is switched off in {path}, line {number}", "remove the line")
    if not any(files.glob(f"/{place}/growpart") for place in ("bin", "usr/bin", "usr/sbin")):
        return Cause("growpart is not in the image", "install cloud-guest-utils")
    return None


def frozen(at: Evidence) -> Cause | None:
    """What another instance keeps, by what it shows: each setting keeps its own thing."""
    facts, seen = at.seen.facts, at.seen
    if facts is None:
        return None
    same_instance = facts.instance != seen.instance_id or facts.begun != seen.token
    same_name = facts.hostname.partition(".")[0] != seen.instance.hostname
    # a used disk has the machine id of its first boot, whatever its image has
    sealed = at.claim == "identity" and facts.machine_id_age > 0
    # keys alone are not told from those of the other machine here
    same_keys = at.claim in ("identity", "rerun") and not (same_instance or same_name or sealed)
    for shown, pattern, what in (
        (same_instance or same_name, r"manual_cache_clean\s*:\s*(true|yes|on|1)\b", _INSTANCE),
        (same_name, r"preserve_hostname\s*:\s*(true|yes|on|1)\b", "keeps the host name"),
        (same_keys, r"ssh_deletekeys\s*:\s*(false|no|off|0)\b", "keeps ssh host keys"),
    ):
        for path, number, line in lines_of(at.files, cloud_configs(at.files)):
            if shown and re.match(pattern, line, re.IGNORECASE):
                return Cause(f"{path}, line {number}, {what}", "remove the line")
    if sealed and at.files.text("/etc/machine-id").strip():
        return Cause(
            "/etc/machine-id was sealed into the image", "truncate it at the end of the build"
        )
    return None
