"""The clouds' real guests against the services of a rehearsal: cloud-init, waagent and
google-guest-agent as this machine's distribution packages them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.model import Spec
from publisher.proof.guest import Instance, Service, smbios
from publisher.provider import load
from publisher.vm import namespace, process

CLIENTS = Path(__file__).parent / "guest_clients"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKjMI5ZOvnCzXLCmvj8UZk4KFh9WZsHaoMjYGC9cGzJp me"
USER_DATA = "#cloud-config\nruncmd: [true]\n"
INSTANCE = Instance("ab" * 16, "rehearsal", "admin1", KEY, USER_DATA)
DMI = {
    "uuid": "system-uuid",
    "serial": "system-serial-number",
    "product": "system-product-name",
    "manufacturer": "system-manufacturer",
}

kind, why = namespace.probe()
pytestmark = pytest.mark.skipif(not kind, reason=f"no private network here: {why}")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The files of packages of this machine's distribution, without installing them."""
    root = tmp_path_factory.mktemp("packages")

    def unpack(*names: str) -> Path:
        for tool in ("apt-get", "dpkg-deb", "openssl"):  # the clients call openssl
            if not shutil.which(tool):
                pytest.skip(f"the clients are Debian's packages, and {tool} is not here")
        for name in names:
            if (root / f"{name}.there").exists():
                continue
            got = subprocess.run(
                ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name],
                cwd=root, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            debs = list(root.glob(f"{name}_*.deb"))
            if got.returncode or not debs:
                pytest.skip(f"the package {name} can't be got here: {got.stderr.strip()[-200:]}")
            subprocess.run(["dpkg-deb", "-x", debs[0], root / "files"], check=True)
            (root / f"{name}.there").touch()
        return root / "files"

    return unpack


