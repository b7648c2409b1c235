"""`publish secrets`: findings as words and as JSON, and when it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.cli.main import run
from publisher.errors import HostError, ProofError, UsageError
from tests.unit.ext_disk import ext_disk

HISTORY = {"/root/.bash_history": "ls\n"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path / "state"


def test_a_private_image_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["secrets", str(ext_disk(tmp_path, HISTORY))]) == 0
    out = capsys.readouterr().out
    assert "error: history of commands in /root/.bash_history" in out
    assert "fix: sudo rm -rf /root/.bash_history in the last build step" in out


def test_a_public_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["secrets", str(ext_disk(tmp_path, HISTORY)), "--public"])
    assert code == ProofError.exit_code
    assert "a public image must hold no secret" in capsys.readouterr().err


def test_a_clean_disk_passes_in_public(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["secrets", str(ext_disk(tmp_path, {"/x": "x"})), "--public"]) == 0
    assert "no kinds of secrets" in capsys.readouterr().out


def test_json_for_a_disk_in_another_format(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "disk.qcow2"
    raw = ext_disk(tmp_path, HISTORY)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, packed], check=True)
    assert run(["secrets", str(packed), "--json"]) == 0
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["path"]) == ("secrets.history", "/root/.bash_history")
    assert list((state / "scratch").iterdir()) == []


def test_a_missing_file_is_told_of(tmp_path: Path) -> None:
    assert run(["secrets", str(tmp_path / "none.raw")]) == UsageError.exit_code


def test_without_its_engine_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    assert run(["secrets", str(ext_disk(tmp_path, {"/x": "x"}))]) == HostError.exit_code
    assert "pip install hyperscan" in capsys.readouterr().err
