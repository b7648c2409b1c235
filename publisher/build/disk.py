"""Source `disk`: a disk that exists already, by path or URL."""

from __future__ import annotations

from pathlib import Path

from publisher.build import originals
from publisher.build.adopt import adopt
from publisher.fetch import Digest
from publisher.recipe import Disk
from publisher.task import Task

KEY = "build.source.disk"


def prepare(
    source: Disk,
    size: int,
    *,
    directory: Path,
    cache: Path,
    into: Path,
    task: Task,
    known: Digest | None = None,
) -> Path:
    """Fetch the disk (downloads stay in `cache`) and write it to `into`, raw, `size`
    bytes. Paths in `source` are relative to `directory`; `known` is its digest where
    a signed list told it already.

    Raises BuildError, HostError, PipelineError."""
    fetched = originals.bring(source, known, directory=directory, cache=cache, task=task, key=KEY)
    task.output(f"source disk: {fetched.digest}")
    return adopt(fetched.path, size, into, task, f"{KEY}.file")
