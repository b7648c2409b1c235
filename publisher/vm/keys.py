"""SSH keys of one build: made for it, known to nobody else, deleted with its directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import HostError
from publisher.task import Task
from publisher.vm import process

ALIAS = "guest"
"""The name under which the guest's host key is pinned."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Paths of the user's private key, the private known_hosts, and the key texts.

    `host_private` is handed to the guest, so that its first answer is already
    the one that known_hosts expects."""

    identity: Path
    known_hosts: Path
    user_public: str
    host_private: str
    host_public: str

    @property
    def pinned(self) -> bool:
        """False where the guest has a host key of its own that could not be read."""
        return self.known_hosts.stat().st_size > 0

    def expect(self, host_keys: Iterable[str]) -> None:
        """Take these keys ("ssh-ed25519 AAAA…") of the guest's own for right too;
        without any, every key."""
        lines = [f"{ALIAS} {' '.join(key.split()[:2])}\n" for key in host_keys]
        ours = [f"{ALIAS} {self.host_public}\n"] if lines else []
        self.known_hosts.write_text("".join([*ours, *lines]))


def generate(directory: Path, task: Task) -> Keys:
    """Two fresh ed25519 pairs in `directory`, which must be private to the user."""
    for name in ("identity", "host"):
        (directory / name).unlink(missing_ok=True)
        done = process.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "build", "-f", name],
            task,
            cwd=directory,
        )
        if done.status:
            raise HostError(f"ssh-keygen failed: {done.text}")
    host_public = (directory / "host.pub").read_text().strip()
    (directory / "known_hosts").write_text(f"{ALIAS} {host_public}\n")
    return load(directory)


FILES = ("identity", "identity.pub", "host", "host.pub", "known_hosts")


def copy(place: Path, directory: Path) -> Keys:
    """The pairs of one directory, in another private one."""
    for name in FILES:
        shutil.copy(place / name, directory / name)
    return load(directory)


def load(directory: Path) -> Keys:
    """The pairs that `generate` made in that directory, or in one that it was copied from."""
    return Keys(
        identity=directory / "identity",
        known_hosts=directory / "known_hosts",
        user_public=(directory / "identity.pub").read_text().strip(),
        host_private=(directory / "host").read_text(),
        host_public=(directory / "host.pub").read_text().strip(),
    )
