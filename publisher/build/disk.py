"""Source `disk`: a disk that exists already, by path or URL."""

from __future__ import annotations

from pathlib import Path

from publisher.build.adopt import adopt
from publisher.fetch import Digest, SignedSums, Trust, fetch
from publisher.recipe import Disk, local_file
from publisher.task import Task

KEY = "build.source.disk"


def trust(source: Disk, directory: Path) -> Trust | None:
    """What the file must be; None for a local file without a digest."""
    if source.sums is not None and source.key is not None:
        key_file = local_file(directory, source.key, f"{KEY}.key")
        return SignedSums(source.sums, source.signature, key_file)
    given = source.sha256 or source.sha512
    return Digest.parse(given) if given else None


def prepare(
    source: Disk, size: int, *, directory: Path, cache: Path, into: Path, task: Task
) -> Path:
    """Fetch the disk (downloads stay in `cache`) and write it to `into`, raw, `size`
    bytes. Paths in `source` are relative to `directory`.

    Raises BuildError, HostError, PipelineError."""
    fetched = fetch(
        source.file,
        trust=trust(source, directory),
        directory=directory,
        cache=cache,
        task=task,
        key=f"{KEY}.file",
    )
    task.output(f"source disk: {fetched.digest}")
    return adopt(fetched.path, size, into, task, f"{KEY}.file")
