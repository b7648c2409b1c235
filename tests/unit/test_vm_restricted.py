"""The network that QEMU itself is: its option, read as QEMU reads it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.vm import relay
from publisher.vm.restricted import RestrictedNetwork

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def echo(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


def forwarded(netdev: str) -> list[str]:
    """The command of the only guestfwd: a doubled comma is one, the rest is split as
    by a shell."""
    (word,) = [word for word in re.split("(?<!,),(?!,)", netdev) if "-cmd:" in word]
    return shlex.split(word.partition("-cmd:")[2].replace(",,", ","))


def test_a_relay_is_found_under_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "it's a check,out"
    directory.mkdir()
    (directory / "python").symlink_to(sys.executable)
    shutil.copy(relay.__file__, directory)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    monkeypatch.setattr(relay, "__file__", str(directory / "relay.py"))
    with RestrictedNetwork({("169.254.169.254", 80): echo}) as network:
        done = subprocess.run(
            forwarded(network.netdev),
            input=b"GET /latest HTTP/1.0\r\n\r\n",
            capture_output=True,
            timeout=10,
            check=True,
        )
    assert done.stdout.endswith(b"/latest")
