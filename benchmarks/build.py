"""Build times against Packer: cold, after the last step changed, after a step that failed.

Both get the same Debian disk (made here first, not measured) and the same five
steps, two of which install packages; both run their guests without KVM, one
after the other. Needs Debian's packer package (1.6, with its qemu builder) and
the program's own requirements; takes a quarter of an hour on two cores.

    python benchmarks/build.py [--rounds 1] [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

GOALS = {"cold": 1.0, "last step changed": 0.10, "retry of a failed step": 0.05}
"""Our time as a part of Packer's, at most."""

STEPS = (
    "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install nginx-light",
    "DEBIAN_FRONTEND=noninteractive apt-get -q -y install jq",
    "mkdir -p /srv/www && echo hello >/srv/www/index.html",
    "sed -i s,/var/www/html,/srv/www, /etc/nginx/sites-available/default && nginx -t",
)
LAST = "systemctl is-enabled nginx && echo {} >/etc/motd"
FAILING = "echo {} && exit 3"

BASE = """
[image]
name = "base"
version = "1"

[build]
size = "2GiB"

[build.source.debian]
suite = "bookworm"

[targets.files]
"""

OURS = """
[image]
name = "bench"
version = "1"

[build]
size = "2GiB"

[build.source.disk]
file = {location}

[targets.files]
"""

USER_DATA = """#cloud-config
users:
  - name: bench
    sudo: ALL=(ALL) NOPASSWD:ALL
    shell: /bin/bash
    ssh_authorized_keys: [{key}]
"""


@dataclass(frozen=True)
class Timed:
    seconds: float
    status: int
    said: str


def timed(argv: Sequence[str], directory: Path) -> Timed:
    # an installed program has its bytecode
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    done = subprocess.run(
        argv, cwd=directory, capture_output=True, text=True, check=False, env=environment
    )
    return Timed(time.monotonic() - started, done.returncode, done.stdout + done.stderr)


def expect(done: Timed, *, ok: bool) -> float:
    if (done.status == 0) is not ok:
        sys.exit(f"a build ended with status {done.status}:\n{done.said[-3000:]}")
    return done.seconds


class Ours:
    name = "publish"

    def __init__(self, directory: Path, base: Path) -> None:
        self.directory = directory
        self.base = base
        self.forget()

    def forget(self) -> None:
        shutil.rmtree(self.directory / "state", ignore_errors=True)

    def build(self, last: str) -> Timed:
        text = OURS.format(location=json.dumps(str(self.base)))
        for step in (*STEPS, last):
            text += f"\n[[build.steps]]\nrun = {json.dumps(step)}\n"
        (self.directory / "pipeline.toml").write_text(text)
        return timed([*publish("build"), "pipeline.toml", "--state", "state"], self.directory)


class Packer:
    name = "packer"

    def __init__(self, directory: Path, base: Path) -> None:
        self.directory = directory
        key = directory / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(key)],
            check=True,
        )
        seed = directory / "http"
        seed.mkdir()
        public = key.with_suffix(".pub").read_text().strip()
        (seed / "user-data").write_text(USER_DATA.format(key=public))
        (seed / "meta-data").write_text("instance-id: bench\nlocal-hostname: bench\n")
        self.base = base
        self.key = key

    def forget(self) -> None:
        pass  # it keeps nothing between builds

    def build(self, last: str) -> Timed:
        shutil.rmtree(self.directory / "output", ignore_errors=True)
        seed = "type=1,serial=ds=nocloud-net;s=http://10.0.2.2:{{ .HTTPPort }}/"
        builder = {
            "type": "qemu",
            "accelerator": "tcg",
            "headless": True,
            "disk_image": True,
            "iso_url": str(self.base),
            "iso_checksum": "none",
            "format": "qcow2",
            "skip_resize_disk": True,
            "disk_interface": "virtio",
            "net_device": "virtio-net",
            "boot_wait": "1s",
            "http_directory": "http",
            "output_directory": "output",
            "ssh_username": "bench",
            "ssh_private_key_file": str(self.key),
            "ssh_timeout": "20m",
            "shutdown_command": "sudo systemctl poweroff",
            "qemuargs": [["-smbios", seed], ["-smp", "2"], ["-m", "1024M"], ["-cpu", "max"]],
        }
        shell = {
            "type": "shell",
            "execute_command": "sudo env {{ .Vars }} sh -e {{ .Path }}",
        }
        provisioners = [{**shell, "inline": [step]} for step in (*STEPS, last)]
        template = {"builders": [builder], "provisioners": provisioners}
        (self.directory / "template.json").write_text(json.dumps(template, indent=1))
        return timed(["packer", "build", "-color=false", "template.json"], self.directory)


def publish(command: str) -> list[str]:
    return [sys.executable, "-m", "publisher", command]


def measure(builder: Ours | Packer, number: int) -> dict[str, float]:
    """Seconds of each case. A builder begins with nothing of its own kept."""
    builder.forget()
    found: dict[str, float] = {}

    def take(case: str, last: str) -> None:
        found[case] = expect(builder.build(last), ok=True)
        print(f"  {case}: {found[case]:.1f} s", flush=True)

    take("cold", LAST.format(f"first {number}"))
    take("last step changed", LAST.format(f"second {number}"))
    expect(builder.build(FAILING.format(number)), ok=False)
    take("retry of a failed step", LAST.format(f"third {number}"))
    return found


def make_base(directory: Path) -> Path:
    (directory / "base.toml").write_text(BASE)
    said = timed([*publish("build"), "base.toml", "--state", "base", "--json"], directory)
    expect(said, ok=True)
    sealed = max((directory / "base").rglob("*.raw"), key=lambda path: path.stat().st_blocks)
    base = directory / "base.qcow2"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(sealed), str(base)], check=True
    )
    return base


def run(directory: Path, rounds: int) -> bool:
    print("making the base …", flush=True)
    base = make_base(directory)
    builders: list[Ours | Packer] = []
    kinds: tuple[Callable[[Path, Path], Ours | Packer], ...] = (Ours, Packer)
    for kind in kinds:
        private = directory / kind.name  # type: ignore[attr-defined]
        private.mkdir()
        builders.append(kind(private, base))
    results: dict[str, list[dict[str, float]]] = {builder.name: [] for builder in builders}
    for number in range(rounds):
        for builder in builders:
            print(f"round {number + 1}: {builder.name} …", flush=True)
            results[builder.name].append(measure(builder, number))
    print(f"\n{'':24}{'publish':>10}{'packer':>10}{'ratio':>8}{'goal':>7}")
    met = True
    for case, goal in GOALS.items():
        ours, theirs = (
            statistics.median(row[case] for row in results[name]) for name in ("publish", "packer")
        )
        ratio = ours / theirs
        met = met and ratio <= goal
        print(f"{case:24}{ours:9.1f}s{theirs:9.1f}s{ratio:8.3f}{goal:7.2f}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work here and keep everything")
    given = parser.parse_args()
    for tool in ("packer", "qemu-img", "ssh-keygen"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install packer qemu-utils openssh-client")
    if given.keep is not None:
        given.keep.mkdir(parents=True)
        return 0 if run(given.keep.resolve(), given.rounds) else 1
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        return 0 if run(Path(name), given.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
