"""What the seed hands to cloud-init, read back from the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.task import detached
from publisher.vm import keys, seed

pytestmark = pytest.mark.skipif(
    not (shutil.which("mformat") and shutil.which("ssh-keygen")), reason="mtools or ssh is missing"
)


def read(image: Path, name: str) -> str:
    done = subprocess.run(
        ["mtype", "-i", str(image), f"::{name}"], capture_output=True, text=True, check=True
    )
    return done.stdout


def config(text: str) -> Any:
    header, _, body = text.partition("\n")
    assert header == "#cloud-config"
    return json.loads(body)


def test_a_builds_seed_lets_root_in_by_our_key_and_pins_the_host(tmp_path: Path) -> None:
    task = detached(tmp_path / "memory")
    pair = keys.generate(tmp_path, task)
    image = seed.write(
        tmp_path / "seed.img", seed.for_build(pair, "touch /etc/ssh/x.conf"), "build-1", task
    )
    data = config(read(image, "user-data"))
    assert data["ssh_authorized_keys"] == [pair.user_public]
    assert data["users"] == [], "cloud-init locks the password of whom it finds there"
    assert "users-groups" not in data["cloud_init_modules"]
    assert data["disable_root"] is False
    assert data["ssh_keys"]["ed25519_private"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert data["ssh_keys"]["ed25519_public"] == pair.host_public
    assert data["bootcmd"][0] == ["sh", "-c", "touch /etc/ssh/x.conf"]
    # first-boot work that belongs to the image's user stays undone
    assert data["cloud_config_modules"] == data["cloud_final_modules"] == []
    assert json.loads(read(image, "meta-data"))["instance-id"] == "build-1"
    assert json.loads(read(image, "network-config"))["ethernets"]["all"]["dhcp4"] is True
    assert pair.known_hosts.read_text() == f"guest {pair.host_public}\n"
    label = subprocess.run(["mlabel", "-s", "-i", str(image)], capture_output=True, text=True)
    assert "CIDATA" in label.stdout


def test_the_private_key_never_enters_the_seed(tmp_path: Path) -> None:
    task = detached(tmp_path / "memory")
    pair = keys.generate(tmp_path, task)
    image = seed.write(tmp_path / "seed.img", seed.for_build(pair, "/x"), "i", task)
    secret = pair.identity.read_text().splitlines()[2]
    assert secret.encode() not in image.read_bytes()
    assert image.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.files"))


def test_two_builds_never_share_a_key(tmp_path: Path) -> None:
    task = detached(tmp_path / "memory")
    first = keys.generate(tmp_path, task)
    second = keys.generate(tmp_path, task)
    assert first.user_public != second.user_public
    assert first.host_public != second.host_public


def test_a_visitor_gets_a_user_and_an_ordinary_first_boot(tmp_path: Path) -> None:
    pair = keys.generate(tmp_path, detached(tmp_path / "memory"))
    data = config(seed.for_login(pair, "visitor"))
    assert data["users"][0]["name"] == "visitor"
    assert "cloud_final_modules" not in data


@pytest.mark.parametrize(
    "make",
    [lambda pair: seed.for_build(pair, "/etc/x.conf"), lambda pair: seed.for_login(pair, "ann")],
)
@pytest.mark.parametrize(("route", "asked"), [("default via 10.0.2.2", ""), ("", "enp0s2\n")])
def test_a_card_that_nothing_has_set_up_asks_for_an_address(
    tmp_path: Path, make: Callable[[keys.Keys], str], route: str, asked: str
) -> None:
    """As with ifupdown alone, for which cloud-init can't say "any card"."""
    pair = keys.generate(tmp_path, detached(tmp_path / "memory"))
    script = config(make(pair))["bootcmd"][-1][-1]
    (tmp_path / "net" / "enp0s2").mkdir(parents=True)
    (tmp_path / "net" / "lo").mkdir()
    programs = {
        "ip": f'case "$*" in *show*) echo "{route}";; esac',
        "dhclient": f"echo $1 >>{tmp_path}/asked",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = script.replace("/sys/class/net", str(tmp_path / "net"))
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script], check=True, env={"PATH": path}, stdout=subprocess.DEVNULL)
    said = tmp_path / "asked"
    assert (said.read_text() if said.exists() else "") == asked