class Cloud:
    """One cloud's service, and programs that run where it is."""

    def __init__(self, name: str, directory: Path, firmware: Any = "bios+uefi") -> None:
        provider: Any = load(name)
        guest = provider.guest(None)
        self.look = guest.looks(Spec("demo", "1", firmware=firmware))[0]
        self.service: Service = guest.service(INSTANCE, self.look)
        self.facts = directory / "facts.json"
        for file, content in self.service.cdrom.items():
            (directory / file).write_bytes(content)
        home = directory / "home"
        home.mkdir()
        facts = {
            "dmi": self._dmi(), "ovf": str(directory / "ovf-env.xml"), "home": str(home),
        }  # fmt: skip
        self.facts.write_text(json.dumps(facts))

    def _dmi(self) -> dict[str, str]:
        tables = [
            dict(part.split("=", 1) for part in text.split(","))
            for text in smbios(self.look, self.service)
        ]
        [system] = [table for table in tables if table["type"] == "1"]
        [chassis] = [table for table in tables if table["type"] == "3"]
        known = {DMI[name]: value for name, value in system.items() if name in DMI}
        return {**known, "chassis-asset-tag": chassis.get("asset", "")}

    def network(self) -> namespace.PrivateNetwork:
        return namespace.PrivateNetwork(
            addresses=self.look.addresses,
            endpoints=self.service.endpoints,
            names=self.look.names,
        )

    def run(self, files: Path, program: str, *arguments: str) -> Any:
        """What the program prints last, as JSON. Its modules are the package's,
        and of this interpreter what the package needs from others."""
        modules = files / "usr/lib/python3/dist-packages"
        argv = [sys.executable, str(CLIENTS / program), *arguments, str(self.facts)]
        with self.network() as network:
            ran = subprocess.run(
                network.enclose(["env", f"PYTHONPATH={modules}", *argv]),
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        return json.loads(ran.stdout.splitlines()[-1])

    def told(self, kind: str) -> list[str]:
        return [report.text for report in self.service.reports() if report.kind == kind]


def test_cloud_init_finds_ec2_at_both_addresses(
    packaged: Callable[..., Path], tmp_path: Path
) -> None:
    cloud = Cloud("aws", tmp_path)
    files = packaged("cloud-init", "python3-configobj")
    told = cloud.run(files, "ask_cloud_init.py", "aws")
    assert set(told) == {"http://169.254.169.254", "http://[fd00:ec2::254]"}
    for got in told.values():
        assert got == {
            "platform": "aws",
            "instance": cloud.service.instance_id,
            "keys": [KEY],
            "user-data": USER_DATA,
            "region": "us-east-1",
            "cards": [cloud.service.mac],
        }
    assert cloud.told("token")
    assert cloud.told("user-data")
    assert cloud.told("key")
    assert not cloud.told("refused")


def test_cloud_init_finds_gce_by_name(packaged: Callable[..., Path], tmp_path: Path) -> None:
    cloud = Cloud("gcp", tmp_path)
    files = packaged("cloud-init", "python3-configobj")
    told = cloud.run(files, "ask_cloud_init.py", "gcp")
    assert told == {
        "instance": cloud.service.instance_id,
        "zone": "us-central1-a",
        "hostname": "rehearsal.us-central1-a.c.rehearsal-project.internal",
        "keys": [KEY],
        "user-data": USER_DATA,
    }
    assert cloud.told("agent") == ["hostkeys/ssh-ed25519 = AAAA"]
    assert not cloud.told("refused")


def test_cloud_init_registers_with_azure(packaged: Callable[..., Path], tmp_path: Path) -> None:
    cloud = Cloud("azure", tmp_path)
    files = packaged("cloud-init", "python3-configobj")
    told = cloud.run(files, "ask_cloud_init.py", "azure")
    assert told == {
        "hostname": "rehearsal",
        "user": "admin1",
        "user-data": USER_DATA,
        "vm": cloud.service.instance_id,
        "custom data": True,
        "cards": [cloud.service.mac.replace(":", "").upper()],
        "keys": [KEY],
    }
    assert cloud.told("ready") == ["Ready"]
    assert cloud.told("key")
    assert not cloud.told("refused")


def test_waagent_takes_the_goal_state_and_reports(
    packaged: Callable[..., Path], tmp_path: Path
) -> None:
    cloud = Cloud("azure", tmp_path)
    told = cloud.run(packaged("waagent", "python3-distro"), "ask_waagent.py")
    assert told == {
        "user": "admin1",
        "hostname": "rehearsal",
        "keys": [KEY],
        "machine": "_rehearsal",
        "metadata": True,
        "vm": cloud.service.instance_id,
        "private keys": 1,
        "host": True,
    }
    assert cloud.told("not-ready") == ["NotReady: Provisioning: Starting"]
    assert cloud.told("ready") == ["Ready"]
    assert "role property CertificateThumbprint = AB12" in cloud.told("agent")
    assert any("Guest Agent is running" in text for text in cloud.told("agent"))
    assert not cloud.told("refused")


def test_google_guest_agent_reads_its_users_and_waits_for_more(
    packaged: Callable[..., Path], tmp_path: Path
) -> None:
    """In a root directory of its own, with nothing in it that the agent could change."""
    cloud = Cloud("gcp", tmp_path)
    agent = packaged("google-guest-agent") / "usr/bin/google_guest_agent"
    root = tmp_path / "root"
    libraries = subprocess.run(["ldd", agent], capture_output=True, text=True, check=False).stdout
    for file in [str(agent), *(word for word in libraries.split() if word.startswith("/"))]:
        inside = root / ("agent" if file == str(agent) else file[1:])
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, inside)
    log = tmp_path / "log"
    with cloud.network() as network, log.open("wb") as output:
        running = process.spawn(
            network.enclose(["chroot", str(root), "/agent"]),
            stdout=output.fileno(),
            stderr=output.fileno(),
        )
        try:
            deadline = time.monotonic() + 30
            while not any("waits" in text for text in cloud.told("agent")):
                assert time.monotonic() < deadline, log.read_text()
                assert running.poll() is None, log.read_text()
                time.sleep(0.1)
            while "Creating user admin1" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        finally:
            process.kill(running)
    assert cloud.told("key")
    assert not cloud.told("refused")
