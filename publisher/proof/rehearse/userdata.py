"""The user data of a rehearsal: a user to log in as, and marks that show that it ran."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.vm.seed import cloud_config

MARK = "/run/rehearsal"
"""On a tmpfs, so that no boot finds the marks of another: `begun`, `done`."""


QUICK = ("ecdsa", "ed25519")
"""Host keys that an emulated guest makes at once, which takes seconds for RSA. The first one
is there under FIPS 140, too, and the second one where nobody trusts NIST's curves."""


def user_data(user: str, token: str, host_keys: Sequence[str] = ()) -> str:
    """cloud-config of the kind that a customer writes. The login key is not in it: the
    cloud's metadata must bring that. `host_keys` are the kinds that are made, where they
    are not the image's own choice."""
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
            **({"ssh_genkeytypes": list(host_keys)} if host_keys else {}),
            # before sshd starts, once for each instance
            "write_files": [{"path": f"{MARK}/begun", "content": token}],
            # at the very end
            "runcmd": [["sh", "-c", mark]],
        }
    )
