"""What Google's stand-in changes together is kept together, whenever it is killed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from providers.gcp.sandbox.store import Store


class Killed(BaseException):
    pass


def kill(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Have the process end at file change number `after`, renames and removals alike."""
    counted = itertools.count()

    def limited(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            if next(counted) >= after:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    limited("replace")
    limited("unlink")


def attach(store: Store) -> None:
    """A disk comes into use, its machine lists it, and an older disk goes with its bytes."""
    with store.lock:
        store.disks.put("a", {"users": ["machine"]})
        with store.lock:
            store.instances.put("machine", {"disks": ["a"]})
        store.discard(store.bytes("old"))
        store.disks.remove("old")


def state(store: Store) -> object:
    return (
        store.disks.get("a"),
        store.instances.get("machine"),
        store.disks.get("old"),
        store.bytes("old").exists(),
    )


@pytest.mark.parametrize("after", range(8))
def test_a_change_is_there_as_a_whole_or_not_at_all(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.bytes("old").touch()
    store.disks.put("a", {"users": []})
    store.disks.put("old", {})
    store.instances.put("machine", {"disks": []})
    before = state(store)
    with monkeypatch.context() as patched:
        kill(patched, after)
        try:
            attach(store)
            survived = True
        except Killed:
            survived = False
    assert survived == (after >= 6)  # the list of changes, two documents, two removals, the list
    changed = ({"users": ["machine"]}, {"disks": ["a"]}, None, False)
    again = state(Store(tmp_path))
    assert again == (before if after == 0 else changed)
    assert state(Store(tmp_path)) == again
    assert not list(tmp_path.glob("*.json"))
