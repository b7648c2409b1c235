"""Named snapshots of lab machines: memory and disk, kept until they are removed.

STATE/labs/checkpoints/     as in build/checkpoints.py, the keys being the names' digests
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.build.checkpoints import Checkpoint, Checkpoints, Level
from publisher.errors import UsageError
from publisher.lab.image import Image
from publisher.model import Noun

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Settings(Noun):
    """What a machine must have to take another one's memory, and how to log in."""

    memory: int = 1024
    """MiB"""
    user: str = "lab"
    offline: bool = False


def check_name(name: str, what: str) -> str:
    """Raises UsageError for a name that is no file name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a {what}",
            hint="use up to 63 letters, digits, dots, dashes and underscores",
        )
    return name


def key_of(name: str) -> str:
    return hashlib.sha256(f"lab {name}".encode()).hexdigest()


class Snapshots:
    """The store of them below a state directory. A context while a machine runs,
    as layers that machines use must stay."""

    def __init__(self, labs: Path) -> None:
        self.kept = Checkpoints(labs)

    def all(self) -> Sequence[Checkpoint]:
        """The newest first."""
        return self.kept.all()

    def get(self, name: str) -> Checkpoint:
        """Raises UsageError when there is none of that name."""
        found = self.kept.get(key_of(check_name(name, "snapshot")))
        if found is None:
            known = [snapshot.title for snapshot in self.all()]
            raise UsageError(
                f"there is no snapshot {name!r}",
                hint=f"known are: {', '.join(known)}" if known else "`publish lab save` makes one",
            )
        return found

    def has(self, name: str) -> bool:
        return self.kept.get(key_of(name)) is not None

    def remove(self, names: Sequence[str]) -> None:
        """Raises UsageError for unknown names, and while machines run."""
        keys = [self.get(name).key for name in names]
        if len(self.kept.remove(keys)) != len(keys):
            raise UsageError(
                "snapshots can't be removed while lab machines run",
                hint="end the machines that `publish lab ls` shows",
            )

    def sweep(self) -> None:
        """Remove the layers of machines that are gone."""
        self.kept.prune(_ALL)


def level(name: str) -> Level:
    return Level(name, {"snapshot": name}, key_of(name))


def facts(image: Image, settings: Settings) -> dict[str, Any]:
    return {"image": image.to_json(), "settings": settings.to_json()}


def described(snapshot: Checkpoint) -> tuple[Image, Settings]:
    """What `facts` wrote."""
    return (
        Image.from_json(snapshot.facts["image"]),
        Settings.from_json(snapshot.facts["settings"]),
    )
