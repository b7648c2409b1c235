"""A build's checkpoint as a snapshot, so that a machine may wake up from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from publisher.build.checkpoints import Checkpoint, Checkpoints
from publisher.build.room import VARIABLES
from publisher.errors import UsageError
from publisher.lab.image import Image
from publisher.lab.snapshots import Settings, Snapshots, facts, key_of


def find(store: Path, key: str) -> Checkpoint:
    """Raises UsageError unless exactly one checkpoint's key begins so."""
    found = [c for c in Checkpoints(store).all() if key and c.key.startswith(key)]
    if len(found) == 1 and not found[0].running:
        raise UsageError(
            f"the checkpoint {key!r} is the disk that an installer left, not a machine",
            hint="take one of a boot or a step: `publish cache ls` shows them",
        )
    if len(found) != 1:
        which = "no" if not found else "more than one"
        raise UsageError(
            f"{which} checkpoint has a key that begins with {key!r}",
            hint="`publish cache ls` shows them",
        )
    return found[0]


@contextmanager
def adopted(store: Path, checkpoint: Checkpoint, snapshots: Snapshots) -> Iterator[Checkpoint]:
    """The same machine among the snapshots, for the length of the context: its files
    are linked, not copied, and stay as long as a machine needs them."""
    built, kept = Checkpoints(store), snapshots.kept
    with built:
        place = built.place(checkpoint.key)
        name = f"checkpoint-{checkpoint.key[:12]}-{os.getpid()}"
        made = replace(
            checkpoint,
            key=key_of(name),
            title=name,
            facts=facts(_image(built, checkpoint), _settings(checkpoint)),
        )
        for layer in checkpoint.layers:
            if not (kept.layers / layer).exists():
                os.link(built.layers / layer, kept.layers / layer)
        with kept.making(made.key) as partial:
            for file in place.iterdir():
                if file.name != "checkpoint.json":
                    os.link(file, partial / file.name)
            kept.publish(partial, made)
    try:
        yield made
    finally:
        kept.discard(made)


def _image(built: Checkpoints, checkpoint: Checkpoint) -> Image:
    inputs = checkpoint.levels[0]["inputs"]
    uefi = (built.place(checkpoint.key) / VARIABLES).exists()
    base = built.layers / checkpoint.layers[0]
    title = f"{checkpoint.name}, {checkpoint.title}"
    return Image.of(title, base, "raw", inputs["arch"], "uefi" if uefi else "bios")


def _settings(checkpoint: Checkpoint) -> Settings:
    memory: int = checkpoint.levels[0]["inputs"]["machine"][-1]
    return Settings(memory=memory, user="root")
