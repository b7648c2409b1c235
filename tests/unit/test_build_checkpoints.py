"""The store of checkpoints: what is found, what is never used, what goes first."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.build import checkpoints
from publisher.build.checkpoints import Checkpoint, Checkpoints, Level, cache_limit, chain
from publisher.errors import UsageError
from publisher.memory import boot_id
from publisher.model import GIB, MIB


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Checkpoints]:
    with Checkpoints(tmp_path) as kept:
        yield kept


def levels(*scripts: str, **base: Any) -> tuple[Level, ...]:
    return chain([("boot", {"suite": "bookworm", **base}), *((s, {"run": s}) for s in scripts)])


def keep(
    kept: Checkpoints, path: tuple[Level, ...], *below: str, size: int = 4096, **changes: Any
) -> Checkpoint:
    """Write a checkpoint as the builder does, over the layers `below`."""
    layer = kept.new_layer("qcow2")
    layer.write_bytes(os.urandom(size))
    values: dict[str, Any] = {
        "key": path[-1].key,
        "title": path[-1].title,
        "name": "demo",
        "layers": (*below, layer.name),
        "facts": {},
        "levels": tuple(level.to_json() for level in path),
        "created": 0.0,
        "boot": boot_id(),
    }
    made = Checkpoint(**{**values, **changes})
    with kept.making(path[-1].key) as partial:
        (partial / "memory").write_bytes(os.urandom(size))
        kept.publish(partial, made)
    return made


def test_a_key_depends_on_everything_before_it() -> None:
    one, other = levels("a", "b", "c"), levels("a", "x", "c")
    assert [a.key == b.key for a, b in zip(one, other, strict=True)] == [True, True, False, False]
    assert levels("a", suite="trixie")[1].key != one[1].key


def test_the_deepest_checkpoint_is_resumed(kept: Checkpoints) -> None:
    path = levels("a", "b", "c")
    assert kept.deepest(path) is None
    keep(kept, path[:1])
    keep(kept, path[:3])
    assert kept.deepest(path) is not None
    index, found = kept.deepest(path) or (None, None)
    assert index == 2
    assert found is not None
    assert found.title == "b"
    index, _ = kept.deepest(levels("a", "x")) or (None, None)
    assert index == 0


@pytest.mark.parametrize(
    "damage", ["no description", "half a description", "no memory", "no layer"]
)
def test_a_checkpoint_that_is_not_whole_is_never_used(kept: Checkpoints, damage: str) -> None:
    path = levels("a")
    made = keep(kept, path)
    place = kept.place(made.key)
    description = place / "checkpoint.json"
    if damage == "no description":
        description.unlink()
    elif damage == "half a description":
        description.write_text(description.read_text()[:40])
    elif damage == "no memory":
        (place / "memory").unlink()
    else:
        (kept.layers / made.layers[-1]).unlink()
    assert kept.get(made.key) is None
    assert kept.deepest(path) is None
    again = keep(kept, path)
    assert kept.get(made.key) == again, "a damaged one does not stand in the way"


def test_a_writer_that_is_killed_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from publisher.build.checkpoints import Checkpoints, chain\n"
        "path = chain([('boot', {})])\n"
        "with Checkpoints(Path(sys.argv[1])) as kept, kept.making(path[0].key) as partial:\n"
        "    (partial / 'memory').write_bytes(b'half')\n"
        "    kept.new_layer('qcow2').write_bytes(b'layer')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    kept = Checkpoints(tmp_path)
    assert kept.deepest(chain([("boot", {})])) is None
    assert kept.all() == []
    assert len(list(kept.directory.glob("*.partial"))) == 1
    kept.prune()
    assert not list(kept.directory.glob("*.partial"))
    assert not list(kept.layers.iterdir())


def test_after_a_restart_of_the_host_only_synced_checkpoints_count(kept: Checkpoints) -> None:
    path = levels("a", "b")
    lost = keep(kept, path[:2], boot="another boot of this host")
    assert kept.get(lost.key) is None
    safe = keep(kept, path, boot="another boot of this host", synced=True)
    assert kept.get(safe.key) == safe


def test_syncing_keeps_the_order_of_use(kept: Checkpoints) -> None:
    path = levels("a", "b")
    old, new = keep(kept, path[:2]), keep(kept, path)
    now = time.time()
    os.utime(kept.place(old.key) / "checkpoint.json", (now - 100, now - 100))
    kept.sync()
    assert [c.key for c in kept.all()] == [new.key, old.key]
    assert all(c.synced for c in kept.all())
    kept.touch(old)
    assert [c.key for c in kept.all()] == [old.key, new.key]


def test_two_builds_that_make_the_same_checkpoint_keep_one(kept: Checkpoints) -> None:
    path = levels("a")
    first = keep(kept, path)
    second = keep(kept, path)
    assert kept.get(first.key) == first
    assert first != second
    assert not list(kept.directory.glob("*.partial"))


def test_the_least_recently_used_goes_first_and_shared_layers_stay(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as kept:
        path = levels("a", "b")
        base = keep(kept, path[:1], size=MIB)
        older = keep(kept, path[:2], *base.layers, size=MIB)
        newer = keep(kept, path, *older.layers, size=MIB)
        now = time.time()
        for age, checkpoint in ((300, older), (200, base), (100, newer)):
            os.utime(kept.place(checkpoint.key) / "checkpoint.json", (now - age, now - age))
    assert kept.prune(100 * MIB) == 0
    kept.prune(int(5.5 * MIB))
    assert [c.key for c in kept.all()] == [newer.key, base.key]
    assert {layer.name for layer in kept.layers.iterdir()} == set(newer.layers)
    kept.prune(0)
    assert kept.all() == []
    assert not list(kept.layers.iterdir())


def test_nothing_is_removed_while_another_build_uses_the_store(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as kept:
        made = keep(kept, levels("a"))
        assert Checkpoints(tmp_path).prune(0) == 0
        assert Checkpoints(tmp_path).remove([made.key]) == []
        assert kept.get(made.key) == made
    assert Checkpoints(tmp_path).remove([made.key[:12]]) == [made.key]


def test_a_level_says_which_input_changed(kept: Checkpoints) -> None:
    path = levels("a", "b", "c")
    for depth in range(1, 5):
        keep(kept, path[:depth])
    assert kept.why("demo", path) == ["", "", "", ""]
    assert kept.why("demo", levels("a", "x", "c")) == [
        "",
        "",
        "changed: run",
        "x is done again",
    ]
    assert kept.why("demo", levels("a", "b", "c", size=1))[0] == "changed: size"
    assert kept.why("other", levels("z"))[1] == "not built yet"


def test_the_bound_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBLISH_CACHE_SIZE", raising=False)
    assert cache_limit() == 10 * GIB
    monkeypatch.setenv("PUBLISH_CACHE_SIZE", "3GiB")
    assert cache_limit() == 3 * GIB


def test_the_store_is_private_to_its_user(kept: Checkpoints) -> None:
    assert kept.directory.stat().st_mode & 0o077 == 0
    assert kept.layers.stat().st_mode & 0o077 == 0


def test_a_bound_that_is_no_size_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISH_CACHE_SIZE", "plenty")
    with pytest.raises(UsageError, match="PUBLISH_CACHE_SIZE=plenty"):
        cache_limit()


def test_what_could_not_be_synced_does_not_count_after_a_restart(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    made = keep(kept, levels("a"))
    with monkeypatch.context() as patched:
        patched.setattr("publisher.disks.raw.os.fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            kept.sync()
    found = kept.get(made.key)
    assert found is not None
    assert not found.synced


def test_syncing_in_the_background_is_waited_for_at_the_end(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    synced = []

    def slow(handle: int) -> None:
        began.set()
        assert go_on.wait(10)
        synced.append(handle)

    made = keep(kept, levels("a"))
    monkeypatch.setattr("publisher.disks.raw.os.fsync", slow)
    monkeypatch.setattr(checkpoints, "UNHURRIED", 0.0)
    kept.sync_soon()
    assert began.wait(10)
    found = kept.get(made.key)
    assert found is not None
    assert not found.synced, "nothing is promised before it is true"
    threading.Timer(0.1, go_on.set).start()
    kept.sync()
    files = len(synced)
    assert files >= 2
    found = kept.get(made.key)
    assert found is not None
    assert found.synced
    kept.sync()
    assert len(synced) == files, "the second one finds it done"


def test_a_checkpoint_discarded_while_it_is_synced_stays_away(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keep(kept, levels("a"))
    monkeypatch.setattr("publisher.disks.raw.os.fsync", lambda _: kept.discard(made))
    kept.sync()
    assert kept.get(made.key) is None


def test_leaving_the_store_does_not_wait_for_what_is_still_to_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    synced = []

    def slow(handle: int) -> None:
        began.set()
        assert go_on.wait(10)
        synced.append(handle)

    monkeypatch.setattr("publisher.disks.raw.os.fsync", slow)
    monkeypatch.setattr(checkpoints, "UNHURRIED", 0.0)
    with Checkpoints(tmp_path) as kept:
        made = keep(kept, levels("a"))
        kept.sync_soon()
        assert began.wait(10)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sync"):
            thread.join(10)
    found = kept.get(made.key)
    assert found is not None
    assert not found.synced
    assert len(synced) == 1


def test_a_short_build_is_not_slowed_down_by_what_is_still_to_be_synced(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    monkeypatch.setattr("publisher.disks.raw.os.fsync", lambda _: synced.set())
    monkeypatch.setattr(checkpoints, "UNHURRIED", 0.2)
    made = keep(kept, levels("a"))
    kept.sync_soon()
    kept.pause()
    assert not synced.wait(0.4)
    kept.sync_soon()
    assert synced.wait(5), "a longer one has the time"
    until_synced = time.monotonic() + 5
    while not (found := kept.get(made.key)) or not found.synced:
        assert time.monotonic() < until_synced
        time.sleep(0.01)


def test_what_a_failed_build_joined_is_kept_once_and_goes_first(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as kept:
        first, second = keep(kept, levels("a")), keep(kept, levels("a", "b"))
    files = []
    for at, layer in enumerate((*first.layers, *second.layers, "of-nobody.qcow2")):
        files.append(kept.joined(layer))
        files[-1].write_bytes(b"x" * 8192)
        os.utime(files[-1], (at, at))
    before_the_host_restarted = kept.layers / f"{first.layers[0]}.other-boot.joined"
    before_the_host_restarted.touch()
    kept.prune()
    assert [path.exists() for path in files] == [False, True, False]
    assert not before_the_host_restarted.exists()
    kept.prune(kept.size() - 1)
    assert not files[1].exists()
    assert {c.key for c in kept.all()} == {first.key, second.key}
