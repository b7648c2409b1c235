"""A playbook against the guest: ansible-playbook on the host, over the build's own login."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from publisher.build_steps import Ansible
from publisher.errors import HostError
from publisher.vm import process
from publisher.vm.host import which
from publisher.vm.shell import Shell

COMMAND = "ansible-playbook"
_PASSED = (
    *("PATH", "HOME", "USER", "TMPDIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


def require(key: str = "") -> None:
    """Raise HostError when Ansible is not installed."""
    if which(COMMAND) is None:
        raise HostError(
            f"{COMMAND} is not installed: it runs the steps of kind ansible",
            key=key,
            hint="install the Debian package ansible-core",
        )


def play(
    step: Ansible,
    directory: Path,
    shell: Shell,
    output: Callable[[str], None],
    secrets: Mapping[str, str],
) -> process.Completed:
    """Run the playbook. It finds `secrets` with lookup('env', NAME)."""
    require()
    shell.log_in()
    playbook = (directory / step.playbook).resolve()
    with tempfile.TemporaryDirectory(prefix="ansible.", dir=shell.directory) as made:
        private = Path(made)
        (private / "inventory.json").write_text(json.dumps(inventory(shell)))
        (private / "variables.json").write_text(json.dumps(step.extra_vars))
        done = process.run(
            [
                *(COMMAND, "-i", str(private / "inventory.json")),
                *("-e", f"@{private / 'variables.json'}", str(playbook)),
            ],
            shell.task,
            on_line=output,
            env={**_environment(playbook, private), **secrets},
            # the paths in ssh's options are relative to it
            cwd=shell.directory,
            check=shell.check,
        )
    if done.status:
        shell.check()
    return done


def inventory(shell: Shell) -> dict[str, object]:
    """One host, reached through the shell's connection."""
    host, port, user = shell.address
    guest = {
        "ansible_connection": "ssh",
        "ansible_host": host,
        "ansible_port": port,
        "ansible_user": user,
        "ansible_ssh_args": shlex.join(shell.options()),
        "ansible_python_interpreter": "/usr/bin/python3",
        # modules come over standard input, files through memory: with both, no
        # argument of a task touches the guest's disk
        "ansible_pipelining": True,
        "ansible_remote_tmp": "/run/publisher-ansible",
        # needs no SFTP server, which a small guest may lack
        "ansible_ssh_transfer_method": "piped",
    }
    return {"all": {"hosts": {"guest": guest}}}


def _environment(playbook: Path, private: Path) -> dict[str, str]:
    """Nothing of the user's own Ansible settings: only ansible.cfg beside the
    playbook counts, because it is an input of the step.
    https://docs.ansible.com/ansible/latest/reference_appendices/config.html"""
    config = playbook.parent / "ansible.cfg"
    if not config.is_file():
        # without one, Ansible would look for the user's
        config = private / "ansible.cfg"
        config.touch()
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCAL_TEMP": str(private / "tmp"),
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_NOCOWS": "True",
        # every task's arguments would stand in the guest's journal
        "ANSIBLE_NO_TARGET_SYSLOG": "True",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "LC_ALL": "C.UTF-8",  # Ansible refuses to run without UTF-8
        "PYTHONUNBUFFERED": "1",
    }
