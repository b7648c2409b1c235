"""`publish cache`: what builds keep, listed and removed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from publisher.build.checkpoints import Checkpoints
from publisher.build.explain import explain
from publisher.cli.main import main
from publisher.disks.store import Store
from publisher.model import MIB, Spec
from publisher.recipe import Recipe
from tests.unit.test_build_checkpoints import keep, levels


def publish(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with Checkpoints(tmp_path / "store") as kept:
        path = levels("a", "b")
        base = keep(kept, path[:1], size=MIB)
        keep(kept, path, *base.layers, size=MIB)
    downloads = tmp_path / "store" / "downloads"
    downloads.mkdir()
    for name, age in (("fresh", 0), ("stale", 40 * 86400)):
        (downloads / name).write_bytes(os.urandom(4096))
        os.utime(downloads / name, (time.time() - age,) * 2)
    return tmp_path


def listed(state: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert publish("cache", "ls", "--state", str(state), "--json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_everything_that_is_kept_is_listed_once(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(state, capsys)
    assert [(e["kind"], e["what"]) for e in found[:2]] == [
        ("checkpoint", "demo: b"),
        ("checkpoint", "demo: boot"),
    ]
    assert {e["what"] for e in found if e["kind"] == "download"} == {"fresh", "stale"}
    assert sum(e["size"] for e in found if e["kind"] == "checkpoint") < 5 * MIB
    assert publish("cache", "ls", "--state", str(state)) == 0
    assert "checkpoints are kept up to" in capsys.readouterr().out


def test_prune_keeps_the_bound_and_what_is_used(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish("cache", "prune", "--state", str(state)) == 0
    found = listed(state, capsys)
    assert {e["what"] for e in found if e["kind"] == "download"} == {"fresh"}
    assert len([e for e in found if e["kind"] == "checkpoint"]) == 2
    assert publish("cache", "prune", "--limit", "0", "--state", str(state)) == 0
    assert [e["kind"] for e in listed(state, capsys)] == ["download"]


def test_rm_removes_what_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = listed(state, capsys)[0]
    assert publish("cache", "rm", top["key"], "fresh", "--state", str(state)) == 0
    assert {e["what"] for e in listed(state, capsys)} == {"demo: boot", "stale"}


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["sweep"], "there is no action 'sweep'", 2),
        (["rm"], "nothing to remove is named", 2),
        (["rm", "feed"], "nothing is kept under 'feed'", 2),
        (["prune", "--limit", "much"], "--limit much", 2),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], message: str, code: int, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish("cache", *arguments, "--state", str(state)) == code
    assert message in capsys.readouterr().err


def test_a_checkpoint_in_use_is_not_removed(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = listed(state, capsys)[0]["key"]
    with Checkpoints(state / "store"):
        assert publish("cache", "rm", key, "--state", str(state)) == 13
    assert "a build is using the checkpoints" in capsys.readouterr().err


def test_an_explanation_names_what_hits_and_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.build.builder import MEMORY
    from publisher.build.levels import levels as levels_of
    from publisher.vm import accelerator

    chosen = accelerator.decide(
        "x86_64", native=True, device="there is no /dev/kvm", guest="", cpus=2
    )
    monkeypatch.setattr("publisher.vm.accelerator.probe", lambda arch: chosen)
    monkeypatch.setattr("publisher.vm.host.which", lambda command: "/usr/bin/true")
    monkeypatch.setattr("publisher.build.levels.require", lambda command: "/bin/true")

    def recipe(*scripts: str) -> Recipe:
        steps = [{"run": script} for script in scripts]
        return Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": steps})

    spec, store = Spec("demo", "1"), Store(tmp_path)
    before = explain(recipe("a", "b"), spec, tmp_path, store, {}, "build")
    assert before[0][1:] == ("run", "not built yet")
    path = levels_of(recipe("a", "b"), spec, {"url": "digest"}, chosen, MEMORY, tmp_path)
    with Checkpoints(tmp_path / "store") as kept:
        for depth in (1, 2, 3):
            keep(kept, path[:depth])
    coming: dict[str, str] = {}
    assert explain(recipe("a", "x", "c"), spec, tmp_path, store, coming, "dev.build") == (
        ("boot", "reuse", "in the checkpoint"),
        ("step 1: run a", "reuse", "resumed from here"),
        ("step 2: run x", "run", "changed: run"),
        ("step 3: run c", "run", "run x is done again"),
    )
    assert explain(recipe("a", "x", "d"), spec, tmp_path, store, coming, "prod.build") == (
        ("boot", "reuse", "in the checkpoint"),
        ("step 1: run a", "reuse", "in the checkpoint"),
        ("step 2: run x", "reuse", "resumed from here, which dev.build makes"),
        ("step 3: run d", "run", "not built yet"),
    )


def test_an_explanation_tells_whether_an_installer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.build.levels import installation
    from publisher.vm import accelerator

    chosen = accelerator.decide("x86_64", native=True, device="none", guest="", cpus=2)
    monkeypatch.setattr("publisher.vm.accelerator.probe", lambda arch: chosen)
    monkeypatch.setattr("publisher.vm.host.which", lambda command: "/usr/bin/true")
    monkeypatch.setattr("publisher.build.levels.require", lambda command: "/bin/true")
    for name in ("linux", "initrd"):
        (tmp_path / name).write_text(name)

    def recipe(arguments: str) -> Recipe:
        installer = {"kernel": "linux", "initrd": "initrd", "arguments": arguments}
        return Recipe.model_validate({"source": {"installer": installer}, "size": "2GiB"})

    spec, store = Spec("demo", "1"), Store(tmp_path)
    coming: dict[str, str] = {}
    assert explain(recipe("a"), spec, tmp_path, store, coming, "dev.build") == (
        ("installation", "run", "not installed yet"),
        ("boot", "run", "not built yet"),
    )
    (first, _) = explain(recipe("a"), Spec("demo", "2"), tmp_path, store, coming, "prod.build")
    assert first == ("installation", "reuse", "dev.build makes it")
    level = installation(recipe("a"), spec, {}, tmp_path)
    assert level is not None
    with Checkpoints(tmp_path / "store") as kept:
        keep(kept, (level,), running=False)
    (first, second) = explain(recipe("a"), spec, tmp_path, store, {}, "build")
    assert first == ("installation", "reuse", "installed before")
    assert second[1:] == ("run", "not built yet")
    (first, _) = explain(recipe("b"), spec, tmp_path, store, {}, "build")
    assert first == ("installation", "run", "changed: source.installer.arguments")
