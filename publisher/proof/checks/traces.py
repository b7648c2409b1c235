"""Traces of the machine that the image was built on: identities, keys, passwords.

The list of places follows virt-sysprep's operations.
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, WARNING, Evidence, Rule

_HISTORIES = (
    ".bash_history",
    ".sh_history",
    ".zsh_history",
    ".python_history",
    ".mysql_history",
    ".psql_history",
    ".lesshst",
    ".viminfo",
)
_PRIVATE = (b"-----BEGIN ", b"PRIVATE KEY-----")
_LOCKED = ("!", "*", "x")


def _machine_id(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if tree.link(path):
            continue
        text = tree.read(path, 64).strip()
        if text not in (b"", b"uninitialized"):
            yield Evidence("the image has a machine id", path, 1)


def _host_keys(disk: Inspection) -> Iterator[Evidence]:
    for path in disk.tree().glob("/etc/ssh/ssh_host_*_key"):
        yield Evidence("the image has a host key", path)


def _random_seed(disk: Inspection) -> Iterator[Evidence]:
    for path in ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed"):
        if disk.tree().exists(path):
            yield Evidence("a random seed is left", path)


def _authorized_keys(disk: Inspection) -> Iterator[Evidence]:
    for home in disk.homes():
        for path in (f"{home}/.ssh/authorized_keys", f"{home}/.ssh/authorized_keys2"):
            for number, line in disk.tree().lines(path):
                owner = line.split()[-1][:80]
                yield Evidence(f"a key may log in ({owner})", path, number)


def _private_keys(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for home in disk.homes():
        for path in tree.glob(f"{home}/.ssh/*"):
            if tree.is_file(path):
                head = tree.read(path, 100)
                if head.startswith(_PRIVATE[0]) and _PRIVATE[1] in head:
                    yield Evidence("a private key", path, 1)


def _passwords(disk: Inspection) -> Iterator[Evidence]:
    for number, line in disk.tree().lines("/etc/shadow"):
        user, _, rest = line.partition(":")
        field = rest.partition(":")[0]
        if not field:
            yield Evidence(f"{user} needs no password", "/etc/shadow", number)
        elif field.lstrip("!").startswith("$") or not field.startswith(_LOCKED):
            locked = field.startswith("!")
            state = "a locked password" if locked else "a password"
            yield Evidence(
                f"{user} has {state}", "/etc/shadow", number, WARNING if locked else None
            )


def _histories(disk: Inspection) -> Iterator[Evidence]:
    for home in disk.homes():
        for name in _HISTORIES:
            place = disk.tree().find(f"{home}/{name}")
            if place is not None and place.node.is_file and place.node.size:
                yield Evidence("what somebody typed is left", f"{home}/{name}")


_SYSPREP = "https://libguestfs.org/virt-sysprep.1.html#operations"
RULES = (
    Rule(
        "identity.machine-id",
        ERROR,
        "The image has no machine id",
        "All machines of the image would be one to systemd, DHCP servers and monitoring.",
        "https://www.freedesktop.org/software/systemd/man/latest/machine-id.html",
        "empty /etc/machine-id (keep the file) and remove /var/lib/dbus/machine-id",
        _machine_id,
    ),
    Rule(
        "identity.ssh-host-keys",
        ERROR,
        "The image has no SSH host keys",
        "Who has the image can pass for every machine made of it.",
        _SYSPREP,
        "remove /etc/ssh/ssh_host_*; cloud-init makes new ones at the first boot",
        _host_keys,
    ),
    Rule(
        "identity.random-seed",
        WARNING,
        "The image has no random seed",
        "All machines of the image would credit the same secret to their random numbers.",
        "https://www.freedesktop.org/software/systemd/man/latest/systemd-random-seed.service.html",
        "remove the file",
        _random_seed,
    ),
    Rule(
        "traces.authorized-keys",
        ERROR,
        "No SSH key may log in",
        "Who holds the key of the build can enter every machine made of the image.",
        _SYSPREP,
        "remove the file; clouds put their users' keys in",
        _authorized_keys,
    ),
    Rule(
        "traces.private-key",
        ERROR,
        "No private key lies in a home directory",
        "Everybody who may start the image can read it.",
        _SYSPREP,
        "remove the file, and replace the key everywhere: it is known now",
        _private_keys,
    ),
    Rule(
        "traces.password",
        ERROR,
        "No account has a password",
        "Whoever reads the hash from the image, or knows the password, can enter every machine.",
        _SYSPREP,
        "lock it: passwd --lock USER, or write * as the second field of its line",
        _passwords,
    ),
    Rule(
        "traces.history",
        WARNING,
        "No shell history is left",
        "Histories hold what was typed, passwords among it.",
        _SYSPREP,
        "remove the file",
        _histories,
    ),
)
