"""Why nobody could log in: no ssh server, or one that refuses."""

from __future__ import annotations

import re

from publisher.proof.rehearse.evidence import Cause, Evidence, lines_of

_SSHD = ("/usr/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd", "/usr/sbin/dropbear")


def no_sshd(at: Evidence) -> Cause | None:
    files = at.files
    if not files.exists("/etc/os-release"):
        return None
    if not any(files.exists(path) for path in _SSHD):
        return Cause("no ssh server is in the image", "install openssh-server")
    for unit in ("ssh.service", "sshd.service"):
        if files.link(f"/etc/systemd/system/{unit}") == "/dev/null":
            return Cause(f"the ssh server is switched off: {unit} is masked", f"unmask {unit}")
    enabled = files.glob("/etc/systemd/system/*.wants/ssh*.service")
    enabled += files.glob("/etc/systemd/system/*.wants/ssh*.socket")
    enabled += files.glob("/etc/rc2.d/S*ssh*") + files.glob("/etc/runlevels/default/sshd")
    if not enabled:
        return Cause("the ssh server is in the image and not enabled", "systemctl enable ssh")
    return None


def silent_agent(at: Evidence) -> Cause | None:
    """The cloud's own agent is to do cloud-init's work."""
    if at.seen.reports or at.files.exists("/usr/bin/cloud-init"):
        return None
    for unit in at.seen.look.agents:
        if at.files.glob(f"/etc/systemd/system/*.wants/{unit}"):
            return Cause(
                f"{unit} is to set the machine up, and asked the cloud for nothing: it stalls, "
                "or does not start",
                f"see journalctl -u {unit} in a machine of the image, or install cloud-init",
            )
    return None


def sshd_fails(at: Evidence) -> Cause | None:
    for pattern, cause, fix in (
        (r"no hostkeys available", "sshd has no host keys and nothing made any", "let cloud-init"),
        (
            r"(?:Failed to start|FAILED\S* Failed to start) .*(?:ssh|SSH)",
            "the ssh server does not start",
            "look for sshd in the console log, and run sshd -t in the image",
        ),
    ):
        if re.search(pattern, at.seen.printed):
            return Cause(cause, fix)
    return None


def refuses_key(at: Evidence) -> Cause | None:
    if "refuses the login" not in (at.seen.error.message if at.seen.error else ""):
        return None
    paths = ["/etc/ssh/sshd_config", *at.files.glob("/etc/ssh/sshd_config.d/*.conf")]
    for path, number, line in lines_of(at.files, paths):
        if re.match(r"PubkeyAuthentication\s+no", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, refuses public keys", "remove the line")
        if re.match(r"(AllowUsers|AllowGroups|DenyUsers)\s", line, re.IGNORECASE):
            return Cause(f"{path}, line {number}, lets only some users in: {line}", "remove it")
    if at.seen.report("key") is None:
        return Cause(
            "nothing in the guest asked the cloud for the SSH key",
            "see whether cloud-init runs and finds its datasource",
        )
    return Cause(
        "the key was fetched and not put in place for the user of the user data",
        "look for cc_ssh and cc_users_groups in /var/log/cloud-init.log",
    )
