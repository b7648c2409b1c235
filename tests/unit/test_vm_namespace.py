"""A guest's own network: what was asked for is there, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dns.message
import dns.rcode
import pytest

from publisher.errors import HostError
from publisher.vm import inside as program
from publisher.vm import locks, namespace
from publisher.vm.host import require, which
from publisher.vm.names import answer
from publisher.vm.namespace import PrivateNetwork
from publisher.vm.vanishing import vanishing

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

needs_namespaces = pytest.mark.skipif(
    not namespace.probe()[0], reason="this machine forbids user namespaces"
)
METADATA = "169.254.169.254"
NAMES = {"metadata.google.internal": METADATA}


def echo(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()]


@pytest.fixture(scope="module")
def network() -> Iterator[PrivateNetwork]:
    endpoints = {(METADATA, 80): echo, ("fd00:ec2::254", 80): echo}
    with PrivateNetwork(
        addresses=[METADATA, "fd00:ec2::254"], endpoints=endpoints, names=NAMES
    ) as made:
        yield made


CLIENT = """
import socket, sys, urllib.request
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=5).read().decode())
    except OSError as error:
        print(getattr(error, "reason", error))
"""


def inside(network: PrivateNetwork, *argv: str) -> list[str]:
    done = subprocess.run(network.enclose(argv), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@needs_namespaces
def test_addresses_and_names_are_there_and_nothing_else_is(network: PrivateNetwork) -> None:
    said = inside(
        network,
        *(sys.executable, "-c", CLIENT),
        f"http://{METADATA}/v4",
        "http://[fd00:ec2::254]/v6",
        "http://metadata.google.internal/name",
        "http://1.1.1.1/",
        "http://deb.debian.org/",
    )
    assert said[:3] == ["GET /v4", "GET /v6", "GET /name"]
    assert "Network is unreachable" in said[3]
    assert "Name or service not known" in said[4]
    assert len(said) == 5


ASK = """
import socket, sys
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(5)
asked.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 53))
data, peer = asked.recvfrom(512)
print(data.hex(), peer[0])
"""


@needs_namespaces
@pytest.mark.parametrize("server", ["127.0.0.1", METADATA])
def test_the_name_server_answers_at_every_address(network: PrivateNetwork, server: str) -> None:
    query = dns.message.make_query("metadata.google.internal", "A")
    (said,) = inside(network, sys.executable, "-c", ASK, query.to_wire().hex(), server)
    data, _, peer = said.partition(" ")
    assert peer == server
    assert METADATA in dns.message.from_wire(bytes.fromhex(data)).answer[0].to_text()


@needs_namespaces
def test_no_route_leads_out(network: PrivateNetwork) -> None:
    assert inside(network, "ip", "route", "show", "default") == []
    links = inside(network, "ip", "-o", "link")
    # other kinds are tunnels that every namespace has, switched off
    assert [link.split()[1] for link in links if "UP" in link] == ["lo:"]


@needs_namespaces
def test_ports_inside_are_reached_from_outside(network: PrivateNetwork) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); c, _ = s.accept(); c.sendall(b'SSH-2.0')"
    )
    server = subprocess.Popen(
        network.join([sys.executable, "-c", program]), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server, server.stdout:
        port = int(server.stdout.readline())
        with network.connect(port, 5) as connection:
            assert connection.recv(7) == b"SSH-2.0"
    with pytest.raises(OSError, match="refused"):
        network.connect(port, 5)


@needs_namespaces
def test_a_kernel_without_ipv6_leaves_out_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fake = which("ip"), tmp_path / "ip"
    fake.write_text(
        "#!/bin/sh\nlines=$(cat)\ncase $lines in\n"
        "*::*) echo 'RTNETLINK answers: Operation not supported' >&2; exit 1 ;;\n"
        f'esac\necho "$lines" | {real} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(
        namespace, "require", lambda name: str(fake) if name == "ip" else require(name)
    )
    monkeypatch.setattr(namespace, "ipv6_refusal", namespace.ipv6_refusal.__wrapped__)
    assert "Operation not supported" in namespace.ipv6_refusal()
    endpoints = {("fd00:ec2::254", 80): echo, (METADATA, 80): echo}
    with PrivateNetwork(addresses=[], endpoints=endpoints, names={}) as made:
        assert "Operation not supported" in made.without_ipv6
        urls = (f"http://{METADATA}/v4", "http://[fd00:ec2::254]/v6")
        four, six = inside(made, sys.executable, "-c", CLIENT, *urls)
    assert four == "GET /v4"
    assert "GET" not in six


@needs_namespaces
@pytest.mark.parametrize("dangling", [False, True])
def test_names_resolve_where_the_host_has_no_resolver(tmp_path: Path, *, dangling: bool) -> None:
    program = (
        "import subprocess, sys\n"
        "from publisher.vm.namespace import PrivateNetwork\n"
        "with PrivateNetwork(addresses=[], endpoints={}, names={}) as network:\n"
        "    words = network.enclose(['cat', '/etc/resolv.conf', '/etc/passwd'])\n"
        "    subprocess.run(words, check=True)\n"
    )
    etc, temporary = tmp_path / "etc", tmp_path / "a:b,c"
    etc.mkdir()
    temporary.mkdir()
    (etc / "passwd").write_text("root\n")
    if dangling:
        (etc / "resolv.conf").symlink_to("/nowhere/stub.conf")
    kind = namespace.probe()[0]
    mapped = ["--map-root-user"] if "--user" in kind else []
    script = 'mount --bind "$0" /etc && exec "$@"'
    argv = ["unshare", *kind, *mapped, "sh", "-c", script, str(etc), sys.executable, "-c", program]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    assert done.stdout == "nameserver 127.0.0.1\nroot\n", done.stderr
    assert list(temporary.iterdir()) == []


def namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.add(os.readlink(process / "ns" / "net"))
            except OSError:
                continue
    return found


@needs_namespaces
def test_nothing_stays_after_the_program_was_killed() -> None:
    before = namespaces()
    program = (
        "import subprocess, time\n"
        "from publisher.vm.namespace import PrivateNetwork\n"
        "network = PrivateNetwork(addresses=['168.63.129.16'], endpoints={}, names={})\n"
        "network.__enter__()\n"
        "subprocess.Popen(network.enclose(['sleep', '600']))\n"
        "time.sleep(0.3)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == "up\n"
        made = namespaces() - before
        assert made
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while namespaces() & made:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_directory_vanishes_also_when_its_user_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from publisher.vm.vanishing import vanishing\n"
        "with vanishing(pathlib.Path(sys.argv[1]), 'x-') as directory:\n"
        "    (directory / 'file').write_text('x')\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == "up\n"
        assert list(tmp_path.glob("x-*/file"))
        child.kill()
    deadline = time.monotonic() + 5
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with vanishing(tmp_path, "y-") as directory:
        (directory / "file").write_text("y")
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_could_remove_goes_with_the_next_of_its_kind(tmp_path: Path) -> None:
    left, used = tmp_path / "x-left", tmp_path / "x-used"
    held = {directory: locks.take(directory) for directory in (left, used)}
    for directory in held:
        directory.mkdir()
        (directory / "overlay.qcow2").write_text("x")
    os.close(held[left])  # as at the death of its owner
    with vanishing(tmp_path, "y-"):
        assert left.exists()
    with vanishing(tmp_path, "x-"):
        assert not left.exists()
    assert (used / "overlay.qcow2").exists()
    os.close(held[used])


def test_a_machine_that_forbids_namespaces_says_what_to_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespace, "probe", lambda: ((), "no private network: not permitted"))
    with pytest.raises(HostError, match="not permitted"):
        PrivateNetwork(addresses=[], endpoints={}, names={})


def test_a_namespace_that_can_not_be_made_is_the_hosts_error() -> None:
    network = PrivateNetwork(
        addresses=["not-an-address"], endpoints={}, names={}, unshare=("--no-such-option",)
    )
    with pytest.raises(HostError, match="no private network for a guest") as caught, network:
        pass
    assert "user namespaces" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("metadata.google.internal.", "A", [METADATA]),
        ("METADATA.Google.internal.", "A", [METADATA]),
        ("metadata.google.internal.", "AAAA", []),
        ("metadata.google.internal.", "TXT", []),
    ],
)
def test_known_names_resolve(name: str, kind: str, expected: list[str]) -> None:
    reply = dns.message.from_wire(answer(dns.message.make_query(name, kind).to_wire(), NAMES))
    assert reply.rcode() == dns.rcode.NOERROR
    assert [str(record) for records in reply.answer for record in records] == expected


def test_other_names_do_not_exist() -> None:
    query = dns.message.make_query("deb.debian.org.", "A")
    reply = dns.message.from_wire(answer(query.to_wire(), NAMES))
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert query.is_response(reply)


def test_a_server_may_listen_before_the_kernel_owns_its_new_address() -> None:
    try:
        server = program._listen("fd00:ec2::254", 0)  # no address of this machine
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            pytest.skip("this machine has no IPv6")
        raise
    server.close()
