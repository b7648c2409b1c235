"""`publish doctor`: what it reports, what stands in the way, what --fix does."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from publisher.build import binfmt, namespace
from publisher.cli import doctor, packages
from publisher.errors import (
    CredentialsError,
    HostError,
    PipelineError,
    ProviderError,
    PublishError,
    UnreachableError,
)
from publisher.model import Finding, Severity
from publisher.vm import accelerator, host
from publisher.vm import namespace as private_network
from publisher.vm.accelerator import Accelerator
from publisher.vm.host import Requirement
from tests.unit.cli_fakes import Command
from tests.unit.pipeline_fakes import Cirrus


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


class Host:
    """A machine with some packages installed; root runs here, or a user."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
        self.installed = set(installed)
        self.ran: list[str] = []
        self.fails: set[str] = set()
        self.commands = {"apt-get", "sudo"}
        monkeypatch.setattr(host, "requirements", self.requirements)
        monkeypatch.setattr(
            accelerator, "probe", lambda _: Accelerator("kvm", "KVM runs guests here", ())
        )
        self.emulates = True
        monkeypatch.setattr(binfmt, "emulating", self.emulating)
        monkeypatch.setattr(namespace, "probe", lambda _: namespace.Namespace("none", ()))
        self.network: tuple[tuple[str, ...], str] = (("--user",), "")
        monkeypatch.setattr(private_network, "probe", lambda: self.network)
        self.ipv6_refusal = ""
        monkeypatch.setattr(private_network, "ipv6_refusal", lambda: self.ipv6_refusal)
        monkeypatch.setattr(doctor, "is_native", lambda arch: arch == "x86_64")
        monkeypatch.setattr(packages, "_run", self.run)
        monkeypatch.setattr(packages, "which", lambda name: name if name in self.commands else None)
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def emulating(self, owner: namespace.Namespace, *_: object) -> namespace.Namespace:
        if self.emulates:
            return owner
        raise HostError("programs for aarch64 don't run here", hint="register them")

    def requirements(self, arch: str) -> Sequence[Requirement]:
        arm = Requirement("qemu-arm", "runs guests", "qemu-arm", "qemu-arm" in self.installed)
        return [
            *([arm] if arch == "aarch64" else []),
            Requirement("ssh", "runs steps", "openssh-client", "openssh-client" in self.installed),
            Requirement("mcopy", "fills the ESP", "mtools", "mtools" in self.installed),
            Requirement("mformat", "makes the ESP", "mtools", "mtools" in self.installed),
        ]

    def run(self, argv: Sequence[str], *, quiet: bool = False) -> int:
        line = " ".join(argv)
        self.ran.append(line)
        if any(word in line for word in self.fails):
            return 100
        if "install" in argv:
            self.installed.update(argv)
        return 0


def test_a_good_machine_is_told_so(publish: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, "openssh-client", "mtools", "qemu-arm")
    assert publish("doctor").code == 0
    assert publish.out.splitlines() == [
        "state    check",
        "ok       ssh: runs steps",
        "ok       mcopy: fills the ESP",
        "ok       mformat: makes the ESP",
        "ok       accelerator: KVM runs guests here",
        "ok       rehearsals: guests get a network of their own",
        "ok       images of aarch64: can be built here",
        "ok       cirrus: credentials found; "
        "run publish doctor FILE with a pipeline file to see what they may do",
        "missing  nimbus: no credentials found (log in)",
    ]


