"""Why cloud-init, or whatever sets up a new machine, did not: from its files."""

from __future__ import annotations

import re

from publisher.proof.rehearse.evidence import Cause, Evidence, Files, cloud_configs, lines_of


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
    words = re.search(r"(?:Command line|BOOT_IMAGE).*\bcloud-init=disabled\b", at.seen.printed)
    if words:
        return Cause(
            "cloud-init is switched off by cloud-init=disabled on the kernel command line",
            "remove it from /etc/default/grub and run update-grub",
        )
    return None


def pinned_sources(files: Files) -> tuple[str, int, list[str]] | None:
    """The file and line that lists cloud-init's datasources, and which: the last
    one counts. Block lists of YAML have an entry a line."""
    found: tuple[str, int, list[str]] | None = None
    for path in cloud_configs(files):
        lines = files.text(path).splitlines()
        for number, line in enumerate(lines, 1):
            match = re.match(r"\s*datasource_list\s*:\s*(.*)$", line)
            if match is None:
                continue
            text = match[1].partition("#")[0]
            if not text.strip():
                for more in lines[number:]:
                    entry = re.match(r"\s*-\s*(.+)$", more)
                    if entry is None:
                        break
                    text += f" {entry[1]}"
            names = [name for name in re.split(r"[\s\[\],'\"]+", text) if name]
            found = path, number, names
    return found


def datasource_pinned(at: Evidence) -> Cause | None:
    pinned = pinned_sources(at.files)
    wanted = at.seen.look.datasource
    if pinned is None or wanted in pinned[2]:
        return None
    path, number, names = pinned
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
    facts = at.seen.facts
    if facts is None:
        return None
    for path, number, line in lines_of(at.files, cloud_configs(at.files)):
        if re.match(r"manual_cache_clean\s*:\s*true", line, re.IGNORECASE):
            return Cause(
                f"{path}, line {number}, makes cloud-init keep its first instance",
                "remove the line",
            )
        if re.match(r"ssh_deletekeys\s*:\s*(false|0)", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, keeps ssh host keys", "remove the line")
        if re.match(r"preserve_hostname\s*:\s*true", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, keeps the host name", "remove the line")
    if facts.machine_id_age > 0 and at.files.text("/etc/machine-id").strip():
        return Cause(
            "/etc/machine-id was sealed into the image", "truncate it at the end of the build"
        )
    return None
