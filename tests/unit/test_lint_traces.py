"""Lint's rules on what the machine of the build left: in any home, in any form."""

from __future__ import annotations

import pytest

from publisher.model import Severity
from tests.unit import lint_world as world
from tests.unit.lint_broken import ERROR, WARNING
from tests.unit.lint_world import Files, Link, World, good
from tests.unit.test_lint_rules import RULES, findings

PASSWD = b"root:x:0:0::/root:/bin/sh\ndeploy:x:1000:1000::/srv/deploy:/bin/bash\n"
KEY = b"ssh-ed25519 AAAA me@home\n"


def told(files: Files) -> list[tuple[str, Severity, str]]:
    """(rule, severity, FILE:LINE) of all that is found, but for what a good disk has."""
    found = findings(World({**good(), **files}))
    return [
        (f.rule, f.severity, f"{f.path}:{f.line}") for f in found if f.rule != "azure.rootdelay"
    ]


@pytest.mark.parametrize(
    ("path", "content", "rule", "severity", "line"),
    [
        ("/root/.aws/credentials", b"x", "cloud-credentials", ERROR, 0),
        ("/home/a/.config/gcloud/credentials.db", b"x", "cloud-credentials", ERROR, 0),
        ("/root/.azure/msal_token_cache.json", b"{}", "cloud-credentials", ERROR, 0),
        ("/srv/deploy/.aws/credentials", b"x", "cloud-credentials", ERROR, 0),
        ("/root/.ash_history", b"x", "history", WARNING, 0),
        ("/root/.zhistory", b"x", "history", WARNING, 0),
        ("/root/.local/share/fish/fish_history", b"x", "history", WARNING, 0),
        ("/srv/deploy/.bash_history", b"x", "history", WARNING, 0),
        ("/srv/deploy/.ssh/id_rsa", b"-----BEGIN PRIVATE KEY-----", "private-key", ERROR, 1),
        ("/root/.ssh/id_rsa", b"\n-----BEGIN RSA PRIVATE KEY-----", "private-key", ERROR, 1),
        ("/root/.ssh/putty", b"PuTTY-User-Key-File-2: ssh-rsa", "private-key", ERROR, 1),
        ("/srv/deploy/.ssh/authorized_keys", KEY, "authorized-keys", ERROR, 1),
        ("/root/.ssh/authorized_keys2", KEY, "authorized-keys", ERROR, 1),
        ("/etc/shadow-", b"root:$6$a$b:1::::::", "password", WARNING, 1),
        ("/etc/shadow", b"root:xyAbCdEfGhIjK:1::::::", "password", ERROR, 1),
        ("/etc/shadow", b"root:_J9..rasmBYk8r9AiWNc:1::::::", "password", ERROR, 1),
        ("/etc/shadow", b"root:*$6$a$b:1::::::", "password", WARNING, 1),
        ("/etc/passwd", b"root:x:0:0::/root:/bin/sh\na:$6$b$c:1:1::/:/b", "password", ERROR, 2),
        ("/etc/passwd", b"a::1:1::/:/bin/sh", "password", ERROR, 1),
    ],
)
def test_a_trace_is_told_with_its_place(
    path: str, content: bytes, rule: str, severity: Severity, line: int
) -> None:
    found = told({"/etc/passwd": PASSWD, path: content})
    assert found == [(f"traces.{rule}", severity, f"{path}:{line}")]


@pytest.mark.parametrize(
    "files",
    [
        {"/etc/shadow": b"a:x:1\nb:*:1\nc:!:1\nd:!!:1\ne:!*:1\nf:*LK*:1\ng:locked:1\n"},
        {"/etc/shadow-": b"a::1\n", "/etc/passwd-": b"a::1:1::/:/bin/sh\n"},
        {"/root/.bash_history": b"", "/root/.aws/config": b"x"},
        {"/srv/other/.bash_history": b"x"},
    ],
)
def test_what_is_no_trace_is_not_told(files: Files) -> None:
    assert told({"/etc/passwd": PASSWD, **files}) == []


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("/etc/ssh/keys/%u", "/etc/ssh/keys/root"),
        (".ssh/authorized_keys .keys", "/srv/deploy/.keys"),
        ("%h/.config/keys", "/root/.config/keys"),
        ("/etc/ssh/everybody", "/etc/ssh/everybody"),
    ],
)
def test_keys_are_looked_for_where_sshd_does(setting: str, path: str) -> None:
    files: Files = {"/etc/passwd": PASSWD, path: KEY}
    assert told(files) == []
    files["/etc/ssh/sshd_config.d/00.conf"] = f"AuthorizedKeysFile {setting}\n".encode()
    assert told(files) == [("traces.authorized-keys", ERROR, f"{path}:1")]


def test_a_machine_id_of_dbus_is_one() -> None:
    assert told({"/var/lib/dbus/machine-id": b"0123\n"}) == [
        ("identity.machine-id", ERROR, "/var/lib/dbus/machine-id:1")
    ]
    assert told({"/var/lib/dbus/machine-id": Link("/etc/machine-id")}) == []
    assert told({"/etc/machine-id": b"uninitialized\n"}) == []


@pytest.mark.parametrize("path", ["data/instance-id", "sem/x.once", "instances/i-1/x", "instance"])
def test_whatever_is_left_of_an_instance_is_told(path: str) -> None:
    at = f"/var/lib/cloud/{path}"
    found = told({at: Link("/nowhere") if path == "instance" else b"i-1"})
    assert found == [("cloud-init.state", WARNING, f"/var/lib/cloud/{path.partition('/')[0]}:0")]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/lib/netplan/x.yaml", "macaddress: 52:54:00:12:34:56"),
        ("/usr/lib/netplan/x.yml", "macaddress: 52:54:00:12:34:56"),
        ("/etc/systemd/network/10-eth0.network.d/x.conf", "MACAddress=52:54:00:12:34:56"),
        ("/etc/systemd/network/10.netdev", "MACAddress=52-54-00-12-34-56"),
        ("/etc/systemd/network/10.network", "MACAddress=525400123456"),
        ("/etc/systemd/network/10.link", "PermanentMACAddress = 5254.0012.3456"),
    ],
)
def test_the_address_of_one_card_is_found_in_every_form(path: str, line: str) -> None:
    assert told({path: f"[Match]\n{line}\n".encode()}) == [("network.mac", ERROR, f"{path}:2")]


def test_a_directory_of_credentials_is_told_once() -> None:
    path = "/root/.config/gcloud/legacy_credentials"
    (found,) = told({"/etc/passwd": PASSWD, f"{path}/me/adc.json": b"x"})
    assert found == ("traces.cloud-credentials", ERROR, f"{path}:0")


def test_a_file_under_two_names_is_told_once() -> None:
    files: Files = {**good(), "/lib": Link("usr/lib")}
    for path in [path for path in files if path.startswith("/lib/")]:
        files[f"/usr{path}"] = files.pop(path)
    files["/usr/lib/netplan/x.yaml"] = b"macaddress: 52:54:00:12:34:56\n"
    (found,) = world.found(RULES["network.mac"], World(files))
    assert found.path == "/usr/lib/netplan/x.yaml"


@pytest.mark.parametrize("line", ["Name=525400123456", "MACAddress=00:00:00:00:00:00"])
def test_other_words_are_no_addresses(line: str) -> None:
    assert told({"/etc/systemd/network/10.network": line.encode()}) == []
