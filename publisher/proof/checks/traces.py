"""Traces of the machine that the image was built on: identities, keys, passwords.

The list of places follows virt-sysprep's operations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from publisher.proof.checks import ssh
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import ERROR, WARNING, Evidence, Rule
from publisher.proof.secrets.leftovers import HISTORIES, LOGINS, homes, is_full

_CREDENTIALS = (".aws/credentials", ".azure/accessTokens.json", *LOGINS)
_PRIVATE = (b"-----BEGIN ", b"PRIVATE KEY-----")
_PUTTY = b"PuTTY-User-Key-File-"
_HASH = re.compile(r"\$.+|_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{13}")
"""What crypt(5) makes: by $method$, of BSD, and of DES. Nobody has a password whose hash
is anything else."""
_KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")


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
    for path in _key_files(disk.tree()):
        for number, line in disk.tree().lines(path):
            owner = line.split()[-1][:80]
            yield Evidence(f"a key may log in ({owner})", path, number)


def _key_files(tree: Tree) -> list[str]:
    """Where sshd looks for keys: in its default places, and where it is told to."""
    told = ssh.settings(tree).get("authorizedkeysfile")
    found: dict[str, None] = {}
    for pattern in (*_KEY_FILES, *(told.value.split() if told else ())):
        named = re.sub("%[uU]", "*", pattern).replace("%%", "%")
        below = "" if named.startswith(("/", "%h")) else "%h/"
        for home in homes(tree) if "%h" in below + named else [""]:
            found.update(dict.fromkeys(tree.glob((below + named).replace("%h", home))))
    return list(found)


def _private_keys(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for home in homes(tree):
        for path in tree.glob(f"{home}/.ssh/*"):
            if tree.is_file(path):
                head = tree.read(path, 100).lstrip()
                pem = head.startswith(_PRIVATE[0]) and _PRIVATE[1] in head
                if pem or head.startswith(_PUTTY):
                    yield Evidence("a private key", path, 1)


def _passwords(disk: Inspection) -> Iterator[Evidence]:
    for path in ("/etc/shadow", "/etc/passwd", "/etc/shadow-", "/etc/passwd-"):
        for number, line in disk.tree().lines(path):
            user, colon, rest = line.partition(":")
            field = rest.partition(":")[0]
            bare = field.lstrip("!*")
            past = path.endswith("-")
            if colon and not field and not past:
                yield Evidence(f"{user} needs no password", path, number)
            elif _HASH.fullmatch(bare):
                locked = "a locked password" if bare != field else ""
                state = "had a password" if past else f"has {locked or 'a password'}"
                severity = WARNING if locked or past else None
                yield Evidence(f"{user} {state}", path, number, severity)


def _credentials(disk: Inspection) -> Iterator[Evidence]:
    yield from _left(disk.tree(), _CREDENTIALS, "credentials for a cloud are left")


def _histories(disk: Inspection) -> Iterator[Evidence]:
    yield from _left(disk.tree(), HISTORIES, "what somebody typed is left")


def _left(tree: Tree, names: Sequence[str], text: str) -> Iterator[Evidence]:
    for home in homes(tree):
        for path in (f"{home}/{name}" for name in names):
            if is_full(tree, path):
                yield Evidence(text, path)


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
        "traces.cloud-credentials",
        ERROR,
        "No credentials for a cloud lie in a home directory",
        "Everybody who may start the image can act in the account that they are for.",
        _SYSPREP,
        "remove the file, and revoke what is in it: it is known now",
        _credentials,
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
