"""The user data of a rehearsal: a user to log in as, and marks that show that it ran."""

from __future__ import annotations

from publisher.vm.seed import cloud_config

MARK = "/run/rehearsal"
"""On a tmpfs, so that no boot finds the marks of another: `begun`, `done`."""


def user_data(user: str, token: str) -> str:
    """cloud-config of the kind that a customer writes. The login key is not in it:
    the cloud's metadata must bring that."""
    mark = f"mkdir -p {MARK} && echo {token} > {MARK}/done"
    return cloud_config(
        {
            "user": {
                "name": user,
                "shell": "/bin/sh",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
            },
            "users": ["default"],
            # one kind of host key is enough to see that it is new
            "ssh_genkeytypes": ["ed25519"],
            # before sshd starts, once for each instance
            "write_files": [{"path": f"{MARK}/begun", "content": token}],
            # at the very end
            "runcmd": [["sh", "-c", mark]],
        }
    )