def test_another_architecture_is_only_told_of(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Host(monkeypatch, "openssh-client", "mtools")
    assert publish("doctor").code == 0
    wanted = "would need qemu-arm (apt-get install qemu-arm)"
    assert f"warning  images of aarch64: {wanted}\n" in publish.out
    machine.installed.add("qemu-arm")
    machine.emulates = False
    assert publish("doctor").code == 0
    assert "warning  images of aarch64: programs for aarch64 don't run here (regis" in publish.out


def test_the_architecture_of_a_pipeline_must_work(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Host(monkeypatch, "openssh-client", "mtools", "qemu-arm")
    asked = ("doctor", str(publish.file), "--set", "image.arch=aarch64")
    assert publish(*asked).code == 8, "the credentials are missing, and nothing else"
    assert "ok       programs for aarch64: they run emulated while" in publish.out
    assert "images of" not in publish.out
    machine.emulates = False
    assert publish(*asked).code == 4
    assert "missing  programs for aarch64: programs for aarch64 don't run here" in publish.out


def test_what_is_missing_ends_with_4_and_the_command_to_type(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client")
    assert publish("doctor").code == 4
    assert "missing  mcopy: fills the ESP; Debian package mtools\n" in publish.out
    assert publish.err == (
        "error: this machine lacks mcopy, mformat\n"
        "  hint: run publish doctor --fix, or: apt-get install mtools\n"
    )


def test_the_credentials_of_a_pipelines_clouds_stand_in_the_way(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client", "mtools")
    assert publish("doctor", str(publish.file)).code == 8
    assert "ok       cirrus: credentials work\n" in publish.out
    assert publish.err == "error: nimbus: no credentials found\n  hint: log in\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (HostError("boto is missing", hint="pip install"), "missing  cirrus: boto is missing (pip"),
        (UnreachableError("no answer"), "warning  cirrus: no answer\n"),
        (ProviderError("no such project", code="404"), "ok       cirrus: credentials found; run"),
        (CredentialsError("not yours", code="403"), "ok       cirrus: credentials found; run"),
        (PipelineError("which one?", key="x", hint="set Y"), "unknown  cirrus: which one? (set Y)"),
    ],
)
def test_without_a_pipeline_only_the_credentials_matter(
    publish: Command, monkeypatch: pytest.MonkeyPatch, error: PublishError, line: str
) -> None:
    def check(*_: object) -> None:
        raise error

    Host(monkeypatch, "openssh-client", "mtools")
    monkeypatch.setattr(Cirrus, "check", check)
    assert publish("doctor").code == 0
    assert line in publish.out


@pytest.mark.parametrize(
    ("severity", "line", "code"),
    [
        (Severity.ERROR, "missing  cirrus: the quota is 0 (ask for more)\n", 7),
        (Severity.WARNING, "warning  cirrus: the quota is 0 (ask for more)\n", 8),
        (Severity.NOTE, "ok       cirrus: the quota is 0\n", 8),
    ],
)
def test_what_a_cloud_finds_is_reported(
    publish: Command, monkeypatch: pytest.MonkeyPatch, severity: Severity, line: str, code: int
) -> None:
    finding = Finding("quota", severity, "the quota is 0", "ask for more")
    Host(monkeypatch, "openssh-client", "mtools")
    monkeypatch.setattr(Cirrus, "check", lambda *_: [finding])
    text = publish.file.read_text()
    head = text.partition("[targets.nimbus]")[0]
    publish.file.write_text(head + '[targets.cirrus]\nproject = "demo"\n[targets.nimbus]\n')
    assert publish("doctor", str(publish.file)).code == code
    assert line in publish.out


def test_a_machine_without_user_namespaces_proves_less(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client", "mtools").network = ((), "not permitted")
    publish("doctor")
    assert "warning  rehearsals: less can be proved: not permitted\n" in publish.out


def test_a_machine_without_ipv6_proves_less(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client", "mtools").ipv6_refusal = "not supported"
    publish("doctor")
    said = "warning  rehearsals: less can be proved: guests get no IPv6 addresses: not supported"
    assert said in publish.out.splitlines()


def test_an_accelerator_that_emulates_is_a_warning(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client", "mtools")
    slow = Accelerator("tcg", "there is no /dev/kvm: slowly", ())
    monkeypatch.setattr(accelerator, "probe", lambda _: slow)
    assert publish("doctor").code == 0
    assert "warning  accelerator: there is no /dev/kvm: slowly\n" in publish.out


def test_the_accelerator_is_unknown_without_qemu(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client", "mtools")

    def probe(_: str) -> Accelerator:
        raise HostError("qemu-system-x86_64 is not installed")

    monkeypatch.setattr(accelerator, "probe", probe)
    publish("doctor")
    assert "unknown  accelerator: qemu-system-x86_64 is not installed\n" in publish.out


def test_doctor_as_json(publish: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, "openssh-client", "mtools")
    assert json.loads(publish("doctor", "--json").out)[0] == {
        "subject": "ssh",
        "state": "ok",
        "detail": "runs steps",
    }


def test_fix_installs_what_is_missing(publish: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Host(monkeypatch)
    assert publish("doctor", "--fix").code == 0
    apt = "env DEBIAN_FRONTEND=noninteractive apt-get -q -y"
    assert machine.ran == [
        f"{apt} update",
        f"{apt} install --no-install-recommends mtools openssh-client",
    ]


def test_fix_has_nothing_to_do_on_a_good_machine(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Host(monkeypatch, "openssh-client", "mtools")
    publish("doctor", "--fix")
    assert machine.ran == []


def test_fix_goes_through_sudo_when_it_asks_nothing(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Host(monkeypatch, "openssh-client")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert publish("doctor", "--fix").code == 0
    assert machine.ran[0] == "sudo -n true"
    assert all(line.startswith("sudo -n ") for line in machine.ran)


@pytest.mark.parametrize("lacks", ["sudo", ""])
def test_fix_says_the_command_when_it_may_not_install(
    publish: Command, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    machine = Host(monkeypatch, "openssh-client")
    machine.commands.discard(lacks)
    machine.fails.add("sudo -n true")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert publish("doctor", "--fix").code == 4
    assert publish.err == (
        "error: installing packages needs root, and sudo wants a password\n"
        "  hint: run: sudo apt-get install mtools\n"
    )


def test_fix_needs_apt(publish: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, "openssh-client").commands.clear()
    assert publish("doctor", "--fix").code == 4
    assert publish.err == (
        "error: this machine has no apt-get\n  hint: install by other means: mtools\n"
    )


def test_an_installation_that_fails_is_an_error(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(monkeypatch, "openssh-client").fails.add("install ")
    assert publish("doctor", "--fix").code == 4
    assert publish.err == (
        "error: apt-get install ended with status 100\n  hint: run: apt-get install mtools\n"
    )
